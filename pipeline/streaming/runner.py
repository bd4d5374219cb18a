"""The loop of every worker: poll, decode, batch, execute, commit. One thread owns the broker.

`tick()` is one turn; tests drive it turn by turn with a fake clock. A transaction is open only inside a commit,
when finished results are in hand, never around processing.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Collection, Mapping
from typing import Any

from pipeline.streaming.backpressure import Backpressure
from pipeline.streaming.batch import Batcher
from pipeline.streaming.clock import Clock, Deadline
from pipeline.streaming.codec import Codec
from pipeline.streaming.committer import Committer
from pipeline.streaming.executors.base import Completed, Executor
from pipeline.streaming.failure import OwnRejects
from pipeline.streaming.lag import MemberLag
from pipeline.streaming.outcomes import MAX_KILLS, Resolver
from pipeline.streaming.partitions import Entry, PartitionLog, Partitions
from pipeline.streaming.plan import Plan, RunnerSettings
from pipeline.streaming.stage import GiveUpCause, Reject
from pipeline.streaming.transport import CommitPoint, Ledger, RawRecord, Source, SourceFailed, TopicPartition
from pipeline.streaming.watch import Watch

Hook = Callable[[str], None]
"""Called at named points of the loop; the fault tests kill the process there."""

HOOKS = ("after_poll", "after_mark", "after_submit", "after_results", "before_commit", "after_commit")


class Runner:
    """Drives one stage over one source and one ledger."""

    def __init__(
        self,
        *,
        plan: Plan,
        codec: Codec[Any],
        source: Source,
        ledger: Ledger,
        executor: Executor[Any],
        settings: RunnerSettings,
        clock: Clock,
        watch: Watch | None = None,
        hook: Hook = lambda _: None,
        jitter: Callable[[], float] = random.random,
    ) -> None:
        """Nothing is opened here; `run` or the first `open` does."""
        self._plan = plan
        self._codec = codec
        self._source = source
        self._ledger = ledger
        self._executor = executor
        self._settings = settings
        self._clock = clock
        self._watch = watch or Watch()
        self._hook = hook
        self._lane_of = {topic: lane for lane in plan.lanes for topic in lane.topics}
        self._partitions = Partitions()
        self._batcher = Batcher(plan.lanes, settings.batch, plan.tenant_quota)
        self._pressure = Backpressure(plan.lanes, self._partitions, source, settings.max_held_bytes)
        self._resolver = Resolver(
            plan=plan,
            codec=codec,
            partitions=self._partitions,
            batcher=self._batcher,
            settings=settings,
            clock=clock,
            watch=self._watch,
            jitter=jitter,
        )
        self._committer = Committer(source, ledger, self._partitions, clock, settings)
        self._own_rejects = OwnRejects(settings.dead_letters)
        self._lag = MemberLag()
        self._tickets: dict[int, list[Entry]] = {}
        self._next_ticket = 0
        self._solo_ticket = 0
        self._retry_commit_at_s = 0.0
        self._leaving_for_good = False

    # -- life --

    def open(self) -> None:
        """Open stage and ledger, then join the group: no record is taken before both can work."""
        self._executor.open()
        self._ledger.open()
        self._source.subscribe(sorted(self._lane_of), self)
        self._watch.warm()

    def run(self, stopping: Callable[[], bool]) -> None:
        """Repeat `tick` until `stopping()`, then drain and leave the group."""
        self.open()
        while not stopping():
            self.tick()
        self.drain()

    def drain(self) -> None:
        """Finish what is in flight inside the deadline, commit it, leave the group in good order."""
        deadline = Deadline(self._clock, self._settings.drain_timeout_s)
        self._settle(deadline, {log.tp for log in self._partitions})
        self._leave(deadline.left_s)

    def abandon(self) -> None:
        """Leave without committing anything: after an error that ends the process."""
        self._leave(0.0)

    def _leave(self, timeout_s: float) -> None:
        self._leaving_for_good = True
        self._source.close()
        self._ledger.close()
        self._executor.close(timeout_s)

    def tick(self) -> None:
        """One turn of the loop."""
        self._tell()
        self._poll()
        self._feed()
        self._collect(0.0)
        self._commit_if_due()
        self._pressure.balance(self._clock.monotonic_s())

    def _tell(self) -> None:
        now_s = self._clock.monotonic_s()
        oldest = [now_s - e.polled_at_s for held in self._tickets.values() for e in held]
        self._watch.turn(max(oldest, default=0.0), self._batcher.in_flight, len(self._partitions))

    # -- the listener's side: called from inside poll and close --

    def assigned(self, committed: Mapping[TopicPartition, CommitPoint | None]) -> None:
        """See AssignmentListener."""
        for tp, point in committed.items():
            self._partitions.assign(tp, point)
        self._pressure.forget(committed)
        self._watch.rebalance("assigned", len(committed))

    def revoked(self, partitions: Collection[TopicPartition]) -> None:
        """Finish or drop inside one deadline, commit the finished prefix, forget the rest."""
        leaving = {tp for tp in partitions if tp in self._partitions}
        if not self._leaving_for_good:
            self._settle(Deadline(self._clock, self._settings.revoke_timeout_s), leaving)
        self._forget(leaving)
        self._watch.rebalance("revoked", len(leaving))

    def lost(self, partitions: Collection[TopicPartition]) -> None:
        """Another member has them already: drop."""
        self._forget(partitions)
        self._watch.rebalance("lost", len(partitions))

    def _settle(self, deadline: Deadline, leaving: set[TopicPartition]) -> None:
        self._batcher.keep(lambda e: e.tp not in leaving and self._partitions.is_current(e))
        while not deadline.expired and any(e.tp in leaving for held in self._tickets.values() for e in held):
            self._collect(min(0.05, deadline.left_s))
            self._tell()
        if leaving:
            self._publish(leaving, leaving_in_s=deadline.left_s)

    def _forget(self, partitions: Collection[TopicPartition]) -> None:
        self._partitions.drop(partitions)
        self._pressure.forget(partitions)
        self._batcher.keep(self._partitions.is_current)
        self._resolver.recount()

    # -- in --

    def _poll(self) -> None:
        busy = self._tickets or self._resolver.finished_since_s is not None
        timeout_s = 0.003 if busy else 0.01 if self._batcher.waiting else 0.1
        rewinds = self._committer.unknown
        polled = self._source.poll(timeout_s, self._pressure.poll_limit())
        if self._committer.unknown > rewinds:
            # A revoke inside the poll ended in an unknown commit: nobody knows what was fetched before it.
            self._committer.rewind()
            self._batcher.keep(self._partitions.is_current)
            return
        for tp, position in polled.ends.items():
            log = self._partitions.get(tp)
            if log is not None:
                log.end = position
        for raw in polled.records:
            self._admit(raw)
        if polled.highs:
            self._watch.lag(self._lag.after(self._partitions, polled.highs, self._clock.wall_s()))
        if polled.records:
            self._hook("after_poll")

    def _admit(self, raw: RawRecord) -> None:
        lane = self._lane_of[raw.tp.topic]
        log = self._partitions.get(raw.tp)
        if log is None or (log.next_offset is not None and raw.offset < log.next_offset):
            return
        if log.committed is not None and raw.offset < log.committed:
            raise SourceFailed(
                f"{raw.tp} gives offset {raw.offset}, but {log.committed} is committed: the topic was truncated or "
                "made anew; reset the group's offsets for it"
            )
        now_s = self._clock.monotonic_s()
        entry = Entry(raw, log.epoch, lane.name, now_s, careful=raw.offset < log.careful_until)
        entry.trace = self._codec.trace(raw)
        self._partitions.add(entry)
        read = self._codec.read(raw)
        if isinstance(read, Reject):
            self._resolver.finish(entry, read)
            return
        entry.item = read
        entry.cost = self._plan.cost(read)
        due_s = self._codec.due_s(raw) if lane.delayed else None
        if due_s is not None:
            entry.not_before_s = now_s + due_s - self._clock.wall_s()
        self._batcher.add(entry)

    # -- work --

    def _feed(self) -> None:
        if self._solo_ticket in self._tickets:
            return
        now_s = self._clock.monotonic_s()
        careful = next((log for log in self._partitions if log.careful_head(now_s)), None)
        if careful is not None:
            self._feed_careful(careful)
            return
        if not self._mark_new(now_s):
            return
        while self._executor.free_slots() > 0:
            batch = self._batcher.next_batch(now_s)
            if not batch:
                return
            self._submit(batch)

    def _feed_careful(self, log: PartitionLog) -> None:
        """After a crash: one record at a time in the whole process, each noted before it is begun."""
        head = log.entries[0]
        if self._tickets or not self._may_commit() or self._executor.free_slots() == 0:
            return
        if log.committed == head.raw.offset and log.note.solo >= MAX_KILLS:
            self._batcher.landed(self._batcher.next_solo(head))
            ended = f"ended the process {log.note.solo} times when run alone"
            self._resolver.give_up(head, GiveUpCause.ANALYSIS_CRASH, ended)
            return
        if self._mark([log], solo=True):
            self._submit(self._batcher.next_solo(head))
            self._solo_ticket = self._next_ticket

    def _mark_new(self, now_s: float) -> bool:
        """Note once per assignment that records are begun, so that a successor knows when this process dies."""
        fresh = [log for log in self._partitions if log.must_be_marked(now_s)]
        return not fresh or (self._may_commit() and self._mark(fresh, solo=False))

    def _mark(self, logs: Collection[PartitionLog], *, solo: bool) -> bool:
        marked = self._committer.mark(logs, solo=solo)
        if marked:
            self._hook("after_mark")
        else:
            self._after_failed_commit()
        return marked

    def _submit(self, batch: list[Entry]) -> None:
        self._next_ticket += 1
        self._tickets[self._next_ticket] = batch
        self._watch.batch(len(batch), self._clock.monotonic_s() - batch[0].polled_at_s)
        self._executor.submit(self._next_ticket, [e.item for e in batch if e.item is not None])
        self._hook("after_submit")

    def _collect(self, timeout_s: float) -> None:
        landed = self._executor.completed(timeout_s)
        for completed in landed:
            self._land(completed)
        if landed:
            self._hook("after_results")

    def _land(self, completed: Completed) -> None:
        batch = self._tickets.pop(completed.ticket)
        self._batcher.landed(batch)
        current = [e for e in batch if self._partitions.is_current(e)]
        if completed.outcomes is None:
            self._resolver.split(current, completed.crash, alone=len(batch) == 1)
            return
        if completed.ticket == self._solo_ticket:
            self._partitions.came_back(current)
        outcomes = dict(zip(map(id, batch), completed.outcomes, strict=True))
        for entry in current:
            self._resolver.finish(entry, outcomes[id(entry)])

    # -- out --

    def _commit_if_due(self) -> None:
        if not self._may_commit():
            return
        now_s, since_s = self._clock.monotonic_s(), self._resolver.finished_since_s
        if since_s is not None:
            self._check_own_rejects(None)
        waited = since_s is not None and now_s - since_s >= self._settings.commit_interval_s
        finished = sum(log.committable(now_s) for log in self._partitions) if since_s is not None else 0
        idle = not self._tickets
        ends = idle and any(not log.entries and log.commit_offset(0) is not None for log in self._partitions)
        if finished >= self._settings.commit_max_items or (finished and (waited or idle)) or ends:
            self._publish(None)

    def _may_commit(self) -> bool:
        """False for a moment after a failed commit."""
        return self._clock.monotonic_s() >= self._retry_commit_at_s

    def _publish(self, only: set[TopicPartition] | None, *, leaving_in_s: float | None = None) -> None:
        """Commit what is finished; `leaving_in_s` is the time left for partitions that leave in good order."""
        self._check_own_rejects(only)
        self._hook("before_commit")
        started_s = self._clock.monotonic_s()
        committed = self._committer.commit_finished(only, leaving_in_s=leaving_in_s)
        if committed is None:
            self._after_failed_commit()
            return
        if committed:
            self._hook("after_commit")
            self._watch.committed(committed, self._clock.monotonic_s() - started_s)
        self._resolver.recount()

    def _check_own_rejects(self, only: set[TopicPartition] | None) -> None:
        """Count what is finished, in its order; past the limit nothing of the run of rejects is committed."""
        for log in self._partitions:
            if only is not None and log.tp not in only:
                continue
            for entry in log.finished():
                if entry.counted:
                    continue
                entry.counted = True
                if entry.own_reject is None:
                    self._own_rejects.good()
                else:
                    place = (log.tp.topic, log.tp.partition, entry.raw.offset)
                    self._own_rejects.bad(self._plan.name, *place, entry.own_reject)

    def _after_failed_commit(self) -> None:
        """Results stay in hand for the next try; what a rewind ended is forgotten."""
        self._watch.commit_failed(self._committer.aborts, self._committer.unknown)
        self._batcher.keep(self._partitions.is_current)
        self._retry_commit_at_s = self._clock.monotonic_s() + 0.05
