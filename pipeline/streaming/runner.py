"""The loop of every worker: poll, decode, batch, execute, commit. One thread owns the broker.

`tick()` is one turn; tests drive it turn by turn with a fake clock. A transaction is open only inside a commit,
when finished results are in hand, never around processing.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, replace
from typing import Any

from pydantic import BaseModel, ConfigDict, Field

from pipeline.streaming.batch import Batcher, BatchLimits, Lane
from pipeline.streaming.clock import Clock, Deadline
from pipeline.streaming.codec import Codec
from pipeline.streaming.committer import Committer
from pipeline.streaming.executors.base import Completed, Executor
from pipeline.streaming.failure import DeadLetterLimits, OwnRejects
from pipeline.streaming.partitions import Entry, PartitionLog, Partitions, State
from pipeline.streaming.stage import Defer, DeferScope, Emit, Fallback, GiveUpCause, Item, Outcome, Reject
from pipeline.streaming.transport import CommitPoint, Ledger, RawRecord, Source, TopicPartition
from pipeline.streaming.watch import NullWatch, Watch
from schemas.deadletter import EDGE_CODES, RejectCode

Hook = Callable[[str], None]
"""Called at named points of the loop; the fault tests kill the process there."""

HOOKS = ("after_poll", "after_mark", "after_submit", "after_results", "before_commit", "after_commit")
MAX_KILLS = 2


class RunnerSettings(BaseModel):
    """Bounds of the loop. Times in seconds."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    commit_interval_s: float = Field(default=0.05, ge=0, le=10, description="most time a finished result waits")
    commit_max_items: int = Field(default=256, ge=1, le=10_000, description="finished results that commit at once")
    commit_timeout_s: float = Field(default=10.0, gt=0, le=60, description="one commit, retries included")
    commit_give_up_s: float = Field(default=60.0, gt=0, description="aborts in a row for this long end the process")
    revoke_timeout_s: float = Field(default=5.0, ge=0, le=60, description="time to finish what is in flight on revoke")
    drain_timeout_s: float = Field(default=30.0, ge=0, le=3600, description="time to finish on SIGTERM")
    max_held_bytes: int = Field(
        default=64 * 2**20, ge=2**20, description="record bytes in memory at which reading pauses"
    )
    dependency_max_age_s: float = Field(
        default=300.0, ge=0, description="then an item escalates dependency_unavailable"
    )
    backoff_first_s: float = Field(
        default=0.2, gt=0, description="first wait for a missing dependency; doubles, jittered"
    )
    backoff_max_s: float = Field(default=15.0, gt=0, description="longest wait for a missing dependency")
    careful_window: int = Field(default=16, ge=1, le=10_000, description="records run one at a time after a crash")
    batch: BatchLimits = BatchLimits()
    dead_letters: DeadLetterLimits = DeadLetterLimits()


