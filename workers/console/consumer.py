"""Decisions from Kafka into the queue's database: stored first, committed then."""

from __future__ import annotations

import time
from collections.abc import Collection, Mapping

import structlog

from pipeline.streaming.codec import TopicNames
from pipeline.streaming.lag import ReaderLag
from pipeline.streaming.transport import CommitPoint, Polled, PositionedSource, RawRecord, TopicPartition
from pipeline.streaming.watch import Watch
from schemas.envelope import TRACEPARENT_HEADER, new_trace, parse_traceparent
from schemas.ocsf import machine_decision
from schemas.topics import DECISION_TOPICS
from schemas.wire import WireError
from workers.console.domain.intake import Decided, Intake
from workers.web.database import DATABASE_AWAY, why_away

log = structlog.get_logger("mediasieve")

NAME = "console"
"""Of the worker and of its consumer group."""

_BATCH = 500
_POLL_S = 0.2


class DecisionConsumer:
    """One member of the group; one thread. Also the listener of its source's assignments.

    A record that is stored and not committed is read again, and changes nothing then.
    """

    def __init__(self, source: PositionedSource, intake: Intake, names: TopicNames, watch: Watch | None = None) -> None:
        """`source` starts where the group has committed, else at the beginning."""
        self._source = source
        self._intake = intake
        self._names = names
        self._watch = watch or Watch()
        self._assigned: set[TopicPartition] = set()
        self._lag = ReaderLag()

    def open(self) -> None:
        """Join the group."""
        self._source.subscribe([self._names.physical(topic) for topic in DECISION_TOPICS.values()], self)
        self._watch.warm()

    def turn(self) -> bool:
        """Read and store what is there; False when the database does not answer: wait, then turn again.

        Raises:
            UnknownMajorVersion: a decision of a newer release; nothing of it was committed, upgrade.
            SourceFailed: the broker did not say what is committed.
        """
        self._watch.turn(0.0, 0, len(self._assigned))
        polled = self._source.poll(_POLL_S, _BATCH)
        decided = [one for record in polled.records if (one := _read(record)) is not None]
        try:
            new = self._intake.store(decided)
        except DATABASE_AWAY as error:
            log.warning("database_waits", detail=why_away(error))
            self._source.rewind(self._assigned)
            self._tell(Polled(highs=polled.highs))
            return False
        self._tell(polled)
        points = {record.tp: record.offset + 1 for record in polled.records} | dict(polled.ends)
        if points:
            self._source.commit({tp: CommitPoint(offset) for tp, offset in points.items()})
        if new:
            log.info("cases_stored", new=new, records=len(polled.records))
        return True

    def _tell(self, stored: Polled) -> None:
        found = self._lag.after(stored, time.time())
        if stored.highs:
            self._watch.lag(found)

    def close(self) -> None:
        """Leave the group."""
        self._source.close()

    def assigned(self, committed: Mapping[TopicPartition, CommitPoint | None]) -> None:
        """See AssignmentListener."""
        self._assigned |= committed.keys()
        self._watch.rebalance("assigned", len(committed))

    def revoked(self, partitions: Collection[TopicPartition]) -> None:
        """See AssignmentListener. Nothing waits between two turns."""
        self._assigned -= set(partitions)
        self._watch.rebalance("revoked", len(partitions))

    def lost(self, partitions: Collection[TopicPartition]) -> None:
        """See AssignmentListener."""
        self._assigned -= set(partitions)
        self._watch.rebalance("lost", len(partitions))


def _read(record: RawRecord) -> Decided | None:
    """None for a review's event, and for what no reader can read: its digest is in the audit log all the same."""
    try:
        decision = machine_decision(record.value)
    except WireError as error:
        log.error("decision_unreadable", partition=str(record.tp), offset=record.offset, detail=str(error))
        return None
    if decision is None:
        return None
    trace = parse_traceparent(record.header(TRACEPARENT_HEADER)) or new_trace(str(decision.decision_uid))
    return Decided(decision, trace.format())
