"""What this member holds of each partition: every record from the first uncommitted one on, in offset order.

Only the finished prefix of a partition may be committed: committing past an unfinished record would lose it,
committing a later result without its offset would double it. Every entry carries the epoch of its assignment;
revoke, loss and rewind end the epoch, and results of an ended epoch are discarded.
"""

from __future__ import annotations

from collections import Counter, deque
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field, replace
from enum import Enum, auto
from typing import Any

import orjson

from pipeline.streaming.stage import Item, Output, Step
from pipeline.streaming.trace import RecordTrace
from pipeline.streaming.transport import CommitPoint, OutRecord, RawRecord, TopicPartition
from schemas.deadletter import RejectCode

HOLD_REJECTS_S = 10.0
"""Rejects of ours with nothing good after them are committed after so long."""


class State(Enum):
    """The life of an entry."""

    WAITING = auto()
    IN_FLIGHT = auto()
    DONE = auto()


@dataclass(slots=True, eq=False)
class Entry:
    """One polled record until its commit. Times are monotonic seconds.

    `careful`: its last reader died with it in hand, perhaps; it runs with nothing else in the process.
    `alone`: a process of the executor died with it; it runs in a batch of its own. `kills` counts such deaths.
    """

    raw: RawRecord
    epoch: int
    lane: str
    polled_at_s: float
    careful: bool = False
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
    trace: RecordTrace | None = None
    steps: tuple[Step, ...] = ()

    @property
    def tp(self) -> TopicPartition:
        """Where it came from."""
        return self.raw.tp


@dataclass(frozen=True, slots=True)
class Note:
    """What a member writes beside a committed offset, for whoever reads the partition next.

    `begun`: records below this offset may have been begun. `solo`: how often the record AT the committed offset was
    begun with nothing else in the process. `accept`: dead letters below this offset don't count against the limit.
    """

    begun: int = 0
    solo: int = 0
    accept: int = 0

    def encode(self) -> str:
        """Compact JSON; empty for the default."""
        values = {k: v for k, v in (("begun", self.begun), ("solo", self.solo), ("accept", self.accept)) if v}
        return orjson.dumps(values).decode() if values else ""

    @staticmethod
    def decode(text: str) -> Note:
        """A note of another program counts as none."""
        try:
            data = orjson.loads(text or "{}")
            values = [int(data.get(name, 0)) for name in ("begun", "solo", "accept")]
        except (ValueError, TypeError, AttributeError, OverflowError):
            return Note()
        return Note(*values) if all(0 <= v < 2**63 for v in values) else Note()


