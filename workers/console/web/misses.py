"""What stage 1 misses, for the dashboard: `mediasieve audit-sample report`, run now and then as a child process.

The report reads all decisions of its days. In a process of its own that costs the pages neither memory nor their turn
at the interpreter, and the number is the one that the command prints.
"""

from __future__ import annotations

import subprocess
import sys
import threading
from collections.abc import Callable

import structlog
from pydantic import ValidationError

from pipeline.evaluation.monitoring.misses import MissReport

log = structlog.get_logger("mediasieve")

_NOT_YET = "It is being measured; the first time takes as long as reading the topics does."


class ReportFailed(Exception):
    """The command gave no report; the text is what it said last."""


class ReportProcess:
    """Runs the command with this process's own environment and settings."""

    def __init__(self, days: float) -> None:
        minutes = max(61, round(days * 24 * 60))  # the last hour is left out, see the command
        self.command = (
            *(sys.executable, "-c", "from workers.cli import main; main()"),
            *("audit-sample", "report", "--json", "--since", f"{minutes}m"),
        )
        self._child: subprocess.Popen[str] | None = None
        self._ended = False
        self._lock = threading.Lock()

    def __call__(self) -> str:
        """The report as JSON. Raises ReportFailed, also when `end` was called."""
        with self._lock:
            if self._ended:
                raise ReportFailed("the console ends")
            child = self._child = subprocess.Popen(  # noqa: S603 - our own interpreter and command
                self.command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
            )
        said, errors = child.communicate()
        if child.returncode != 0:
            lines = errors.strip().splitlines() or [f"exit code {child.returncode}"]
            raise ReportFailed(lines[-1][:500])
        return said

    def end(self) -> None:
        """Kill a child that runs, and start none any more."""
        with self._lock:
            self._ended = True
            if self._child is not None:
                self._child.kill()


class StageOneMisses:
    """A MissSource. `start` and `stop` its thread; pages never wait for it."""

    def __init__(self, report: Callable[[], str], every_s: float, end: Callable[[], None] = lambda: None) -> None:
        """`report` gives a MissReport as JSON and may raise ReportFailed; `end` makes one that runs give up."""
        self._report = report
        self._every_s = every_s
        self._end = end
        self._last: tuple[MissReport | None, str] = (None, _NOT_YET)
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, name="misses", daemon=True)

    def start(self) -> None:
        """Begin to measure."""
        self._thread.start()

    def stop(self, timeout_s: float = 20.0) -> None:
        """At once."""
        self._stop.set()
        self._end()
        self._thread.join(timeout_s)

    @property
    def is_running(self) -> bool:
        """Measures, or waits for the next time."""
        return self._thread.is_alive()

    def misses(self) -> tuple[MissReport | None, str]:
        """See MissSource. After a failed measurement nothing is said of the rate, rather than what it was."""
        return self._last

    def measure(self) -> None:
        """Once."""
        try:
            self._last = (MissReport.model_validate_json(self._report()), "")
        except (ReportFailed, ValidationError, OSError) as error:
            if not self._stop.is_set():
                log.warning("misses_unknown", cause=type(error).__name__, detail=str(error)[:500])
            self._last = (None, "It could not be measured; the console's log says why (misses_unknown).")

    def _run(self) -> None:
        self.measure()
        while not self._stop.wait(self._every_s):
            self.measure()
