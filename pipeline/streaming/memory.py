"""A broker in memory for unit tests: one group, one member, faults by script.

It passes the same contract suite as Kafka, and has no feature that no test uses.
"""

from __future__ import annotations

from collections import defaultdict, deque
from collections.abc import Collection, Mapping, Sequence

from pipeline.streaming.clock import Deadline
from pipeline.streaming.transport import (
    AssignmentListener,
    CommitPoint,
    Headers,
    Member,
    OutcomeUnknown,
    OutRecord,
    Polled,
    RawRecord,
    TopicPartition,
)


class MemoryBroker:
    """Topics of one partition count; records are visible as soon as they are appended."""

    def __init__(self, partitions: int = 1) -> None:
        """Topics appear when they are first used."""
        self.partitions = partitions
        self.logs: dict[TopicPartition, list[RawRecord]] = defaultdict(list)
        self.committed: dict[TopicPartition, CommitPoint] = {}

    def append(
        self, topic: str, value: bytes, *, key: bytes | None = None, headers: Headers = (), partition: int = 0
    ) -> RawRecord:
        """Add one record; returns it as readers will see it."""
        tp = TopicPartition(topic, partition)
        record = RawRecord(tp, len(self.logs[tp]), key, value, headers, 1_700_000_000_000)
        self.logs[tp].append(record)
        return record

    def values(self, topic: str) -> list[bytes]:
        """All values of a topic."""
        return [r.value for r in self.records(topic)]

    def records(self, topic: str) -> list[RawRecord]:
        """All records of a topic, by partition."""
        return [r for p in range(self.partitions) for r in self.logs[TopicPartition(topic, p)]]


class MemorySource:
    """The only member of the broker's group."""

    def __init__(self, broker: MemoryBroker) -> None:
        """Assigned at the first poll."""
        self._broker = broker
        self._listener: AssignmentListener | None = None
        self._positions: dict[TopicPartition, int] = {}
        self._pending: list[TopicPartition] = []
        self.paused: set[TopicPartition] = set()

    def subscribe(self, topics: Collection[str], listener: AssignmentListener) -> None:
        """See Source."""
        self._listener = listener
        self._pending = [TopicPartition(t, p) for t in topics for p in range(self._broker.partitions)]

    def poll(self, timeout_s: float, limit: int) -> Polled:
        """See Source; never waits."""
        if self._pending:
            self.assign(self._pending)
            self._pending = []
        records: list[RawRecord] = []
        ends: dict[TopicPartition, int] = {}
        for tp, position in sorted(self._positions.items()):
            if tp in self.paused:
                continue
            found = self._broker.logs[tp][position : position + limit - len(records)]
            records.extend(found)
            self._positions[tp] = position + len(found)
            if self._positions[tp] == len(self._broker.logs[tp]):
                ends[tp] = self._positions[tp]
        return Polled(records, ends, {tp: len(self._broker.logs[tp]) for tp in self._positions})

    def assign(self, partitions: Collection[TopicPartition]) -> None:
        """The coordinator gives partitions."""
        committed = self._committed(partitions)
        self._positions |= {tp: point.offset if point else 0 for tp, point in committed.items()}
        self.paused -= set(partitions)
        if self._listener is not None:
            self._listener.assigned(committed)

    def revoke(self, partitions: Collection[TopicPartition]) -> None:
        """The coordinator takes partitions in good order."""
        if self._listener is not None:
            self._listener.revoked(partitions)
        self._leave(partitions)

    def lose(self, partitions: Collection[TopicPartition]) -> None:
        """The session ended: the partitions are another's already."""
        if self._listener is not None:
            self._listener.lost(partitions)
        self._leave(partitions)

    def pause(self, partitions: Collection[TopicPartition]) -> None:
        """See Source."""
        self.paused |= set(partitions)

    def resume(self, partitions: Collection[TopicPartition]) -> None:
        """See Source."""
        self.paused -= set(partitions)

    def rewind(self, partitions: Collection[TopicPartition]) -> Mapping[TopicPartition, CommitPoint | None]:
        """See Source."""
        committed = self._committed(partitions)
        self._positions |= {tp: point.offset if point else 0 for tp, point in committed.items()}
        return committed

    def member(self) -> Member:
        """See Source."""
        return object()

    def close(self) -> None:
        """See Source."""
        self.revoke(list(self._positions))

    def _leave(self, partitions: Collection[TopicPartition]) -> None:
        for tp in partitions:
            self._positions.pop(tp, None)

    def _committed(self, partitions: Collection[TopicPartition]) -> dict[TopicPartition, CommitPoint | None]:
        return {tp: self._broker.committed.get(tp) for tp in partitions}


class MemoryLedger:
    """Commits to the broker at once; `faults` are raised by the next commits, None for a good one.

    A scripted OutcomeUnknown is raised AFTER the commit took effect: the case that a rewind must survive.
    """

    def __init__(self, broker: MemoryBroker) -> None:
        """No faults at first."""
        self._broker = broker
        self.faults: deque[Exception | None] = deque()
        self.commits: list[tuple[list[OutRecord], dict[TopicPartition, CommitPoint]]] = []

    def open(self) -> None:
        """See Ledger."""

    def commit(
        self,
        out: Sequence[OutRecord],
        offsets: Mapping[TopicPartition, CommitPoint],
        member: Member,
        deadline: Deadline,
    ) -> None:
        """See Ledger."""
        fault = self.faults.popleft() if self.faults else None
        if fault is not None and not isinstance(fault, OutcomeUnknown):
            raise fault
        for record in out:
            partition = hash(record.key) % self._broker.partitions
            self._broker.append(record.topic, record.value, key=record.key, headers=record.headers, partition=partition)
        self._broker.committed |= offsets
        self.commits.append((list(out), dict(offsets)))
        if fault is not None:
            raise fault

    def close(self) -> None:
        """See Ledger."""
