"""Time and what happens next."""

from __future__ import annotations

import heapq
from collections import deque
from collections.abc import Callable
from typing import Any

Action = Callable[..., None]


class Loop:
    """Events in order of time; equal times in the order in which they were asked for."""

    def __init__(self) -> None:
        """At 0 s."""
        self.now_s = 0.0
        self._events: list[tuple[float, int, Action, tuple[Any, ...]]] = []
        self._number = 0

    def after(self, delay_s: float, action: Action, *arguments: Any) -> None:
        """Call `action` in `delay_s` seconds; a delay of 0 is after all that was asked for at this time."""
        self._number += 1
        heapq.heappush(self._events, (self.now_s + delay_s, self._number, action, arguments))

    def run(self, until_s: float) -> None:
        """Let all happen that is due by then."""
        while self._events and self._events[0][0] <= until_s:
            self.now_s, _, action, arguments = heapq.heappop(self._events)
            action(*arguments)
        self.now_s = until_s


class Cores:
    """Processor cores in one queue, first come first served. `count` may be a part of a core: it then is slower."""

    def __init__(self, loop: Loop, count: float) -> None:
        """Raises ValueError without any core."""
        if count <= 0:
            raise ValueError(f"cores {count:g}: at least a part of one")
        self._loop = loop
        self._free = max(1, int(count))
        self._speed = count / self._free
        self._waiting: deque[tuple[float, Action, Any]] = deque()

    def take(self, work_s: float, done: Action, argument: Any) -> None:
        """Call `done(argument)` when `work_s` seconds of one core are spent on it."""
        if self._free:
            self._free -= 1
            self._loop.after(work_s / self._speed, self._end, done, argument)
        else:
            self._waiting.append((work_s, done, argument))

    def _end(self, done: Action, argument: Any) -> None:
        if self._waiting:
            work_s, next_done, next_argument = self._waiting.popleft()
            self._loop.after(work_s / self._speed, self._end, next_done, next_argument)
        else:
            self._free += 1
        done(argument)
