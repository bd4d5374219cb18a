"""One writer at a time, in the order in which they came.

SQLite lets one connection write. Whoever finds it busy sleeps, up to a tenth of a second, and asks again; those that
come meanwhile overtake it, so that under load one waits until its time is over. The threads of a process wait here
instead, first come, first served, and only the first of them asks SQLite.
"""

from __future__ import annotations

import threading
from collections import deque
from pathlib import Path
from weakref import WeakValueDictionary


class WriteQueue:
    """Of one database file in this process; safe to share between threads. Entered once a thread at a time."""

    def __init__(self) -> None:
        """Nobody is in."""
        self._lock = threading.Lock()
        self._busy = False
        self._waiting: deque[threading.Event] = deque()

    def enter(self, timeout_s: float) -> bool:
        """Wait for the turn; False when it did not come within the time."""
        with self._lock:
            if not self._busy:
                self._busy = True
                return True
            mine = threading.Event()
            self._waiting.append(mine)
        if mine.wait(timeout_s):
            return True
        with self._lock:
            if mine.is_set():  # the turn came just as the time was over
                return True
            self._waiting.remove(mine)
        return False

    def leave(self) -> None:
        """Hand the turn to who has waited longest."""
        with self._lock:
            if self._waiting:
                self._waiting.popleft().set()
            else:
                self._busy = False

    def __len__(self) -> int:
        """How many wait."""
        with self._lock:
            return len(self._waiting)


_QUEUES: WeakValueDictionary[Path, WriteQueue] = WeakValueDictionary()
_QUEUES_LOCK = threading.Lock()


def write_queue(file: Path) -> WriteQueue:
    """The queue of that file, the same for all engines of this process."""
    with _QUEUES_LOCK:
        return _QUEUES.setdefault(file.resolve(), WriteQueue())
