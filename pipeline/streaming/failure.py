"""When too many dead letters mean that the fleet, not the input, is broken.

Rejects on internal topics, and unexpected ones anywhere, are ours: past a limit the process stops with nothing
committed, so that a bad release cannot empty a topic into the dead letters. What producers send is limited per
source by rate instead, so that no producer can halt the fleet.
"""

from __future__ import annotations

from collections import OrderedDict, deque

from pydantic import BaseModel, ConfigDict, Field


class DeadLetterLimits(BaseModel):
    """How many of our own rejects are too many, and how many bytes a bad producer may fill."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    max_consecutive: int = Field(default=20, ge=1, description="own rejects in a row that stop the process")
    max_ratio: float = Field(default=0.5, gt=0, le=1, description="share of own rejects in the window that stops it")
    window: int = Field(default=200, ge=10, le=100_000, description="records over which the share is taken")
    source_full_per_minute: int = Field(
        default=60,
        ge=1,
        description="dead letters a minute and source with the whole value; more keep 4 KiB",
    )


class DeadLetterLimitExceeded(Exception):
    """The process must stop; the message names the partition, the offset and the way out."""


class OwnRejects:
    """Counts rejects that producers cannot cause."""

    def __init__(self, limits: DeadLetterLimits) -> None:
        """Starts with an empty window."""
        self._limits = limits
        self._window: deque[bool] = deque(maxlen=limits.window)
        self._in_a_row = 0

    def good(self) -> None:
        """A record came through."""
        self._in_a_row = 0
        self._window.append(False)

    def bad(self, stage: str, topic: str, partition: int, offset: int, code: str) -> None:
        """A record of ours was rejected.

        Raises:
            DeadLetterLimitExceeded: too many in a row, or too large a share of a full window.
        """
        self._in_a_row += 1
        self._window.append(True)
        full = len(self._window) == self._limits.window
        share = sum(self._window) / len(self._window)
        if self._in_a_row >= self._limits.max_consecutive or (full and share >= self._limits.max_ratio):
            raise DeadLetterLimitExceeded(
                f"{self._in_a_row} rejects in a row ({share:.0%} of the last {len(self._window)} records), the last at "
                f"{topic}[{partition}]@{offset} with code {code}; nothing was committed. Mend the release, or "
                f"let these pass: mediasieve deadletter accept --stage {stage} --topic {topic} "
                f"--partition {partition} --until OFFSET"
            )


class SourceRate:
    """Whole dead letters per source and minute; remembers the 1,000 sources seen last."""

    MAX_SOURCES = 1000
    KEPT_BYTES = 4096

    def __init__(self, limits: DeadLetterLimits) -> None:
        """A token bucket a source, full at first."""
        self._per_minute = limits.source_full_per_minute
        self._buckets: OrderedDict[str, tuple[float, float]] = OrderedDict()

    def may_keep_all(self, source: str, now_s: float) -> bool:
        """True while the source is within its rate; the original stays in its topic either way."""
        tokens, since_s = self._buckets.pop(source, (float(self._per_minute), now_s))
        tokens = min(float(self._per_minute), tokens + (now_s - since_s) * self._per_minute / 60.0)
        allowed = tokens >= 1.0
        self._buckets[source] = (tokens - 1.0 if allowed else tokens, now_s)
        while len(self._buckets) > self.MAX_SOURCES:
            self._buckets.popitem(last=False)
        return allowed
