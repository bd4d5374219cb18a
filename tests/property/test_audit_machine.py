"""Whatever fails, in whatever order: every record gets one leaf, in order, and is handed on before its offset."""

from __future__ import annotations

from contextlib import suppress

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from pipeline.evidence.log.errors import LogUnavailable, NotInLog
from pipeline.media.errors import StoreUnavailable
from pipeline.streaming.transport import TopicPartition
from schemas.topics import Topic
from tests.support.audit import AuditWorld

TPS = [TopicPartition(topic.value, partition) for topic in (Topic.BLOCK, Topic.REVIEWS) for partition in range(2)]


class _CrashError(Exception):
    """What a hook raises where the process would have died."""


class AuditMachine(RuleBasedStateMachine):
    """A world whose log, store and process fail at will."""

    def __init__(self) -> None:
        super().__init__()
        self.world = AuditWorld(partitions=2, overrides={"batch_size": 3, "backoff_first_s": 0.5, "backoff_max_s": 0.5})

    @rule(tp=st.sampled_from(TPS), count=st.integers(1, 40))
    def produce(self, tp: TopicPartition, count: int) -> None:
        self.world.produce(count, tp)

    @rule(times=st.integers(1, 3), seconds=st.sampled_from([0.0, 0.6, 2.0]))
    def turn(self, times: int, seconds: float) -> None:
        self.world.turn(times, seconds)

    @rule(good=st.integers(0, 6))
    def the_log_fails(self, good: int) -> None:
        self.world.storage.faults.extend([None] * good + [LogUnavailable("a fault")])

    @rule(good=st.integers(0, 4))
    def the_store_fails(self, good: int) -> None:
        self.world.store_faults.extend([None] * good + [StoreUnavailable("a fault")])

    @rule(hook=st.sampled_from(["after_poll", "before_append", "after_append", "after_settle", "after_commit"]))
    def the_process_dies(self, hook: str) -> None:
        def die(reached: str) -> None:
            if reached == hook:
                raise _CrashError

        self.world.loop._hook = die
        with suppress(_CrashError):
            self.world.turn(2)
        self.world.restart()

    @rule(tp=st.sampled_from(TPS), lost=st.booleans())
    def a_partition_leaves_and_comes_back(self, tp: TopicPartition, lost: bool) -> None:
        (self.world.source.lose if lost else self.world.source.revoke)([tp])
        self.world.source.assign([tp])

    @precondition(lambda self: self.world.broker.committed)
    @rule(tp=st.sampled_from(TPS))
    def the_group_forgets_an_offset(self, tp: TopicPartition) -> None:
        self.world.broker.committed.pop(tp, None)
        self.world.restart()

    @invariant()
    def the_log_is_a_prefix_of_kafka(self) -> None:
        for tp in TPS:
            assert self.logged(tp) == list(range(len(self.logged(tp))))

    @invariant()
    def what_is_committed_was_logged_and_handed_on(self) -> None:
        for tp in TPS:
            point = self.world.broker.committed.get(tp)
            if point is not None:
                assert len(self.logged(tp)) >= point.offset
                assert {(tp, offset) for offset in range(point.offset)} <= self.world.handed_on

    def teardown(self) -> None:
        self.world.storage.faults.clear()
        self.world.store_faults.clear()
        self.world.restart()
        self.world.turn(30 + sum(len(self.world.broker.logs[tp]) for tp in TPS))
        for tp in TPS:
            produced = len(self.world.broker.logs[tp])
            assert self.logged(tp) == list(range(produced))
            assert self.point(tp) == produced

    def point(self, tp: TopicPartition) -> int:
        point = self.world.broker.committed.get(tp)
        return point.offset if point is not None else 0

    def logged(self, tp: TopicPartition) -> list[int]:
        try:
            return self.world.offsets(f"{tp.topic}/{tp.partition}")
        except NotInLog:
            return []


TestAuditMachine = AuditMachine.TestCase
TestAuditMachine.settings = settings(max_examples=40, stateful_step_count=30)
