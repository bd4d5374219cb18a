"""What this member holds of each partition: every record from the first uncommitted one on, in offset order.

Only the finished prefix of a partition may be committed: committing past an unfinished record would lose it,
committing a later result without its offset would double it. Every entry carries the epoch of its assignment;
revoke, loss and rewind end the epoch, and results of an ended epoch are discarded.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from enum import Enum, auto
from typing import Any

import orjson

from pipeline.streaming.stage import Item, Output
from pipeline.streaming.transport import CommitPoint, OutRecord, RawRecord, TopicPartition
from schemas.deadletter import RejectCode


class State(Enum):
    """The life of an entry."""

    WAITING = auto()
    IN_FLIGHT = auto()
    DONE = auto()


@dataclass(slots=True, eq=False)
class Entry:
    """One polled record until its commit. Times are monotonic seconds."""

    raw: RawRecord
    epoch: int
    lane: str
    polled_at_s: float
    item: Item[Any] | None = None
    state: State = State.WAITING
    not_before_s: float = 0.0
    cost: int = 1
    out: tuple[OutRecord, ...] = ()
    outputs: tuple[Output, ...] = ()
    done_at_s: float = 0.0
    deferred_since_s: float | None = None
    defers: int = 0
    kills: int = 0
    alone: bool = False
    own_reject: RejectCode | None = None
    counted: bool = False

    @property
    def tp(self) -> TopicPartition:
        """Where it came from."""
        return self.raw.tp


@dataclass(frozen=True, slots=True)
class Note:
    """What a member writes beside a committed offset, for whoever reads the partition next.

    `open`: records from this offset on may have been begun. `solo`: how often the record AT this offset was begun
    with nothing else in the process. `accept`: dead letters below this offset don't count against the limit.
    """

    open: bool = False
    solo: int = 0
    accept: int = 0

    def encode(self) -> str:
        """Compact JSON; empty for the default."""
        values = {k: v for k, v in (("open", self.open), ("solo", self.solo), ("accept", self.accept)) if v}
        return orjson.dumps(values).decode() if values else ""

    @staticmethod
    def decode(text: str) -> Note:
        """A note of another program counts as none."""
        try:
            data = orjson.loads(text or "{}")
            note = Note(bool(data.get("open")), int(data.get("solo", 0)), int(data.get("accept", 0)))
        except (ValueError, TypeError, AttributeError):
            return Note()
        return note if 0 <= note.solo < 2**63 and 0 <= note.accept < 2**63 else Note()


@dataclass(slots=True)
class PartitionLog:
    """The entries of one partition under one assignment."""

    tp: TopicPartition
    epoch: int
    note: Note
    committed: int | None
    end: int = -1
    entries: deque[Entry] = field(default_factory=deque)
    marked: bool = False
    careful_left: int = 0
    next_offset: int | None = None

    def finished(self) -> list[Entry]:
        """The completed prefix."""
        found = []
        for entry in self.entries:
            if entry.state is not State.DONE:
                break
            found.append(entry)
        return found

    def has_waiting(self) -> bool:
        """True when a record has not been begun."""
        return any(e.state is State.WAITING for e in self.entries)

    def has_due(self, now_s: float) -> bool:
        """True when a record that has not been begun need not wait for its time."""
        return any(e.state is State.WAITING and e.not_before_s <= now_s for e in self.entries)

    def commit_offset(self, finished: int) -> int | None:
        """The next offset to read once the first `finished` entries are committed; None: nothing to say.

        Transaction markers take offsets too: with nothing left in hand the position at the partition's end counts.
        """
        if finished < len(self.entries):
            return self.entries[finished].raw.offset if finished else None
        after = self.next_offset if self.next_offset is not None else -1
        offset = max(after, self.end)
        return offset if offset > (self.committed if self.committed is not None else -1) else None

    def forget(self, finished: int, committed: int) -> None:
        """The first `finished` entries are committed."""
        for _ in range(finished):
            self.entries.popleft()
        self.committed = committed


class Partitions:
    """All partitions of this member. Owns epochs and the counts that bound memory."""

    def __init__(self, careful_window: int) -> None:
        """After a crash the first `careful_window` records of a partition run one at a time."""
        self._logs: dict[TopicPartition, PartitionLog] = {}
        self._epoch = 0
        self._careful_window = careful_window
        self.lane_entries: dict[str, int] = {}
        self.held_bytes = 0

    def __iter__(self) -> Iterator[PartitionLog]:
        return iter(self._logs.values())

    def __contains__(self, tp: object) -> bool:
        return tp in self._logs

    def __len__(self) -> int:
        return len(self._logs)

    def get(self, tp: TopicPartition) -> PartitionLog | None:
        """The log of an assigned partition."""
        return self._logs.get(tp)

    def assign(self, tp: TopicPartition, committed: CommitPoint | None) -> PartitionLog:
        """A partition arrives, or is read again from its committed offset: a new epoch begins."""
        self.drop([tp])
        self._epoch += 1
        note = Note.decode(committed.note) if committed else Note()
        log = PartitionLog(tp, self._epoch, note, committed.offset if committed else None)
        log.careful_left = self._careful_window if note.open else 0
        self._logs[tp] = log
        return log

    def drop(self, partitions: Iterable[TopicPartition]) -> int:
        """The partitions leave; returns how many entries were dropped."""
        dropped = 0
        for tp in partitions:
            log = self._logs.pop(tp, None)
            if log is not None:
                dropped += len(log.entries)
                self._count(log.entries, -1)
        return dropped

    def add(self, entry: Entry) -> None:
        """A record was polled."""
        log = self._logs[entry.tp]
        log.entries.append(entry)
        log.next_offset = entry.raw.offset + 1
        self._count([entry], 1)

    def forget(self, log: PartitionLog, finished: int, committed: int) -> None:
        """The first entries of `log` are committed."""
        self._count([log.entries[i] for i in range(finished)], -1)
        log.forget(finished, committed)

    def is_current(self, entry: Entry) -> bool:
        """False when the entry's assignment has ended: its result must be discarded."""
        log = self._logs.get(entry.tp)
        return log is not None and log.epoch == entry.epoch

    def _count(self, entries: Iterable[Entry], sign: int) -> None:
        for entry in entries:
            self.lane_entries[entry.lane] = self.lane_entries.get(entry.lane, 0) + sign
            self.held_bytes += sign * entry.raw.size_bytes
