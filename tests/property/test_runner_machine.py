"""Two members over one broker, and everything that can go wrong: no record is lost, none is answered twice.

The commit is atomic, so at every moment each published record is either still to be read, in exactly one place,
or answered, exactly once. That is checked after every step; at the end the faults stop and all must be answered.
"""

from __future__ import annotations

from collections import Counter, deque
from collections.abc import Callable, Collection, Mapping, Sequence

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from pipeline.streaming.batch import BatchLimits, Lane
from pipeline.streaming.clock import Deadline
from pipeline.streaming.executors.base import Completed
from pipeline.streaming.memory import MemoryBroker
from pipeline.streaming.outcomes import MAX_KILLS
from pipeline.streaming.partitions import Note
from pipeline.streaming.plan import RunnerSettings
from pipeline.streaming.runner import HOOKS
from pipeline.streaming.stage import Defer, DeferScope, GiveUpCause, Item, Outcome, Reject
from pipeline.streaming.transport import (
    CommitAborted,
    CommitPoint,
    Fenced,
    Member,
    OutcomeUnknown,
    OutRecord,
    TopicPartition,
)
from schemas.deadletter import DEAD_LETTER_HEADER, DeadLetter, RejectCode
from schemas.media import MediaReference
from schemas.topics import RETRY_DELAYS_S, Topic
from schemas.wire import decode
from tests.support.streaming import Bench, FakeClock, HeldExecutor, emitted

PARTITIONS = 2
MEMBERS = 2
INPUTS = (Topic.INGEST, *RETRY_DELAYS_S)
TPS = tuple(TopicPartition(t.value, p) for t in INPUTS for p in range(PARTITIONS))
ANSWERS = (Topic.SUSPECT, Topic.ESCALATE)
LANES = (
    Lane("main", (Topic.INGEST.value,), 3, 6),
    *(Lane(t.value, (t.value,), 1, 4, delayed=True) for t in RETRY_DELAYS_S),
)
SETTINGS = RunnerSettings(
    batch=BatchLimits(max_items=2, max_wait_s=0.05), careful_window=3, commit_max_items=2, dependency_max_age_s=120
)
OUTCOMES: dict[str, Callable[[Item[MediaReference]], Outcome]] = {
    "emit": emitted,
    "reject": lambda _: Reject(RejectCode.SOURCE_GONE, "404"),
    "defer item": lambda _: Defer(DeferScope.ITEM, "503"),
    "defer dependency": lambda _: Defer(DeferScope.DEPENDENCY, "store is down"),
}

members = st.integers(0, MEMBERS - 1)
partitions = st.integers(0, PARTITIONS - 1)
tps = st.sampled_from(TPS[:PARTITIONS]) | st.sampled_from(TPS)
delays = st.sampled_from([0.05, 0.5, 5.0, 11.0, 61.0, 601.0])
outcome_kinds = st.lists(st.sampled_from(sorted(OUTCOMES)), min_size=2, max_size=2)


class Died(BaseException):
    """The process is gone, between two instructions."""


class NeverHappened(OutcomeUnknown):
    """The other half of an unknown outcome: the broker did not do it."""


faults = st.lists(st.sampled_from([CommitAborted, OutcomeUnknown, NeverHappened, None]), max_size=2)


class BootClock(FakeClock):
    """A process's clocks: the wall clock is the world's, the monotonic one begins at its start."""

    def __init__(self, world: FakeClock) -> None:
        self._world = world
        self._boot_s = world.now_s - 50.0

    def monotonic_s(self) -> float:
        return self._world.now_s - self._boot_s

    def wall_s(self) -> float:
        return self._world.wall_s()

    def advance(self, seconds: float) -> None:
        self._world.advance(seconds)


class ChosenExecutor(HeldExecutor):
    """As HeldExecutor, with any outcome."""

    def answer(self, which: int, kinds: Sequence[str]) -> None:
        ticket, items = self._pick(which)
        outcomes = tuple(OUTCOMES[kind](item) for kind, item in zip(kinds, items, strict=False))
        self._done.append(Completed(ticket, outcomes))

    def die(self, which: int) -> list[str]:
        ticket, items = self._pick(which)
        self._done.append(Completed(ticket, None, "killed by SIGKILL"))
        return [i.media_id for i in items]

    def _pick(self, which: int) -> tuple[int, list[Item[MediaReference]]]:
        ticket = sorted(self.running)[which % len(self.running)]
        return ticket, self.running.pop(ticket)


