"""Runs one member of the audit group: `python -m workers.audit`."""

from __future__ import annotations

import os
import sys

from pipeline.evidence.assembly import open_retainer, require_object_lock
from pipeline.evidence.object_lock import ObjectLockMissing
from pipeline.evidence.retention import RetentionPolicyError
from pipeline.exit_codes import EXIT_SETTINGS
from pipeline.media.errors import StoreUnavailable
from pipeline.media.master_keys import MasterKeyError
from pipeline.settings import SettingsInvalid, load_settings
from workers.audit.retaining import retaining
from workers.audit.worker import NAME, run_audit
from workers.settings import Settings

_UNUSABLE = (SettingsInvalid, ObjectLockMissing, RetentionPolicyError, MasterKeyError, StoreUnavailable, ValueError)


def main() -> int:
    """The exit code; see `run_audit`."""
    try:
        settings = load_settings(Settings)
        require_object_lock(settings)
        on_logged = retaining(open_retainer(settings), settings.audit.retain_threads)
    except _UNUSABLE as error:
        return _unusable(error)
    try:
        code = run_audit(settings, on_logged)
    except SettingsInvalid as error:
        return _unusable(error)
    sys.stderr.flush()
    os._exit(code)  # nothing that hangs in native code may hold the process


def _unusable(error: Exception) -> int:
    sys.stderr.write(f"mediasieve {NAME}: {error}\n")
    return EXIT_SETTINGS


if __name__ == "__main__":
    sys.exit(main())
