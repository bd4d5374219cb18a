"""An audit worker under test: `python -m tests.fault.audit_main --journal FILE ...`; see `journal`."""

from __future__ import annotations

import argparse
import signal
import sys
from pathlib import Path

from pipeline.settings import load_settings
from tests.fault.journal import Journal, die_with_parent
from workers.audit.worker import run_audit
from workers.settings import Settings


def main() -> int:
    """Settings come from MEDIASIEVE_* as in production; returns the worker's own exit code."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--journal", type=Path, required=True, help="file of hooks, one a line")
    parser.add_argument("--at", default="", help="hook at which to send the signal")
    parser.add_argument("--nth", type=int, default=1)
    parser.add_argument("--after-s", type=float, default=0.0)
    parser.add_argument("--signal", choices=("SIGKILL", "SIGSTOP"), default="SIGKILL")
    options = parser.parse_args()
    die_with_parent()
    journal = Journal(options.journal, options.at, options.nth, options.after_s, signal.Signals[options.signal])
    return run_audit(load_settings(Settings), lambda _topic, _record: journal("logged"), journal)


if __name__ == "__main__":
    sys.exit(main())
