"""Time, injected: durations come from a monotonic clock, dates from the wall clock."""

from __future__ import annotations

import time
from typing import Protocol


class Clock(Protocol):
    """Two readings in seconds; tests drive a fake one."""

    def monotonic_s(self) -> float:
        """Never goes back; for durations and deadlines."""

    def wall_s(self) -> float:
        """Seconds since the epoch; for what is written into records."""


class SystemClock:
    """The machine's clocks."""

    def monotonic_s(self) -> float:
        """See Clock."""
        return time.monotonic()

    def wall_s(self) -> float:
        """See Clock."""
        return time.time()


class Deadline:
    """One shared end for several steps that must finish together."""

    def __init__(self, clock: Clock, timeout_s: float) -> None:
        """The deadline starts now."""
        self._clock = clock
        self._end_s = clock.monotonic_s() + timeout_s

    @property
    def left_s(self) -> float:
        """Seconds left, never negative."""
        return max(0.0, self._end_s - self._clock.monotonic_s())

    @property
    def expired(self) -> bool:
        """True when nothing is left."""
        return self.left_s <= 0.0
