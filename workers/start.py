"""Start one worker in this process."""

from __future__ import annotations

import os
import sys

from pipeline.app import run_worker
from pipeline.detection.bundle import BundleError
from pipeline.evidence.assembly import require_object_lock
from pipeline.evidence.object_lock import ObjectLockMissing
from pipeline.exit_codes import EXIT_SETTINGS
from pipeline.media.errors import StoreUnavailable
from pipeline.media.master_keys import MasterKeyError
from pipeline.settings import SettingsInvalid, load_settings
from schemas.types import StageName
from workers.registry import build_worker
from workers.settings import Settings


def start(name: StageName) -> int:
    """Read the settings, build the stage, run it; returns the exit code.

    2: settings, bundle or a master key's file are wrong, the store cannot be opened, or in production mode it has no
    Object Lock.
    """
    try:
        settings = load_settings(Settings)
        require_object_lock(settings)
        spec = build_worker(name, settings)
    except (SettingsInvalid, BundleError, MasterKeyError, ObjectLockMissing, StoreUnavailable) as error:
        sys.stderr.write(f"mediasieve {name}: {error}\n")
        return EXIT_SETTINGS
    code = run_worker(spec, settings)
    # A thread that hangs in a fetch or a model call must not hold the process beyond its drain.
    sys.stderr.flush()
    os._exit(code)
