"""A console under test whose reviewer is a script: `python -m tests.fault.console_main --journal FILE ...`."""

from __future__ import annotations

import argparse
import signal
import sys
import threading
from collections.abc import Callable
from pathlib import Path

from pipeline.settings import load_settings
from schemas.review import Label
from tests.fault.journal import Journal, die_with_parent
from workers.console.worker import Console, run_console
from workers.settings import Settings

REVIEWER = "ann"
_NOTHING_TO_DO_S = 0.05


def reviewing(hook: Callable[[str], None]) -> Callable[[Console], None]:
    """In place of the pages: answers every case that comes."""

    def serve(console: Console) -> None:
        pause = threading.Event()
        while not console.ending:
            claim = console.service.claim(REVIEWER, None)
            if claim is None:
                pause.wait(_NOTHING_TO_DO_S)
                continue
            hook("claimed")
            console.service.decide(claim.token, Label.PHOTOGRAPH, "grain fits", reviewer=REVIEWER)
            hook("committed")

    return serve


def main() -> int:
    """Settings come from MEDIASIEVE_* as in production; returns the console's own exit code."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--journal", type=Path, required=True, help="file of hooks, one a line")
    parser.add_argument("--at", default="", help="hook at which to send the signal")
    parser.add_argument("--nth", type=int, default=1)
    parser.add_argument("--after-s", type=float, default=0.0)
    parser.add_argument("--signal", choices=("SIGKILL", "SIGSTOP"), default="SIGKILL")
    options = parser.parse_args()
    die_with_parent()
    journal = Journal(options.journal, options.at, options.nth, options.after_s, signal.Signals[options.signal])
    return run_console(load_settings(Settings), reviewing(journal), journal)


if __name__ == "__main__":
    sys.exit(main())
