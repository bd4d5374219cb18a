"""Runs one review console: `python -m workers.console`."""

from __future__ import annotations

import os
import sys

from pipeline.exit_codes import EXIT_SETTINGS
from pipeline.media.errors import StoreUnavailable
from pipeline.media.master_keys import MasterKeyError
from pipeline.settings import SettingsInvalid, load_settings
from workers.settings import Settings

NAME = "console"


def main() -> int:
    """The exit code; see `run_console`."""
    try:
        from workers.console.web.serving import pages  # noqa: PLC0415 - its packages come with [web]
        from workers.console.worker import run_console  # noqa: PLC0415 - as above
    except ModuleNotFoundError as error:
        return _unusable(f"{error.name} is not installed; pip install 'mediasieve[web]'")
    try:
        settings = load_settings(Settings)
        code = run_console(settings, pages(settings))
    except (SettingsInvalid, MasterKeyError, StoreUnavailable) as error:
        return _unusable(str(error))
    sys.stderr.flush()
    os._exit(code)  # nothing that hangs in native code may hold the process


def _unusable(why: str) -> int:
    sys.stderr.write(f"mediasieve {NAME}: {why}\n")
    return EXIT_SETTINGS


if __name__ == "__main__":
    sys.exit(main())
