"""The gateway's consumer: a thread that keeps the projection up to date.

The database says how far each partition was read, not the group: what was read and how far are one transaction there.
The group's offsets follow, so that its lag can be seen. While the database is away the partitions are held.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Collection, Mapping, Sequence

import structlog
from sqlalchemy.exc import SQLAlchemyError

from pipeline.observability.metrics import Metrics
from pipeline.streaming.clock import Clock
from pipeline.streaming.codec import TopicNames
from pipeline.streaming.transport import CommitPoint, PositionedSource, RawRecord, TopicPartition
from workers.gateway.events import PROJECTED_TOPICS
from workers.gateway.projection import Projection

log = structlog.get_logger("mediasieve")

_POLL_S = 0.1
_BATCH = 500
_BACKOFF_S = (0.5, 30.0)
_PURGE_EVERY_S = 3600.0


class Reader:
    """Also the listener of its source's assignments. One thread runs it; the rest of the process reads its fields."""

    def __init__(
        self,
        source: PositionedSource,
        projection: Projection,
        names: TopicNames,
        clock: Clock,
        metrics: Metrics,
        *,
        keep_s: float,
        on_events: Callable[[], None] = lambda: None,
    ) -> None:
        """`on_events` is called, from the thread, when there are new events."""
        self._source = source
        self._projection = projection
        self._names = names
        self._clock = clock
        self._metrics = metrics
        self._keep_s = keep_s
        self._on_events = on_events
        self._held: set[TopicPartition] = set()
        self._reading: set[TopicPartition] = set()
        self._failures = 0
        self._retry_at_s = 0.0
        self._purge_at_s = 0.0
        self._stop = threading.Event()
        self.failure: Exception | None = None
        self.turns = 0

    @property
    def partitions(self) -> int:
        """How many are assigned to this process."""
        return len(self._held) + len(self._reading)

    def run(self) -> None:
        """Until `stop`; an error that ends the process is left in `failure`."""
        try:
            self.open()
            while not self._stop.is_set():
                self.turn()
        except Exception as error:  # a thread has nobody to raise to; the process looks at `failure`
            self.failure = error
        finally:
            self._source.close()

    def stop(self) -> None:
        """Leave the group after this turn."""
        self._stop.set()

    def open(self) -> None:
        """Join the group."""
        self._source.subscribe([self._names.physical(t) for t in PROJECTED_TOPICS], self)

    def turn(self) -> None:
        """Read once. Raises SourceFailed and UnknownMajorVersion, which end the process."""
        self.turns += 1
        self._begin_held()
        self._purge()
        polled = self._source.poll(_POLL_S, _BATCH)
        records = [r for r in polled.records if r.tp in self._reading]
        if records:
            self._apply(records)

    def assigned(self, committed: Mapping[TopicPartition, CommitPoint | None]) -> None:
        """See AssignmentListener. What the group committed does not matter."""
        self._held |= set(committed)

    def revoked(self, partitions: Collection[TopicPartition]) -> None:
        """See AssignmentListener. Nothing waits between turns."""
        self.lost(partitions)

    def lost(self, partitions: Collection[TopicPartition]) -> None:
        """See AssignmentListener."""
        self._held -= set(partitions)
        self._reading -= set(partitions)

    def _begin_held(self) -> None:
        if not self._held or self._clock.monotonic_s() < self._retry_at_s:
            return
        for tp in sorted(self._held):
            bounds = self._source.bounds(tp)
            if bounds is None:
                return  # brokers are away: asking for each partition would take long
            try:
                position = self._position(tp, *bounds)
            except SQLAlchemyError as error:
                self._wait(error)
                return
            if self._source.start(tp, position):
                self._held.discard(tp)
                self._reading.add(tp)
        self._failures = 0

    def _position(self, tp: TopicPartition, oldest: int, end: int) -> int:
        position = self._projection.position(tp)
        if position is None:
            return oldest
        if oldest <= position <= end:
            return position
        log.warning("projection_gap", partition=str(tp), position=position, oldest=oldest, end=end)
        self._projection.restart(tp, oldest)
        return oldest

    def _apply(self, records: Sequence[RawRecord]) -> None:
        try:
            added = self._projection.apply(records)
        except SQLAlchemyError as error:
            self._source.pause(self._reading)
            self._held |= self._reading
            self._reading.clear()
            self._wait(error)
            return
        points = {r.tp: CommitPoint(r.offset + 1) for r in records}
        self._source.commit(points)
        self._metrics.count("mediasieve_gateway_events_total", by=added)
        if added:
            self._on_events()

    def _purge(self) -> None:
        now_s = self._clock.monotonic_s()
        if now_s < max(self._purge_at_s, self._retry_at_s):
            return
        try:
            gone = self._projection.purge(self._keep_s)
        except SQLAlchemyError as error:
            self._wait(error)
            return
        self._purge_at_s = now_s + _PURGE_EVERY_S
        if gone:
            log.info("projection_purged", events=gone)

    def _wait(self, error: SQLAlchemyError) -> None:
        first_s, most_s = _BACKOFF_S
        wait_s = min(most_s, first_s * 2.0 ** min(self._failures, 30))
        self._failures += 1
        self._retry_at_s = self._clock.monotonic_s() + wait_s
        log.warning("database_waits", wait_s=wait_s, cause=type(error).__name__, detail=str(error)[:500])
