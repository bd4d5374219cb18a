"""Runs one member of the audit group: `python -m workers.audit`."""

from __future__ import annotations

import os
import sys
import time

from pipeline.evidence.assembly import open_retainer, require_object_lock
from pipeline.evidence.object_lock import ObjectLockMissing
from pipeline.evidence.retention import RetentionPolicyError
from pipeline.exit_codes import EXIT_SETTINGS
from pipeline.media.errors import StoreUnavailable
from pipeline.media.master_keys import MasterKeyError
from pipeline.settings import SettingsInvalid, load_settings
from workers.audit.retaining import retaining
from workers.audit.tree import OnLogged
from workers.audit.worker import NAME, run_audit
from workers.settings import Settings

_UNUSABLE = (SettingsInvalid, ObjectLockMissing, RetentionPolicyError, MasterKeyError, ValueError)


def main() -> int:
    """The exit code; see `run_audit`. A store that is away at the start is waited for, as later on."""
    try:
        settings = load_settings(Settings)
        on_logged = _opened(settings)
    except _UNUSABLE as error:
        return _unusable(error)
    try:
        code = run_audit(settings, on_logged)
    except SettingsInvalid as error:
        return _unusable(error)
    sys.stderr.flush()
    os._exit(code)  # nothing that hangs in native code may hold the process


def _opened(settings: Settings) -> OnLogged:
    wait_s = settings.audit.backoff_first_s
    while True:
        try:
            require_object_lock(settings)
            return retaining(open_retainer(settings), settings.audit.retain_threads)
        except StoreUnavailable as error:
            sys.stderr.write(f"mediasieve {NAME}: {error}; trying again in {wait_s:g} s\n")
            time.sleep(wait_s)
            wait_s = min(settings.audit.backoff_max_s, wait_s * 2)


def _unusable(error: Exception) -> int:
    sys.stderr.write(f"mediasieve {NAME}: {error}\n")
    return EXIT_SETTINGS


if __name__ == "__main__":
    sys.exit(main())
