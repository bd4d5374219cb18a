"""Runs the adaptation worker: `python -m workers.adaptation`."""

from __future__ import annotations

import os
import sys

from pipeline.detection.bundle import BundleError
from pipeline.exit_codes import EXIT_SETTINGS
from pipeline.media.errors import StoreUnavailable
from pipeline.media.master_keys import MasterKeyError
from pipeline.settings import SettingsInvalid, load_settings
from workers.adaptation.worker import NAME, run_adaptation
from workers.settings import Settings


def main() -> int:
    """The exit code; see `run_adaptation`."""
    try:
        code = run_adaptation(load_settings(Settings))
    except (SettingsInvalid, BundleError, MasterKeyError, StoreUnavailable, ValueError) as error:
        sys.stderr.write(f"mediasieve {NAME}: {error}\n")
        return EXIT_SETTINGS
    sys.stderr.flush()
    os._exit(code)  # nothing that hangs in native code may hold the process


if __name__ == "__main__":
    sys.exit(main())