@dataclass(frozen=True, slots=True)
class Plan:
    """What of a stage the runner must know."""

    name: str
    lanes: tuple[Lane, ...]
    cost: Callable[[Item[Any]], int]
    fallback: Fallback[Any]
    tenant_quota: Callable[[str], int]
    edge: bool = False
    """True for the stage that reads what producers send."""


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
        self._watch = watch or NullWatch()
        self._hook = hook
        self._jitter = jitter
        self._lane_of = {topic: lane for lane in plan.lanes for topic in lane.topics}
        self._partitions = Partitions(settings.careful_window)
        self._batcher = Batcher(plan.lanes, settings.batch, plan.tenant_quota)
        self._committer = Committer(
            source,
            ledger,
            self._partitions,
            clock,
            timeout_s=settings.commit_timeout_s,
            give_up_s=settings.commit_give_up_s,
        )
        self._own_rejects = OwnRejects(settings.dead_letters)
        self._tickets: dict[int, list[Entry]] = {}
        self._next_ticket = 0
        self._solo_ticket = 0
        self._paused: set[TopicPartition] = set()
        self._finished_since_s: float | None = None
        self._retry_commit_at_s = 0.0

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
        self._source.close()
        self._ledger.close()
        self._executor.close(deadline.left_s)

    def abandon(self) -> None:
        """Leave without committing anything: after an error that ends the process."""
        self._forget([log.tp for log in self._partitions])
        self._tickets.clear()
        self._source.close()
        self._ledger.close()
        self._executor.close(0.0)

    def tick(self) -> None:
        """One turn of the loop."""
        self._watch.turn(self._oldest_in_flight_s(), self._batcher.in_flight, len(self._partitions))
        self._poll()
        self._feed()
        self._collect(0.0)
        self._commit_if_due()
        self._balance()

    # -- the listener's side: called from inside poll and close --

    def assigned(self, committed: Mapping[TopicPartition, CommitPoint | None]) -> None:
        """See AssignmentListener."""
        for tp, point in committed.items():
            self._partitions.assign(tp, point)
        self._paused -= set(committed)
        self._watch.rebalance("assigned", len(committed))

    def revoked(self, partitions: Collection[TopicPartition]) -> None:
        """Finish or drop inside one deadline, commit the finished prefix, forget the rest."""
        leaving = {tp for tp in partitions if tp in self._partitions}
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
        if leaving:
            self._publish(leaving, release=True)

    def _forget(self, partitions: Collection[TopicPartition]) -> None:
        self._partitions.drop(partitions)
        self._paused -= set(partitions)
        self._batcher.keep(self._partitions.is_current)

    # -- in --

    def _poll(self) -> None:
        rooms = [self._room(lane) for lane in self._plan.lanes]
        limit = max(1, min((r for r in rooms if r > 0), default=1))
        busy = self._tickets or self._finished_since_s is not None
        timeout_s = 0.003 if busy else 0.01 if self._batcher.waiting else 0.1
        rewinds = self._committer.unknown
        polled = self._source.poll(timeout_s, limit)
        if self._committer.unknown > rewinds:
            # A revoke inside the poll ended in a rewind: nobody knows which records were fetched before it.
            self._committer.rewind()
            self._batcher.keep(self._partitions.is_current)
            return
        for tp, position in polled.ends.items():
            log = self._partitions.get(tp)
            if log is not None:
                log.end = position
        for raw in polled.records:
            if raw.tp in self._partitions:
                self._admit(raw)
        if polled.records:
            self._hook("after_poll")

    def _admit(self, raw: RawRecord) -> None:
        lane = self._lane_of[raw.tp.topic]
        log = self._partitions.get(raw.tp)
        if log is None or (log.next_offset is not None and raw.offset < log.next_offset):
            return
        now_s = self._clock.monotonic_s()
        entry = Entry(raw, log.epoch, lane.name, now_s)
        self._partitions.add(entry)
        read = self._codec.read(raw)
        if isinstance(read, Reject):
            self._finish(entry, read)
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
        careful = self._careful_log(now_s)
        if careful is not None:
            self._feed_careful(careful, now_s)
            return
        if not self._mark_new():
            return
        while self._executor.free_slots() > 0:
            batch = self._batcher.next_batch(now_s)
            if not batch:
                return
            self._submit(batch)

    def _careful_log(self, now_s: float) -> PartitionLog | None:
        """A partition whose last reader did not end well and that has a record to run now.

        One that only waits (a retry not yet due) holds nobody up.
        """
        return next((log for log in self._partitions if log.careful_left > 0 and log.has_due(now_s)), None)

    def _feed_careful(self, log: PartitionLog, now_s: float) -> None:
        """After a crash: one record at a time in the whole process, each noted before it is begun."""
        head = log.entries[0]
        ready = head.state is State.WAITING and head.not_before_s <= now_s
        if self._tickets or not ready or not self._may_commit() or self._executor.free_slots() == 0:
            return
        again = log.committed == head.raw.offset
        if again and log.note.solo >= MAX_KILLS:
            batch = self._batcher.next_solo(head)
            self._batcher.landed(batch)
            self._give_up(head, GiveUpCause.ANALYSIS_CRASH, f"ended the process {log.note.solo} times when run alone")
            log.careful_left -= 1
            return
        if not self._committer.mark([log], solo=True):
            self._after_failed_commit()
            return
        self._hook("after_mark")
        log.careful_left -= 1
        self._submit(self._batcher.next_solo(head))
        self._solo_ticket = self._next_ticket

    def _mark_new(self) -> bool:
        """Note once per assignment that records are begun, so that a successor knows when this process dies."""
        fresh = [log for log in self._partitions if not (log.marked or log.careful_left) and log.has_waiting()]
        if not fresh:
            return True
        if not self._may_commit():
            return False
        if self._committer.mark(fresh, solo=False):
            self._hook("after_mark")
            return True
        self._after_failed_commit()
        return False

    def _submit(self, batch: list[Entry]) -> None:
        self._next_ticket += 1
        self._tickets[self._next_ticket] = batch
        now_s = self._clock.monotonic_s()
        self._watch.batch(len(batch), now_s - batch[0].polled_at_s)
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
            self._split(current, completed.crash)
            return
        outcomes = dict(zip(map(id, batch), completed.outcomes, strict=True))
        if completed.ticket == self._solo_ticket:
            self._came_back(current)
        for entry in current:
            self._finish(entry, outcomes[id(entry)])

    def _came_back(self, entries: list[Entry]) -> None:
        """A record run alone did not end the process: its mark must not count against it at the next try."""
        for entry in entries:
            log = self._partitions.get(entry.tp)
            assert log is not None  # noqa: S101 - the entry is current
            log.note = replace(log.note, solo=log.note.solo - 1)

    def _split(self, entries: list[Entry], crash: str) -> None:
        """The process that held these died: each runs alone now; one that kills twice alone is given up."""
        self._watch.crash(crash)
        again = []
        for entry in entries:
            entry.kills += len(entries) == 1
            entry.alone = True
            if entry.kills >= MAX_KILLS:
                self._give_up(entry, GiveUpCause.ANALYSIS_CRASH, crash)
            else:
                again.append(entry)
        self._batcher.put_back(again)

    # -- outcomes --

    def _finish(self, entry: Entry, outcome: Outcome) -> None:
        match outcome:
            case Emit(outputs=outputs):
                entry.outputs = outputs
                assert entry.item is not None  # noqa: S101 - only decoded entries reach a stage
                self._done(entry, self._codec.write(entry.raw, entry.item, outputs))
            case Reject():
                self._reject(entry, outcome)
            case Defer(scope=DeferScope.ITEM):
                self._defer_item(entry, outcome)
            case Defer():
                self._defer_dependency(entry, outcome)

    def _done(self, entry: Entry, out: tuple[Any, ...]) -> None:
        entry.out = out
        entry.state = State.DONE
        entry.done_at_s = self._clock.monotonic_s()
        if self._finished_since_s is None:
            self._finished_since_s = entry.done_at_s

    def _reject(self, entry: Entry, reject: Reject) -> None:
        if not self._is_producers_fault(reject.code) and not self._accepted(entry):
            entry.own_reject = reject.code
        self._watch.reject(entry.raw, reject)
        self._done(entry, (self._codec.dead_letter(entry.raw, entry.item, reject),))

    def _is_producers_fault(self, code: RejectCode) -> bool:
        return self._plan.edge and code in EDGE_CODES

    def _accepted(self, entry: Entry) -> bool:
        log = self._partitions.get(entry.tp)
        accepted = log is not None and entry.raw.offset < log.note.accept
        if accepted:
            self._watch.accepted(entry.raw)
        return accepted

    def _defer_item(self, entry: Entry, defer: Defer) -> None:
        assert entry.item is not None  # noqa: S101 - only decoded entries reach a stage
        again = self._codec.retry(entry.raw, entry.item)
        self._watch.defer(entry.raw, defer)
        if again is None:
            detail = f"{defer.cause}; asked {entry.item.attempt} times"
            self._reject(entry, Reject(RejectCode.SOURCE_UNAVAILABLE, detail))
        else:
            self._done(entry, (again,))

    def _defer_dependency(self, entry: Entry, defer: Defer) -> None:
        """Nothing moves: the partition waits with a growing, jittered delay, until the item is too old for it."""
        now_s = self._clock.monotonic_s()
        self._watch.defer(entry.raw, defer)
        if entry.deferred_since_s is None:
            entry.deferred_since_s = now_s
        if now_s - entry.deferred_since_s >= self._settings.dependency_max_age_s:
            self._give_up(entry, GiveUpCause.DEPENDENCY_UNAVAILABLE, defer.cause)
            return
        wait_s = min(self._settings.backoff_max_s, self._settings.backoff_first_s * 2.0**entry.defers)
        entry.defers = min(entry.defers + 1, 30)
        entry.not_before_s = now_s + max(defer.retry_after_s, wait_s * (0.5 + 0.5 * self._jitter()))
        self._batcher.put_back([entry])

    def _give_up(self, entry: Entry, cause: GiveUpCause, detail: str) -> None:
        assert entry.item is not None  # noqa: S101 - only decoded entries reach a stage
        self._finish(entry, self._plan.fallback(entry.item, cause, detail))

    # -- out --

    def _commit_if_due(self) -> None:
        if not self._may_commit():
            return
        now_s = self._clock.monotonic_s()
        idle = not self._tickets
        finished = sum(len(log.finished()) for log in self._partitions) if self._finished_since_s is not None else 0
        waited = (
            self._finished_since_s is not None and now_s - self._finished_since_s >= self._settings.commit_interval_s
        )
        ends = idle and any(not log.entries and log.commit_offset(0) is not None for log in self._partitions)
        if finished >= self._settings.commit_max_items or (finished and (waited or idle)) or ends:
            self._publish(None)

    def _may_commit(self) -> bool:
        """False for a moment after a failed commit."""
        return self._clock.monotonic_s() >= self._retry_commit_at_s

    def _publish(self, only: set[TopicPartition] | None, *, release: bool = False) -> None:
        self._check_own_rejects(only)
        self._hook("before_commit")
        before = self._committer.aborts + self._committer.unknown
        started_s = self._clock.monotonic_s()
        committed = self._committer.commit_finished(only, release=release)
        if self._committer.aborts + self._committer.unknown > before:
            self._after_failed_commit()
            return
        if committed.entries:
            self._hook("after_commit")
        self._finished_since_s = min(
            (log.entries[0].done_at_s for log in self._partitions if log.finished()), default=None
        )
        self._watch.committed(committed.entries, self._clock.monotonic_s() - started_s)

    def _check_own_rejects(self, only: set[TopicPartition] | None) -> None:
        """Count what is about to be committed, in its order; past the limit nothing of it is."""
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

    # -- back pressure --

    def _room(self, lane: Lane) -> int:
        return lane.max_held - self._partitions.lane_entries.get(lane.name, 0)

    def _balance(self) -> None:
        """Pause what is full, waiting for a dependency or not yet due; polling goes on."""
        now_s = self._clock.monotonic_s()
        too_many_bytes = self._partitions.held_bytes >= self._settings.max_held_bytes
        wanted = {
            log.tp for log in self._partitions if too_many_bytes or self._room_gone(log) or self._held_back(log, now_s)
        }
        if wanted - self._paused:
            self._source.pause(wanted - self._paused)
        if self._paused - wanted:
            self._source.resume(self._paused - wanted)
        self._paused = wanted

    def _room_gone(self, log: PartitionLog) -> bool:
        """Full at the limit, open again at half of it, so that pausing does not flutter."""
        lane = self._lane_of[log.tp.topic]
        room = self._room(lane)
        return room <= 0 or (log.tp in self._paused and room < lane.max_held // 2)

    def _held_back(self, log: PartitionLog, now_s: float) -> bool:
        head = next((e for e in log.entries if e.state is State.WAITING), None)
        return head is not None and head.not_before_s > now_s

    def _oldest_in_flight_s(self) -> float:
        now_s = self._clock.monotonic_s()
        oldest = [e.polled_at_s for held in self._tickets.values() for e in held]
        return max((now_s - t for t in oldest), default=0.0)
