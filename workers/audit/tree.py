"""One partition with its log: where reading begins, what waits for the next checkpoint."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from pipeline.evidence.log.audit_log import AuditLog
from pipeline.evidence.log.errors import LogCorrupt
from pipeline.evidence.log.leaf import Leaf, gap_leaf, leaf_of
from pipeline.streaming.transport import CommitPoint, RawRecord, TopicPartition
from schemas.topics import Topic
from workers.audit.errors import AuditContradiction, AuditGap
from workers.audit.settings import GapPolicy

OnLogged = Callable[[Topic, Sequence[RawRecord]], None]
"""Called with records of one partition after their leaves are in the log, with each at least once, before Kafka's
offset is committed."""


SLICE = 100
"""Records that are handed on between two pulses."""

_NEW_LOG = (
    "Begin a new log beside the old one: stop the workers, make keys with `mediasieve audit keygen DIR --name NAME`, "
    "and set audit.log_name, audit.private_key and audit.public_keys to them"
)


@dataclass(frozen=True, slots=True)
class Bounds:
    """What Kafka keeps of a partition: offsets from `low` on, below `high`."""

    low: int
    high: int


@dataclass(slots=True)
class Tree:
    """The open log of one partition. The last leaf's offset says what is in it; Kafka's offset follows.

    A committed point's note names origin and last leaf, so that a point that somebody else moved, and a log that was
    rolled back, are both seen.
    """

    topic: Topic
    tp: TopicPartition
    origin: str
    log: AuditLog
    committed: CommitPoint | None
    """What the group has committed, or will have when the commit in hand succeeds."""
    newest: Leaf | None = field(init=False)
    seen: int = field(init=False, default=-1)
    """Offset of the newest record taken since the log was opened."""
    end: int = field(init=False, default=-1)
    """Every record below it is known to be logged and settled, if none waits: the partition's end, as last reached."""
    back_to: int | None = field(init=False, default=None)
    """Where reading must go on, once the record of the last leaf was compared; until then nothing is taken."""
    since_s: float | None = field(init=False, default=None)
    """When the oldest record that waits was taken."""
    _waiting: list[RawRecord] = field(init=False, default_factory=list)
    _fresh: list[Leaf] = field(init=False, default_factory=list)
    _from: int = field(init=False, default=0)
    _settled: int = field(init=False, default=0)
    _compares: bool = field(init=False, default=False)
    _resend: bool = field(init=False, default=False)

    def __post_init__(self) -> None:
        entry = self.log.last_entry()
        self.newest = Leaf.parse(entry) if entry is not None else None
        if self.newest is not None and (self.newest.topic, self.newest.partition) != (self.topic, self.tp.partition):
            place = f"{self.newest.topic}[{self.newest.partition}]"
            raise LogCorrupt(f"{self.origin}: its last leaf is one of {place}", self.log.size - 1)

    @property
    def last(self) -> int:
        """Offset of the last leaf in the log; -1 for an empty log."""
        return self.newest.offset if self.newest is not None else -1

    @property
    def waiting(self) -> int:
        """Records taken and not yet flushed."""
        return len(self._waiting)

    def start(self, bounds: Bounds, policy: GapPolicy) -> int:
        """The offset to read from: never later than what is not in the log, or not handed to `OnLogged`.

        Where Kafka still has the last logged record, that one is read first, and compared: no record is taken, and no
        point made, before it is known to be the same. Then reading goes on at `back_to`.

        Raises:
            AuditGap: records that are not in the log are no longer kept, and the policy is to stop.
            AuditContradiction: the log reaches beyond Kafka's end, or is shorter than it once was.
        """
        expected = self.last + 1
        vouched = self._vouched()
        if bounds.high < expected:
            raise AuditContradiction(
                f"{self.origin}: the log has a leaf for offset {self.last}, but {self.tp} ends at {bounds.high}: the "
                f"topic was made anew or truncated. {_NEW_LOG}"
            )
        if (self.newest is not None or vouched >= 0) and bounds.low > max(expected, vouched):
            self._gap(expected, bounds.low, policy)
        self._settled = self.committed.offset if self.committed and self._note() is not None else 0
        self._from = max(bounds.low, min(self._settled, self.last)) if self.newest is not None else bounds.low
        self.seen, self.end = self._from - 1, vouched
        self._compares = self.newest is not None and self.newest.gap_from is None and self._from <= self.last
        return self.last if self._compares else self._from

    def take(self, record: RawRecord, now_s: float) -> None:
        """Keep one record for the next checkpoint; one that was taken already is dropped.

        Raises:
            AuditContradiction: it is not the record that the log has at this offset.
        """
        if self._compares:
            if record.offset < self.last:
                return  # fetched before the client was told where to read
            self._compare(record)
            self._compares = False
            self.back_to = self._from if self._from < record.offset else None
        if self.back_to is not None or record.offset <= self.seen:
            return
        self.seen = record.offset
        if record.offset <= self.last and record.offset < self._settled:
            return
        self._waiting.append(record)
        if record.offset > self.last:
            self._fresh.append(leaf_of(self.topic, self.tp.partition, record.offset, record.value))
        if self.since_s is None:
            self.since_s = now_s

    def reached(self, end: int) -> None:
        """Reading has come to the partition's end."""
        if not self._compares and self.back_to is None:
            self.end = end

    def append(self) -> int:
        """Write the leaves that wait and their checkpoint; returns how many. The records still wait for `settle`.

        Raises:
            Superseded, LogUnavailable, LogCorrupt: see AuditLog.append.
        """
        fresh = len(self._fresh)
        if fresh:
            self.log.append([leaf.encode() for leaf in self._fresh])
            self.newest = self._fresh[-1]
            self._fresh.clear()
        return fresh

    def settle(self, on_logged: OnLogged, pulse: Callable[[], None] = lambda: None) -> None:
        """Hand on what was logged, a slice at a time with a pulse after each: a store that is slow is not stuck.

        What `on_logged` raises goes through, and all that was not handed on is handed on again.
        """
        while self._waiting:
            on_logged(self.topic, self._waiting[:SLICE])
            del self._waiting[:SLICE]
            pulse()
        self.since_s = None

    def point(self) -> CommitPoint | None:
        """What to commit: every record below it is in the log; None while records wait, or if it is committed."""
        if self._waiting or (self.seen < self._from and self.end < 0):
            return None
        point = CommitPoint(max(self.seen + 1, self.end), f"{self.origin}@{self.last}")
        return None if point == self.committed and not self._resend else point

    def sent(self, point: CommitPoint) -> None:
        """The point is on its way to the group."""
        self.committed, self._resend = point, False

    def refused(self) -> None:
        """The group did not take a point: `point` gives it again."""
        self._resend = True

    def _note(self) -> int | None:
        """The last leaf that the committed point's note names; None when it is not a note of ours about this tree."""
        origin, _, last = self.committed.note.rpartition("@") if self.committed else ("", "", "")
        return int(last) if origin == self.origin and last.removeprefix("-").isdecimal() else None

    def _vouched(self) -> int:
        """The offset below which a point of ours says that nothing is missing; -1 without such a point."""
        last = self._note()
        if self.committed is None or last is None:
            return -1
        if last > self.last:
            raise AuditContradiction(
                f"{self.origin}: the log once reached offset {last} of {self.tp}, and now ends at {self.last}: it was "
                f"rolled back or emptied. Restore it. Only if it is lost for good: {_NEW_LOG}"
            )
        return self.committed.offset if last == self.last else -1

    def _gap(self, first: int, until: int, policy: GapPolicy) -> None:
        if policy is GapPolicy.STOP:
            raise AuditGap(
                f"{self.origin}: Kafka no longer keeps offsets {first} to {until - 1} of {self.tp}, and the log has no "
                f"leaves for them. To go on with a leaf that says so: mediasieve audit accept-gap "
                f"{self.topic} {self.tp.partition} --until {until}"
            )
        leaf = gap_leaf(self.topic, self.tp.partition, first, until)
        self.log.append([leaf.encode()])
        self.newest = leaf

    def _compare(self, record: RawRecord) -> None:
        found = leaf_of(self.topic, self.tp.partition, record.offset, record.value)
        logged = self.newest
        if logged is None or (record.offset, found.record_sha256) != (logged.offset, logged.record_sha256):
            raise AuditContradiction(
                f"{self.origin}: the record at {self.tp}@{record.offset} is not the one that the log has a leaf for at "
                f"offset {self.last}: the topic was made anew. {_NEW_LOG}"
            )
