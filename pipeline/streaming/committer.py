"""Turns finished entries into one commit, and a failed commit into what must happen next."""

from __future__ import annotations

from collections.abc import Collection

from pipeline.streaming.clock import Clock, Deadline
from pipeline.streaming.partitions import Entry, PartitionLog, Partitions
from pipeline.streaming.plan import RunnerSettings
from pipeline.streaming.transport import (
    CommitAborted,
    CommitPoint,
    Fenced,
    Ledger,
    OutcomeUnknown,
    Source,
    TopicPartition,
)

_LEAST_S = 1.0
"""A commit on the way out gets this much, even when the revoke's deadline is over."""


class Committer:
    """Commits finished prefixes. Not a thread: called by the runner between polls."""

    def __init__(
        self, source: Source, ledger: Ledger, partitions: Partitions, clock: Clock, settings: RunnerSettings
    ) -> None:
        """Counts from zero."""
        self._source = source
        self._ledger = ledger
        self._partitions = partitions
        self._clock = clock
        self._settings = settings
        self._aborting_since_s: float | None = None
        self.aborts = 0
        self.unknown = 0
        self.commits = 0

    def commit_finished(
        self, only: Collection[TopicPartition] | None = None, *, leaving_in_s: float | None = None
    ) -> tuple[Entry, ...] | None:
        """Commit every finished prefix (of `only` these partitions); what became visible, None after a failure.

        `leaving_in_s`: the partitions leave in good order and so much time is left for it. Their notes then say
        that nothing is open, and an unknown outcome is left to the next reader.
        """
        leaving = leaving_in_s is not None
        points: dict[TopicPartition, CommitPoint] = {}
        taken: list[tuple[PartitionLog, int]] = []
        for log in self._partitions:
            if only is not None and log.tp not in only:
                continue
            finished = log.committable(self._clock.monotonic_s())
            point = log.point(finished, leaving=leaving)
            if point is not None:
                points[log.tp] = point
                taken.append((log, finished))
        entries = tuple(e for log, n in taken for e in log.finished()[:n])
        if points and not self._commit(entries, points, leaving_in_s):
            return None
        for log, finished in taken:
            log.commit_done(points[log.tp], leaving=leaving)
            self._partitions.forget(log, finished)
        return entries

    def mark(self, logs: Collection[PartitionLog], *, solo: bool) -> bool:
        """Note, before the work, which records of each log are begun. False: the commit failed."""
        points = {log.tp: log.mark(self._settings.careful_window, solo=solo) for log in logs}
        if not self._commit((), points, None):
            return False
        for log in logs:
            log.mark_done(points[log.tp], solo=solo)
        return True

    def rewind(self) -> None:
        """Only the broker knows what was committed: read again from there, in a new epoch."""
        before = {log.tp: log for log in self._partitions}
        for tp, committed in self._source.rewind(list(before)).items():
            self._partitions.assign(tp, committed).resume(before[tp])

    def _commit(
        self, entries: tuple[Entry, ...], points: dict[TopicPartition, CommitPoint], leaving_in_s: float | None
    ) -> bool:
        out = [record for entry in entries for record in entry.out]
        timeout_s = self._settings.commit_timeout_s
        if leaving_in_s is not None:
            timeout_s = min(timeout_s, max(_LEAST_S, leaving_in_s))
        try:
            self._ledger.commit(out, points, self._source.member(), Deadline(self._clock, timeout_s))
        except CommitAborted as error:
            self._count_abort(error)
            return False
        except OutcomeUnknown:
            self.unknown += 1
            if leaving_in_s is None:
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
        give_up_s = self._settings.commit_give_up_s
        if now_s - self._aborting_since_s > give_up_s:
            raise Fenced(f"commits were aborted for {give_up_s:.0f} s on end, the last time: {error}") from error
