"""Turns finished entries into one commit, and a failed commit into what must happen next."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass, replace

from pipeline.streaming.clock import Clock, Deadline
from pipeline.streaming.partitions import Entry, Note, PartitionLog, Partitions, State
from pipeline.streaming.transport import (
    CommitAborted,
    CommitPoint,
    Fenced,
    Ledger,
    OutcomeUnknown,
    Source,
    TopicPartition,
)


@dataclass(frozen=True, slots=True)
class Committed:
    """What a successful commit made visible."""

    entries: tuple[Entry, ...]


class Committer:
    """Commits finished prefixes. Not a thread: called by the runner between polls."""

    def __init__(
        self,
        source: Source,
        ledger: Ledger,
        partitions: Partitions,
        clock: Clock,
        *,
        timeout_s: float,
        give_up_s: float,
    ) -> None:
        """`timeout_s` bounds one commit; after `give_up_s` of aborts in a row the process exits."""
        self._source = source
        self._ledger = ledger
        self._partitions = partitions
        self._clock = clock
        self._timeout_s = timeout_s
        self._give_up_s = give_up_s
        self._aborting_since_s: float | None = None
        self.aborts = 0
        self.unknown = 0
        self.commits = 0

    def commit_finished(self, only: Collection[TopicPartition] | None = None, *, release: bool = False) -> Committed:
        """Commit every finished prefix (of `only` these partitions).

        `release`: the partitions leave in good order, so their note says that nothing is open.
        """
        points: dict[TopicPartition, CommitPoint] = {}
        taken: list[tuple[PartitionLog, int]] = []
        for log in self._partitions:
            if only is not None and log.tp not in only:
                continue
            finished = len(log.finished())
            point = self._point(log, finished, release=release)
            if point is not None:
                points[log.tp] = point
                taken.append((log, finished))
        if not points:
            return Committed(())
        entries = tuple(e for log, n in taken for e in log.finished()[:n])
        if not self._commit(entries, points):
            return Committed(())
        for log, finished in taken:
            log.note = Note.decode(points[log.tp].note)
            log.marked = log.marked and not release
            self._partitions.forget(log, finished, points[log.tp].offset)
        return Committed(entries)

    def mark(self, logs: Collection[PartitionLog], *, solo: bool) -> bool:
        """Note, before the work, that the first record of each log is begun. False: the commit was aborted."""
        points = {}
        for log in logs:
            note = replace(log.note, open=True, solo=log.note.solo + 1 if solo else 0)
            points[log.tp] = CommitPoint(log.entries[0].raw.offset, note.encode())
        if not self._commit((), points):
            return False
        for log in logs:
            log.note = Note.decode(points[log.tp].note)
            log.committed = points[log.tp].offset
            log.marked = True
        return True

    def rewind(self) -> None:
        """Only the broker knows what was committed: read again from there, in a new epoch."""
        for tp, committed in self._source.rewind([log.tp for log in self._partitions]).items():
            log = self._partitions.assign(tp, committed)
            log.marked, log.careful_left = log.note.open, 0

    def _point(self, log: PartitionLog, finished: int, *, release: bool) -> CommitPoint | None:
        offset = log.commit_offset(finished)
        still_begun = any(e.state is State.IN_FLIGHT or e.kills for e in log.entries)
        note = replace(log.note, open=log.marked and (still_begun or not release), solo=0)
        if offset is None and release and log.marked and log.committed is not None:
            # nothing new, but the next reader need not be careful; an unfinished head keeps its history
            offset = log.committed
            note = replace(log.note, open=still_begun)
        if offset is None:
            return None
        if note.accept and note.accept <= offset:
            note = replace(note, accept=0)
        return CommitPoint(offset, note.encode())

    def _commit(self, entries: tuple[Entry, ...], points: dict[TopicPartition, CommitPoint]) -> bool:
        out = [record for entry in entries for record in entry.out]
        deadline = Deadline(self._clock, self._timeout_s)
        try:
            self._ledger.commit(out, points, self._source.member(), deadline)
        except CommitAborted as error:
            self._count_abort(error)
            return False
        except OutcomeUnknown:
            self.unknown += 1
            self.rewind()
            return False
        self._aborting_since_s = None
        self.commits += 1
        return True

    def _count_abort(self, error: CommitAborted) -> None:
        """The results stay in hand and are committed again, until that has failed for too long."""
        self.aborts += 1
        now_s = self._clock.monotonic_s()
        self._aborting_since_s = self._aborting_since_s or now_s
        if now_s - self._aborting_since_s > self._give_up_s:
            raise Fenced(f"commits were aborted for {self._give_up_s:.0f} s on end, the last time: {error}") from error
