"""How far the fleet is behind, in seconds, and when to come back.

A stage's lag in seconds is what it has not read divided by the rate at which it has read lately while there was as much
to read: how fast it went when it had little to do says nothing of how fast it can go. A stage that has not moved at all
over the whole window has no rate; then its lag is how long it has stood still, or the age of the oldest undecided
submission where that is less. New media is refused while some stage is further behind than the limit, and `Retry-After`
is the time in which that stage, at its rate, comes back to the limit.
"""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import pairwise

from schemas.topics import Topic
from schemas.types import StageName

STAGE_TOPICS: Mapping[StageName, tuple[Topic, ...]] = {
    StageName.CLASSIFIER: (Topic.INGEST,),
    StageName.SPECTRAL: (Topic.SUSPECT, Topic.SUSPECT_PRIORITY),
    StageName.MLLM: (Topic.ANOMALOUS, Topic.ANOMALOUS_PRIORITY),
}
"""What waits for a stage. Retry topics wait on purpose."""

MAX_RETRY_S = 3600


@dataclass(frozen=True, slots=True)
class Progress:
    """A group's progress over all its partitions: offsets read so far, and offsets not read yet."""

    read: int
    unread: int


@dataclass(frozen=True, slots=True)
class Lag:
    """Of one stage. `rate` in offsets a second."""

    seconds: float
    unread: int
    rate: float

    def retry_after_s(self, limit_s: float) -> int | None:
        """Whole seconds until it is back at the limit; None while it is not beyond."""
        if self.seconds <= limit_s:
            return None
        # Without a rate nobody can know: wait as long again as it has stood still.
        wait_s = self.seconds - limit_s if self.rate > 0 else self.seconds
        return max(1, min(MAX_RETRY_S, math.ceil(wait_s)))


@dataclass(slots=True)
class StageMeter:
    """The last measurements of one stage."""

    window_s: float
    _seen: deque[tuple[float, Progress]] = field(default_factory=deque)
    _moved_at_s: float = 0.0

    def add(self, now_s: float, place: Progress) -> None:
        """One measurement; `now_s` by a monotonic clock."""
        last = self._seen[-1][1] if self._seen else None
        if last is None or place.read != last.read or not place.unread:
            self._moved_at_s = now_s
        if last is not None and place.read < last.read:
            self._seen.clear()  # a topic was made anew
        self._seen.append((now_s, place))
        while len(self._seen) > 2 and now_s - self._seen[1][0] >= self.window_s:
            self._seen.popleft()

    def lag(self, oldest_open_s: float | None) -> Lag | None:
        """None before there are two measurements."""
        if len(self._seen) < 2:
            return None
        now_s, now = self._seen[-1]
        rate = self._rate(least_unread=now.unread / 2)
        if not now.unread:
            return Lag(0.0, 0, rate)
        if rate > 0:
            return Lag(now.unread / rate, now.unread, rate)
        still_s = now_s - self._moved_at_s
        return Lag(still_s if oldest_open_s is None else min(still_s, oldest_open_s), now.unread, 0.0)

    def _rate(self, least_unread: float) -> float:
        """Offsets a second, over the times that began with at least so much to read; 0 when there were none."""
        moved, spent_s = 0, 0.0
        for (then_s, then), (next_s, following) in pairwise(self._seen):
            if then.unread >= least_unread:
                moved += following.read - then.read
                spent_s += next_s - then_s
        return moved / spent_s if spent_s > 0 else 0.0


class Backpressure:
    """Measured by one thread, asked by others."""

    def __init__(self, stages: Sequence[StageName], *, limit_s: float, window_s: float) -> None:
        """Accepts everything until something was measured twice."""
        self._limit_s = limit_s
        self._meters = {stage: StageMeter(window_s) for stage in stages}
        self._lags: Mapping[StageName, Lag] = {}

    @property
    def lags(self) -> Mapping[StageName, Lag]:
        """The last measurement of each stage."""
        return self._lags

    def measure(
        self, now_s: float, progress: Callable[[StageName], Progress], oldest_open_s: float | None
    ) -> Mapping[StageName, Lag]:
        """Ask for each stage's place. Raises what `progress` does; the last measurements stay then."""
        for stage, meter in self._meters.items():
            meter.add(now_s, progress(stage))
        found = {stage: meter.lag(oldest_open_s) for stage, meter in self._meters.items()}
        self._lags = {stage: lag for stage, lag in found.items() if lag is not None}
        return self._lags

    def refusal(self) -> tuple[StageName, Lag, int] | None:
        """The stage that is furthest beyond the limit, its lag, and the seconds to wait; None: come in."""
        beyond = [(s, lag, wait_s) for s, lag in self._lags.items() if (wait_s := lag.retry_after_s(self._limit_s))]
        return max(beyond, key=lambda found: found[2], default=None)
