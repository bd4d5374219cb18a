"""Start one worker in this process."""

from __future__ import annotations

import os
import sys

from pipeline.app import run_worker
from pipeline.detection.bundle import BundleError
from pipeline.settings import SettingsInvalid, load_settings
from schemas.types import StageName
from workers.registry import build_worker
from workers.settings import Settings

EXIT_SETTINGS = 2


def start(name: StageName) -> int:
    """Read the settings, build the stage, run it; returns the exit code (2: settings or bundle are wrong)."""
    try:
        settings = load_settings(Settings)
        spec = build_worker(name, settings)
    except (SettingsInvalid, BundleError) as error:
        sys.stderr.write(f"mediasieve {name}: {error}\n")
        return EXIT_SETTINGS
    code = run_worker(spec, settings)
    # A thread that hangs in a fetch or a model call must not hold the process beyond its drain.
    sys.stderr.flush()
    os._exit(code)
