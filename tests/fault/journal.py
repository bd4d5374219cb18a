"""A process that counts its way through named points and dies, or freezes, where it is told to."""

from __future__ import annotations

import os
import signal
import threading
import time
from dataclasses import dataclass, field
from pathlib import Path

IN_TRANSACTION = ("produced", "offsets_sent")


@dataclass(slots=True)
class Journal:
    """Appends one line a hook to a file. What was written outlives SIGKILL: the page cache is the kernel's.

    After `after_s` seconds (counted from the first commit of records) the `nth` time that the hook `at` is passed,
    the process sends itself `signum`. Hooks inside a transaction count only when the transaction carries records.
    """

    path: Path
    at: str
    nth: int
    after_s: float
    signum: signal.Signals
    records_in_hand: int = 0
    _fd: int = -1
    _seen: int = 0
    _worked_since_s: float | None = None
    _armed: bool = field(default=True)

    def __call__(self, hook: str) -> None:
        """The runner's and the ledger's hook."""
        self._write(hook)
        if hook == "after_commit" and self._worked_since_s is None:
            self._worked_since_s = time.monotonic()
        if (
            not self._armed
            or hook != self.at
            or not self._ripe()
            or (hook in IN_TRANSACTION and not self.records_in_hand)
        ):
            return
        self._seen += 1
        if self._seen >= self.nth:
            self._armed = False
            self._write(f"{self.signum.name} {hook}")
            os.kill(os.getpid(), self.signum)

    def _ripe(self) -> bool:
        if not self.after_s:
            return True
        return self._worked_since_s is not None and time.monotonic() - self._worked_since_s >= self.after_s

    def _write(self, line: str) -> None:
        if self._fd < 0:
            self._fd = os.open(self.path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o644)
        os.write(self._fd, f"{line}\n".encode())


def die_with_parent() -> None:
    """A test that is killed leaves no worker behind."""
    parent = os.getppid()

    def watch() -> None:
        while os.getppid() == parent:
            time.sleep(1.0)
        os._exit(1)

    threading.Thread(target=watch, daemon=True).start()
