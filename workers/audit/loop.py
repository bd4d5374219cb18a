"""The audit worker's loop: one thread that owns the consumer, one tree for each assigned partition.

A partition that was assigned is held until its log is open and says where to read from. What cannot be written now is
dropped and read again from Kafka: the log's last leaf, not the consumer, says how far the log is.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass

import structlog

from pipeline.evidence.log.audit_log import AuditLog
from pipeline.evidence.log.errors import LogCorrupt, LogError, LogUnavailable
from pipeline.media.errors import ContentCorrupt, StoreUnavailable
from pipeline.observability.metrics import Metrics
from pipeline.streaming.clock import Clock
from pipeline.streaming.codec import TopicNames
from pipeline.streaming.lag import ReaderLag
from pipeline.streaming.transport import CommitPoint, PositionedSource, TopicPartition
from pipeline.streaming.watch import Watch
from schemas.topics import AUDITED_TOPICS
from workers.audit.errors import AuditContradiction
from workers.audit.log import named
from workers.audit.settings import AuditSettings
from workers.audit.tree import Bounds, OnLogged, Tree

log = structlog.get_logger("mediasieve")

Hook = Callable[[str], None]
"""Called at named points of the loop; the fault tests kill the process there."""

HOOKS = ("after_poll", "before_append", "after_append", "after_settle", "after_commit")

_POLL_S = 0.1
_AWAY = (LogUnavailable, StoreUnavailable)


@dataclass(frozen=True, slots=True)
class _Held:
    """A partition without an open log: what the group has committed, and when to try again.

    `since_s`: since when its records have had no checkpoint.
    """

    committed: CommitPoint | None
    since_s: float
    retry_at_s: float = 0.0


class AuditLoop:
    """Also the listener of its source's assignments."""

    def __init__(
        self,
        *,
        source: PositionedSource,
        open_log: Callable[[str], AuditLog],
        settings: AuditSettings,
        names: TopicNames,
        clock: Clock,
        metrics: Metrics,
        watch: Watch | None = None,
        on_logged: OnLogged = lambda _topic, _records: None,
        hook: Hook = lambda _: None,
    ) -> None:
        """`open_log` is given `topic/partition`, the end of the tree's origin and its place in the storage."""
        self._source = source
        self._open_log = open_log
        self._settings = settings
        self._names = names
        self._clock = clock
        self._metrics = metrics
        self._watch = watch or Watch()
        self._on_logged = on_logged
        self._hook = hook
        self._held: dict[TopicPartition, _Held] = {}
        self._trees: dict[TopicPartition, Tree] = {}
        self._attempts: Counter[TopicPartition] = Counter()
        self._failure: Exception | None = None
        self._lag = ReaderLag()

    def run(self, stopping: Callable[[], bool]) -> None:
        """Until `stopping`; then what waits is logged, and the group is left.

        Raises:
            LogError, ContentCorrupt, AuditGap, AuditContradiction, SourceFailed, UnknownMajorVersion: `abandon`, and
                end the process.
        """
        self.open()
        while not stopping():
            self.turn()
        self._source.close()  # hears `revoked`, which logs what waits
        self._raise_failure()

    def open(self) -> None:
        """Join the group."""
        self._source.subscribe([self._names.physical(t) for t in AUDITED_TOPICS], self)
        self._watch.warm()

    def abandon(self, error: Exception) -> None:
        """Leave the group and write nothing more: after an error that ends the process."""
        self._failure = error
        self._source.close()

    def turn(self) -> None:
        """One turn; see `run` for what it raises."""
        self._open_held()
        polled = self._source.poll(_POLL_S, self._settings.batch_size)
        self._raise_failure()
        now_s = self._clock.monotonic_s()
        behind = self._lag.after(polled, self._clock.wall_s())
        if polled.highs:
            self._watch.lag(behind)
        if polled.records:
            self._hook("after_poll")
        for record in polled.records:
            if (tree := self._trees.get(record.tp)) is not None:
                tree.take(record, now_s)
        for tp, end in polled.ends.items():
            if (tree := self._trees.get(tp)) is not None:
                tree.reached(end)
        self._go_back()
        for tp in [tp for tp, tree in self._trees.items() if self._due(tree, now_s)]:
            self._flush(tp)
        self._commit()
        self._say()

    def assigned(self, committed: Mapping[TopicPartition, CommitPoint | None]) -> None:
        """See AssignmentListener."""
        now_s = self._clock.monotonic_s()
        self._held |= {tp: _Held(point, now_s) for tp, point in committed.items()}
        self._watch.rebalance("assigned", len(committed))

    def revoked(self, partitions: Collection[TopicPartition]) -> None:
        """See AssignmentListener. What waits is logged first; a failure of that is raised by the turn."""
        for tp in partitions:
            if self._failure is None and tp in self._trees and self._trees[tp].waiting:
                try:
                    self._flush(tp)
                except (LogError, AuditContradiction, ContentCorrupt) as error:
                    self._failure = error  # not from here: the client library calls this
        if self._failure is None:
            self._commit()
        self._forget(partitions)
        self._watch.rebalance("revoked", len(partitions))

    def lost(self, partitions: Collection[TopicPartition]) -> None:
        """See AssignmentListener. Another member's already: nothing is written."""
        self._forget(partitions)
        self._watch.rebalance("lost", len(partitions))

    def _open_held(self) -> None:
        now_s = self._clock.monotonic_s()
        for tp, held in [(tp, held) for tp, held in self._held.items() if held.retry_at_s <= now_s]:
            kept = self._source.bounds(tp)
            if kept is None:  # its leader is away, or all brokers: asking for the others in this turn could take long
                self._hold(tp, held.committed, "NoBounds", "the brokers did not say what they keep of it")
                return
            self._open(tp, held, Bounds(*kept))
            self._say()

    def _open(self, tp: TopicPartition, held: _Held, bounds: Bounds) -> None:
        topic = self._names.logical(tp.topic)
        name = f"{topic}/{tp.partition}"
        try:
            origin = f"{self._settings.log_name}/{name}"
            tree = Tree(topic, tp, origin, self._open_log(name), held.committed)
            start = tree.start(bounds, self._settings.gap)
        except _AWAY as error:
            self._hold(tp, held.committed, type(error).__name__, str(error))
            return
        if not self._source.start(tp, start):
            return
        del self._held[tp]
        self._trees[tp] = tree
        log.info("log_open", tree=tree.origin, leaves=tree.log.size, last_offset=tree.last, read_from=start)

    def _go_back(self) -> None:
        """To what must be handed on again, where the last leaf's record was compared."""
        for tp, tree in self._trees.items():
            if tree.back_to is not None and self._source.start(tp, tree.back_to):
                tree.back_to = None

    def _due(self, tree: Tree, now_s: float) -> bool:
        if tree.since_s is None:
            return False
        return tree.waiting >= self._settings.batch_size or now_s - tree.since_s >= self._settings.checkpoint_age_s

    def _flush(self, tp: TopicPartition) -> None:
        tree = self._trees[tp]
        started_s = self._clock.monotonic_s()
        try:
            self._hook("before_append")
            leaves = _append(tree)
            self._hook("after_append")
            if leaves:
                self._metrics.count("mediasieve_audit_leaves_total", tree.topic, by=leaves)
                self._metrics.observe("mediasieve_audit_checkpoint_seconds", self._clock.monotonic_s() - started_s)
                self._metrics.set("mediasieve_audit_checkpoint_timestamp_seconds", self._clock.wall_s())
            tree.settle(self._on_logged, self._say)
            self._hook("after_settle")
            self._attempts.pop(tp, None)
        except _AWAY as error:
            del self._trees[tp]
            self._source.pause([tp])
            self._hold(tp, tree.committed, type(error).__name__, str(error), tree.since_s)

    def _hold(
        self, tp: TopicPartition, committed: CommitPoint | None, cause: str, detail: str, since_s: float | None = None
    ) -> None:
        wait_s = min(self._settings.backoff_max_s, self._settings.backoff_first_s * 2.0 ** min(self._attempts[tp], 30))
        self._attempts[tp] += 1
        now_s = self._clock.monotonic_s()
        if tp in self._held:
            since_s = self._held[tp].since_s
        self._held[tp] = _Held(committed, now_s if since_s is None else since_s, now_s + wait_s)
        self._metrics.count("mediasieve_audit_waits_total", self._names.logical(tp.topic))
        log.warning("log_waits", partition=str(tp), wait_s=wait_s, cause=cause, detail=detail)

    def _commit(self) -> None:
        for tp in self._source.refused() & self._trees.keys():
            self._trees[tp].refused()
        points = {tp: point for tp, tree in self._trees.items() if (point := tree.point()) is not None}
        if points:
            self._source.commit(points)
            for tp, point in points.items():
                self._trees[tp].sent(point)
            self._hook("after_commit")

    def _forget(self, partitions: Collection[TopicPartition]) -> None:
        for tp in partitions:
            self._held.pop(tp, None)
            self._trees.pop(tp, None)

    def _raise_failure(self) -> None:
        if self._failure is not None:
            raise self._failure

    def _say(self) -> None:
        now_s = self._clock.monotonic_s()
        since = [tree.since_s for tree in self._trees.values() if tree.since_s is not None]
        oldest_s = now_s - min(since) if since else 0.0
        without = [*since, *(held.since_s for held in self._held.values())]
        self._metrics.set("mediasieve_audit_checkpoint_age_seconds", now_s - min(without) if without else 0.0)
        in_flight = sum(tree.waiting for tree in self._trees.values())
        self._watch.turn(oldest_s, in_flight, len(self._held) + len(self._trees))


def _append(tree: Tree) -> int:
    try:
        return tree.append()
    except LogCorrupt as error:
        raise named(error, tree.origin) from error
