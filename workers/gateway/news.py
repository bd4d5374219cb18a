"""Wakes the streams when there are new events, and ends them when the process drains."""

from __future__ import annotations

import asyncio
from collections import Counter

from workers.web.problems import ProblemError


class News:
    """Belongs to one event loop; `told` alone may be called from another thread, once `bind` was called."""

    def __init__(self, streams_per_caller: int) -> None:
        self._most = streams_per_caller
        self._open: Counter[str] = Counter()
        self._event = asyncio.Event()
        self._loop: asyncio.AbstractEventLoop | None = None
        self.closing = False

    @property
    def streams(self) -> int:
        """How many are open."""
        return self._open.total()

    def bind(self) -> None:
        """To the running loop."""
        self._loop = asyncio.get_running_loop()

    def told(self) -> None:
        """There are new events."""
        if self._loop is not None and not self._loop.is_closed():
            self._loop.call_soon_threadsafe(self._wake)

    def close(self) -> None:
        """End every stream."""
        self.closing = True
        self._wake()

    async def wait(self, timeout_s: float) -> None:
        """Until there are new events, the process drains, or the time is over."""
        event = self._event
        if self.closing:
            return
        try:
            await asyncio.wait_for(event.wait(), timeout_s)
        except TimeoutError:
            return

    def enter(self, caller: str) -> None:
        """Count a stream. Raises ProblemError 429: too many of one caller."""
        if self._open[caller] >= self._most:
            detail = f"{self._most} streams of this caller are open; close one first"
            raise ProblemError(429, "too-many-streams", "Too many streams", detail, headers={"Retry-After": "5"})
        self._open[caller] += 1

    def leave(self, caller: str) -> None:
        """The stream has ended."""
        self._open[caller] -= 1
        if not self._open[caller]:
            del self._open[caller]

    def _wake(self) -> None:
        self._event.set()
        self._event = asyncio.Event()  # who waits from now on waits for the next news
