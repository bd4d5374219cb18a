"""Tokens a minute: a bucket that is charged by what answers really cost.

Our own, because pyrate-limiter and limits take the cost of a request before it is made; that of an answer is known
after it.
"""

from __future__ import annotations

import threading
import time

from schemas.decision import ReasonCode
from workers.mllm.breaker import Clock, NotAsked

_NEWEST = 0.1
"""Weight of the newest answer in the running mean of their cost."""


class TokenBudget:
    """A bucket of tokens that fills evenly to one minute's worth. Thread-safe.

    A request reserves the mean cost of those before it and settles what it really cost. It may begin while anything
    is left, so that one above the whole budget is not refused for ever; the debt is paid off before the next.
    """

    def __init__(self, per_minute: int, clock: Clock = time.monotonic) -> None:
        self.per_minute = self._per_minute = float(per_minute)
        self._clock = clock
        self._lock = threading.Lock()
        self._left = self._per_minute
        self._at_s = clock()
        self._mean: float | None = None

    @property
    def left(self) -> float:
        """Tokens that may be spent now; below 0 what was overdrawn."""
        with self._lock:
            self._fill()
            return self._left

    def refusal(self) -> NotAsked | None:
        """Why a request could not begin now; None when it could."""
        with self._lock:
            self._fill()
            return self._refusal()

    def reserve(self, most: int, *, begun: bool) -> float:
        """Take the expected cost; `most` is it until an answer has shown more.

        Args:
            most: tokens that the answer may have.
            begun: the request goes on with a dialogue, whose tokens would be lost: it is let through.

        Raises:
            NotAsked: nothing is left.
        """
        with self._lock:
            self._fill()
            refused = None if begun else self._refusal()
            if refused:
                raise refused
            taken = float(most) if self._mean is None else self._mean
            self._left -= taken
            return taken

    def settle(self, reserved: float, spent: int) -> None:
        """Correct a reservation to what was spent; 0 where the back end does not count: the reservation stands."""
        if not spent:
            return
        with self._lock:
            self._left += reserved - spent
            self._mean = float(spent) if self._mean is None else (1.0 - _NEWEST) * self._mean + _NEWEST * spent

    def give_back(self, reserved: float) -> None:
        """The server took no work."""
        with self._lock:
            self._left += reserved

    def _fill(self) -> None:
        now_s = self._clock()
        self._left = min(self._per_minute, self._left + (now_s - self._at_s) * self._per_minute / 60.0)
        self._at_s = now_s

    def _refusal(self) -> NotAsked | None:
        if self._left > 0.0:
            return None
        wait_s = (1.0 - self._left) * 60.0 / self._per_minute
        cause = f"tokens_per_minute={self._per_minute:g} spent; {wait_s:.1f} s until more"
        return NotAsked(cause, wait_s, ReasonCode.MLLM_OVERLOADED)
