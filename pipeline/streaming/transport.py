"""What the runner needs of a broker: records in, one atomic commit out. Kafka and memory implement it."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from concurrent.futures import Future
from dataclasses import dataclass, field
from typing import Protocol

from pipeline.streaming.clock import Deadline

Headers = tuple[tuple[str, bytes], ...]


@dataclass(frozen=True, slots=True, order=True)
class TopicPartition:
    """A physical topic and a partition of it."""

    topic: str
    partition: int

    def __str__(self) -> str:
        return f"{self.topic}[{self.partition}]"


@dataclass(frozen=True, slots=True)
class RawRecord:
    """A record as the broker holds it. `timestamp_ms` is milliseconds since the epoch."""

    tp: TopicPartition
    offset: int
    key: bytes | None
    value: bytes
    headers: Headers = ()
    timestamp_ms: int = 0

    @property
    def size_bytes(self) -> int:
        """Key, value and headers; what the record costs in memory."""
        return len(self.key or b"") + len(self.value) + sum(len(k) + len(v) for k, v in self.headers)

    def header(self, name: str) -> bytes | None:
        """The last header of that name, as Kafka readers do."""
        return next((v for k, v in reversed(self.headers) if k == name), None)


@dataclass(frozen=True, slots=True)
class OutRecord:
    """A record to be produced to a physical topic."""

    topic: str
    key: bytes | None
    value: bytes
    headers: Headers = ()


@dataclass(frozen=True, slots=True)
class CommitPoint:
    """The NEXT offset to read, with the group's note beside it."""

    offset: int
    note: str = ""


@dataclass(frozen=True, slots=True)
class Polled:
    """One poll: records in partition order, and the positions of partitions whose end was reached.

    `highs`: where partitions end at the broker, as last heard; told now and then, for lag alone.
    """

    records: Sequence[RawRecord] = ()
    ends: Mapping[TopicPartition, int] = field(default_factory=dict)
    highs: Mapping[TopicPartition, int] = field(default_factory=dict)


class Member(Protocol):
    """The group membership that fences a commit; opaque to the runner, read fresh at each commit."""


class AssignmentListener(Protocol):
    """Told of every change of assignment, from inside `Source.poll` or `Source.close`."""

    def assigned(self, committed: Mapping[TopicPartition, CommitPoint | None]) -> None:
        """New partitions, with what the group has committed for them (None: nothing yet)."""

    def revoked(self, partitions: Collection[TopicPartition]) -> None:
        """The partitions leave after this call: finish and commit, or drop."""

    def lost(self, partitions: Collection[TopicPartition]) -> None:
        """The partitions are already another member's: drop, commit nothing."""


class Source(Protocol):
    """Reads the stage's topics as a member of its consumer group. One thread only."""

    def subscribe(self, topics: Collection[str], listener: AssignmentListener) -> None:
        """Join the group."""

    def poll(self, timeout_s: float, limit: int) -> Polled:
        """At most `limit` records; returns as soon as there is one. Keeps the membership alive."""

    def pause(self, partitions: Collection[TopicPartition]) -> None:
        """No records of these until `resume`; idempotent."""

    def resume(self, partitions: Collection[TopicPartition]) -> None:
        """Undo `pause`; idempotent."""

    def rewind(self, partitions: Collection[TopicPartition]) -> Mapping[TopicPartition, CommitPoint | None]:
        """Go back to what the broker says is committed; returns it."""

    def member(self) -> Member:
        """This membership, as of now."""

    def close(self) -> None:
        """Leave the group; the listener hears `revoked` for what is still assigned."""


class PositionedSource(Source, Protocol):
    """A source whose reader keeps its own positions: each assigned partition is held until `start`."""

    def bounds(self, tp: TopicPartition) -> tuple[int, int] | None:
        """Oldest offset that is kept, and the end that committed records reach; None: no answer now."""

    def start(self, tp: TopicPartition, offset: int) -> bool:
        """Read the partition from this offset on; False: not yet, ask again after the next poll."""

    def commit(self, offsets: Mapping[TopicPartition, CommitPoint]) -> None:
        """Tell the group how far the reader is, without waiting for the answer: nothing depends on it but lag."""

    def refused(self) -> set[TopicPartition]:
        """Partitions of which a commit failed since this was asked last: commit them again."""


class CommitAborted(Exception):
    """Nothing of this commit will ever be visible; the same results may be committed again."""


class OutcomeUnknown(Exception):
    """The commit may or may not have happened; the producer was re-initialised: rewind to the broker's offset."""


class Fenced(Exception):
    """Another process took over, or the producer is beyond repair: exit, commit nothing."""


class SourceFailed(Exception):
    """The broker did not say what is committed, or contradicts it: exit, commit nothing."""


class Ledger(Protocol):
    """Makes results and offsets visible together, or not at all."""

    def open(self) -> None:
        """Ready to commit; fences earlier users of the same id."""

    def commit(
        self,
        out: Sequence[OutRecord],
        offsets: Mapping[TopicPartition, CommitPoint],
        member: Member,
        deadline: Deadline,
    ) -> None:
        """One atomic commit; no transaction stays open after it.

        Raises:
            CommitAborted: nothing happened; try again.
            OutcomeUnknown: rewind to the broker's committed offsets.
            Fenced: exit.
        """

    def close(self) -> None:
        """Give the producer back."""


@dataclass(frozen=True, slots=True)
class Place:
    """Where a record lies."""

    tp: TopicPartition
    offset: int


class NotAcknowledged(Exception):
    """The brokers did not say that they have the record; they may have it all the same."""


class QueueFull(Exception):
    """Too many records wait for their acknowledgement: nothing was sent, try again later."""


class Writer(Protocol):
    """Writes single records, each acknowledged by all replicas in sync. Thread-safe."""

    def send(self, record: OutRecord) -> Future[Place]:
        """The future is done when the brokers have the record, or it raises NotAcknowledged.

        Raises:
            QueueFull: nothing was sent.
        """