@dataclass(slots=True)
class PartitionLog:
    """The entries of one partition under one assignment.

    `careful_until`: records below it are `careful`. `marked`: this member has noted that it begins records.
    """

    tp: TopicPartition
    epoch: int
    note: Note
    committed: int | None
    careful_until: int
    end: int = -1
    entries: deque[Entry] = field(default_factory=deque)
    marked: bool = False
    next_offset: int | None = None

    def finished(self) -> list[Entry]:
        """The completed prefix."""
        found = []
        for entry in self.entries:
            if entry.state is not State.DONE:
                break
            found.append(entry)
        return found

    def committable(self, now_s: float) -> int:
        """How many of the finished prefix may be committed: fresh rejects of ours at its end must wait.

        Either a good record follows, or there are so many that the process stops: then none of them was committed,
        and a restart does not let some more slip through each time.
        """
        finished = self.finished()
        while finished and finished[-1].own_reject is not None and now_s - finished[-1].done_at_s < HOLD_REJECTS_S:
            finished.pop()
        return len(finished)

    def careful_head(self, now_s: float) -> bool:
        """True when the first record must run alone, and may run now."""
        head = self.entries[0] if self.entries else None
        return head is not None and head.careful and head.state is State.WAITING and head.not_before_s <= now_s

    def must_be_marked(self, now_s: float) -> bool:
        """True when records are about to be begun of which no note tells yet."""
        if self.marked or not self.entries or self.entries[0].careful:
            return False
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

    def point(self, finished: int, *, leaving: bool) -> CommitPoint | None:
        """What to commit with the first `finished` entries; None: nothing.

        A partition that leaves in good order tells its next reader that nothing is open, even without news.
        """
        offset = self.commit_offset(finished)
        solo = 0
        if offset is None and leaving and self.marked:
            offset, solo = self.committed, self.note.solo
        if offset is None:
            return None
        accept = self.note.accept if self.note.accept > offset else 0
        return CommitPoint(offset, Note(self._begun(offset, leaving=leaving), solo, accept).encode())

    def _begun(self, offset: int, *, leaving: bool) -> int:
        """Below which offset records may be open after a commit of `offset`.

        The record at `offset` is announced in advance, so that a slow trickle needs no note of its own.
        """
        unsafe = [e.raw.offset + 1 for e in self.entries if e.kills or (e.state is State.IN_FLIGHT and not leaving)]
        if self.careful_until > offset:
            unsafe.append(self.careful_until)
        if self.marked and not leaving:
            unsafe.append(offset + 1)
        return max(unsafe, default=0)

    def commit_done(self, point: CommitPoint, *, leaving: bool) -> None:
        """`point` is committed."""
        self.committed = point.offset
        self.note = Note.decode(point.note)
        self.marked = self.marked and not leaving

    def resume(self, before: PartitionLog) -> None:
        """This process reads on after a rewind: nobody has died, so what it knew still holds.

        The broker may have a mark of a run that never began; its count must not be believed.
        """
        self.marked = self.note.begun > 0 and not before.careful_until
        self.careful_until = before.careful_until
        head = before.entries[0].raw.offset if before.entries else None
        if head is not None and self.committed is not None and self.committed <= head:
            self.note = replace(self.note, solo=before.note.solo)

    def mark(self, window: int, *, solo: bool) -> CommitPoint:
        """What to commit before the first record is begun: `window` records, or that one `solo`."""
        head = self.entries[0].raw.offset
        if solo:
            note = replace(self.note, begun=max(self.careful_until, head + 1), solo=self.note.solo + 1)
        else:
            note = replace(self.note, begun=min(head + window, self.entries[-1].raw.offset + 1), solo=0)
        return CommitPoint(head, note.encode())

    def mark_done(self, point: CommitPoint, *, solo: bool) -> None:
        """The mark is committed."""
        self.committed = point.offset
        self.note = Note.decode(point.note)
        self.marked = not solo


class Partitions:
    """All partitions of this member. Owns epochs and the counts that bound memory."""

    def __init__(self) -> None:
        """Holds nothing."""
        self._logs: dict[TopicPartition, PartitionLog] = {}
        self._epoch = 0
        self.lane_entries: Counter[str] = Counter()
        self.lane_bytes: Counter[str] = Counter()

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
        log = PartitionLog(tp, self._epoch, note, committed.offset if committed else None, note.begun)
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

    def forget(self, log: PartitionLog, finished: int) -> None:
        """The first `finished` entries of `log` are committed."""
        self._count([log.entries.popleft() for _ in range(finished)], -1)

    def came_back(self, entries: Iterable[Entry]) -> None:
        """Records that ran alone did not end the process: their marks must not count at the next try."""
        for entry in entries:
            log = self._logs[entry.tp]
            log.note = replace(log.note, solo=max(0, log.note.solo - 1))

    def is_current(self, entry: Entry) -> bool:
        """False when the entry's assignment has ended: its result must be discarded."""
        log = self._logs.get(entry.tp)
        return log is not None and log.epoch == entry.epoch

    def _count(self, entries: Iterable[Entry], sign: int) -> None:
        for entry in entries:
            self.lane_entries[entry.lane] += sign
            self.lane_bytes[entry.lane] += sign * entry.raw.size_bytes