class Process:
    """One member's life: a bench, and where it shall end."""

    def __init__(self, broker: MemoryBroker, world: FakeClock, owned: Sequence[TopicPartition]) -> None:
        self.dies_at = ""
        self.executor = ChosenExecutor(slots=3)
        self.bench = Bench(
            settings=SETTINGS,
            executor=self.executor,
            broker=broker,
            clock=BootClock(world),
            hook=self._reached,
            lanes=LANES,
            quota=lambda _: 3,
        )
        self._commit = self.bench.ledger.commit
        self.bench.ledger.commit = self._commit_or_never  # type: ignore[method-assign]  # one more kind of fault
        self.bench.source._pending = list(owned)

    def _reached(self, hook: str) -> None:
        if hook == self.dies_at:
            raise Died

    def _commit_or_never(
        self,
        out: Sequence[OutRecord],
        offsets: Mapping[TopicPartition, CommitPoint],
        member: Member,
        deadline: Deadline,
    ) -> None:
        faults = self.bench.ledger.faults
        if faults and isinstance(faults[0], NeverHappened):
            fault = faults.popleft()
            assert fault is not None
            raise fault
        self._commit(out, offsets, member, deadline)


class Fleet(RuleBasedStateMachine):
    """Members share the input partitions; partitions move, processes and their children die, commits fail."""

    @initialize()
    def begin(self) -> None:
        self.broker = MemoryBroker(PARTITIONS)
        self.world = FakeClock()
        self.owner = {tp: tp.partition % MEMBERS for tp in TPS}
        self.published: list[str] = []
        self.deaths: Counter[str] = Counter()
        self.gave_up: list[tuple[str, GiveUpCause, str]] = []
        self.floor: dict[TopicPartition, int] = {}
        self.processes = [self._start(m) for m in range(MEMBERS)]

    # -- what happens --

    @rule(partition=partitions, tenant=st.sampled_from(["a", "b"]), count=st.integers(1, 4))
    def publish(self, partition: int, tenant: str, count: int) -> None:
        for _ in range(count):
            media_id = f"m{len(self.published)}"
            self.published.append(media_id)
            self.processes[0].bench.publish(media_id, partition=partition, tenant=tenant)

    @rule(partition=partitions)
    def publish_rubbish(self, partition: int) -> None:
        record = self.broker.append(Topic.INGEST.value, b'{"uri":', partition=partition)
        self.published.append(f"kafka-{Topic.INGEST.value}-{partition}-{record.offset}")

    @rule(member=members, times=st.integers(1, 4))
    def turn(self, member: int, times: int) -> None:
        self._guarded(member, lambda: self.processes[member].bench.turn(times))

    @rule(member=members, which=st.integers(0, 7), kinds=outcome_kinds)
    def finish(self, member: int, which: int, kinds: list[str]) -> None:
        executor = self.processes[member].executor
        if executor.running:
            executor.answer(which, kinds)

    @rule(member=members, kinds=outcome_kinds, faults=faults, seconds=delays)
    def work(self, member: int, kinds: list[str], faults: list[type[Exception] | None], seconds: float) -> None:
        """Begin, finish and commit, with a commit that may fail."""
        self._guarded(member, lambda: self.processes[member].bench.turn(2))
        process = self.processes[member]
        while process.executor.running:
            process.executor.answer(0, kinds)
        self.fail_commits(member, faults)
        self._guarded(member, lambda: process.bench.turn(2, seconds))

    @rule(member=members, rounds=st.integers(1, 4))
    def miss_a_dependency(self, member: int, rounds: int) -> None:
        for _ in range(rounds):
            executor = self.processes[member].executor
            while executor.running:
                executor.answer(0, ["defer dependency"] * 2)
            self._guarded(member, lambda: self.processes[member].bench.turn(3, seconds=2.0))

    @rule(member=members, which=st.integers(0, 7))
    def kill_child(self, member: int, which: int) -> None:
        executor = self.processes[member].executor
        if executor.running:
            self.deaths.update(executor.die(which))

    @rule(member=members)
    def kill_process(self, member: int) -> None:
        self._died(member)

    @rule(member=members, hook=st.sampled_from(HOOKS))
    def kill_process_at(self, member: int, hook: str) -> None:
        self.processes[member].dies_at = hook

    @rule(tp=tps, orderly=st.booleans(), finishes=st.booleans())
    def move(self, tp: TopicPartition, orderly: bool, finishes: bool) -> None:
        """Before it first polls, a member holds nothing to give away."""
        giver = self.owner[tp]
        taker = 1 - giver
        self.owner[tp] = taker
        process = self.processes[giver]
        process.executor.on_wait = lambda: self._while_settling(process, finishes)
        source = process.bench.source
        if source._pending:
            source._pending.remove(tp)
        else:
            leave = source.revoke if orderly else source.lose
            self._guarded(giver, lambda: leave([tp]))
            self._left(tp)
        self._take(self.processes[taker], tp)

    @rule(tp=tps, finishes=st.booleans())
    def take_away_and_give_back(self, tp: TopicPartition, finishes: bool) -> None:
        process = self.processes[self.owner[tp]]
        process.executor.on_wait = lambda: self._while_settling(process, finishes)
        source = process.bench.source
        if source._pending:
            return
        lives = self.processes[self.owner[tp]]
        self._guarded(self.owner[tp], lambda: source.revoke([tp]))
        self._left(tp)
        if self.processes[self.owner[tp]] is lives:
            source.assign([tp])

    @rule(member=members, faults=faults)
    def fail_commits(self, member: int, faults: list[type[Exception] | None]) -> None:
        self.processes[member].bench.ledger.faults.extend(f("scripted") if f else None for f in faults)

    @rule(seconds=delays)
    def pass_time(self, seconds: float) -> None:
        self.world.advance(seconds)

    # -- what must hold --

    @invariant()
    def each_record_is_in_one_place(self) -> None:
        places = self._waiting() + self._answered()
        assert places == Counter(self.published)

    @invariant()
    def committed_offsets_never_go_back(self) -> None:
        for tp, point in self.broker.committed.items():
            assert point.offset >= self.floor.get(tp, 0)
            assert point.offset <= len(self.broker.logs[tp])
            self.floor[tp] = point.offset

    @invariant()
    def nobody_is_called_poison_without_two_deaths(self) -> None:
        for media_id, cause, detail in self.gave_up:
            assert cause is not GiveUpCause.ANALYSIS_CRASH or self.deaths[media_id] >= MAX_KILLS, detail

    def teardown(self) -> None:
        for process in self.processes:
            process.bench.ledger.faults = deque()
            process.dies_at = ""
        for _ in range(400):
            if not self._waiting():
                break
            for process in self.processes:
                while process.executor.running:
                    process.executor.answer(0, ["emit", "emit"])
                process.bench.turn(2)
            self.world.advance(7.0)
        assert not self._waiting(), "the faults have stopped, yet something is never answered"
        self.each_record_is_in_one_place()
        self.nobody_is_called_poison_without_two_deaths()

    # -- the world --

    def _start(self, member: int) -> Process:
        process = Process(self.broker, self.world, [tp for tp in TPS if self.owner[tp] == member])
        process.bench.fallbacks = self.gave_up
        return process

    def _guarded(self, member: int, act: Callable[[], None]) -> None:
        try:
            act()
        except (Died, Fenced):
            self._died(member)

    def _died(self, member: int) -> None:
        """Whatever its partitions hold may be what killed it."""
        self.deaths.update(self._waiting({log.tp for log in self.processes[member].bench.runner._partitions}))
        self.processes[member] = self._start(member)

    def _left(self, tp: TopicPartition) -> None:
        """A partition that was left with records noted as begun: the next reader cannot tell it from a death."""
        point = self.broker.committed.get(tp)
        if point and Note.decode(point.note).begun > point.offset:
            self.deaths.update(self._waiting([tp]))

    def _take(self, process: Process, tp: TopicPartition) -> None:
        if process.bench.source._pending:
            if tp not in process.bench.source._pending:
                process.bench.source._pending.append(tp)
        else:
            process.bench.source.assign([tp])

    def _while_settling(self, process: Process, finishes: bool) -> None:
        if finishes and process.executor.running:
            process.executor.answer(0, ["emit", "emit"])
        else:
            self.world.advance(1.0)

    def _waiting(self, among: Collection[TopicPartition] = TPS) -> Counter[str]:
        """Media ids at and after the committed offsets."""
        found: Counter[str] = Counter()
        for tp in among:
            point = self.broker.committed.get(tp)
            for record in self.broker.logs[tp][point.offset if point else 0 :]:
                found[self._media_id(tp, record.offset, record.value)] += 1
        return found

    def _answered(self) -> Counter[str]:
        found: Counter[str] = Counter()
        for topic in ANSWERS:
            found.update((r.key or b"").decode().partition("/")[2] for r in self.broker.records(topic.value))
        for record in self.broker.records(Topic.DEAD_LETTER.value):
            found[decode(DeadLetter, record.header(DEAD_LETTER_HEADER) or b"").media_id] += 1
        return found

    @staticmethod
    def _media_id(tp: TopicPartition, offset: int, value: bytes) -> str:
        if value.endswith(b"}"):
            return decode(MediaReference, value).media_id or ""
        return f"kafka-{tp.topic}-{tp.partition}-{offset}"


Fleet.TestCase.settings = settings(max_examples=200, stateful_step_count=40)
TestFleet = pytest.mark.filterwarnings("error")(Fleet.TestCase)
