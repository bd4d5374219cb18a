"""The one-at-a-time mode of a process whose predecessor did not end well, and waits for a dependency."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

from pipeline.streaming.memory import MemoryBroker
from pipeline.streaming.partitions import Note
from pipeline.streaming.plan import RunnerSettings
from pipeline.streaming.stage import Defer, DeferScope, Item, Outcome
from pipeline.streaming.transport import CommitPoint, OutcomeUnknown, RawRecord, TopicPartition
from schemas.media import MediaReference
from schemas.topics import Topic
from tests.support.streaming import INGEST, Bench, HeldExecutor


def begun(executor: HeldExecutor) -> list[str]:
    return [i.media_id for items in executor.running.values() for i in items]


def left_by_a_dead_process(*media_ids: str) -> Bench:
    """Records that somebody had begun."""
    broker = MemoryBroker()
    first = Bench(broker=broker, executor=HeldExecutor())
    first.publish(*media_ids)
    first.turn(2)
    assert Note.decode(broker.committed[INGEST].note).begun == len(media_ids)
    return Bench(broker=broker)


def with_a_retry_begun() -> tuple[MemoryBroker, float]:
    """`later` waits in the 10 s retry topic, noted as begun; the ingest partition was left in good order."""
    bench = Bench()
    bench.publish("later")
    bench.stage.script["later"].append(Defer(DeferScope.ITEM, "503"))
    bench.turn(6)
    bench.broker.committed[TopicPartition(Topic.RETRY_10S.value, 0)] = CommitPoint(0, Note(begun=1).encode())
    bench.broker.committed[INGEST] = CommitPoint(1)
    return bench.broker, bench.clock.now_s


def test_a_record_that_waits_for_a_dependency_is_not_taken_for_poison() -> None:
    bench = left_by_a_dead_process("a", "b")
    bench.stage.script["a"].extend([Defer(DeferScope.DEPENDENCY, "store is down")] * 5)
    bench.turn(400)
    assert bench.stage.seen.count("a") == 6
    assert bench.fallbacks == []
    assert bench.out(Topic.SUSPECT) == ["a", "b"]


def test_deferrals_do_not_forgive_earlier_deaths() -> None:
    broker = MemoryBroker()
    bench = Bench(broker=broker)
    bench.publish("a")
    broker.committed[INGEST] = CommitPoint(0, Note(begun=1, solo=1).encode())
    bench.stage.script["a"].append(Defer(DeferScope.DEPENDENCY, "store is down"))
    bench.turn(2)
    log = bench.runner._partitions.get(INGEST)
    assert log is not None
    assert log.note.solo == 1
    assert Note.decode(broker.committed[INGEST].note) == Note(begun=1, solo=2), "it was begun a second time"


def test_a_retry_partition_that_is_not_due_does_not_hold_up_the_others() -> None:
    broker, now_s = with_a_retry_begun()
    bench = Bench(broker=broker)
    bench.clock.now_s = now_s
    bench.publish("a", "b", "c")
    bench.turn(10)
    assert bench.out(Topic.SUSPECT) == ["a", "b", "c"]
    bench.turn(100)
    assert bench.out(Topic.SUSPECT) == ["a", "b", "c", "later"]


def test_when_it_is_due_it_runs_alone() -> None:
    broker, now_s = with_a_retry_begun()
    executor = HeldExecutor()
    bench = Bench(broker=broker, executor=executor)
    bench.clock.now_s = now_s
    bench.publish("a")
    bench.turn(3)
    bench.clock.advance(20.0)
    bench.publish("b")
    bench.turn(3)
    assert begun(executor) == ["a"], "b must wait, so that the retry can run with nothing beside it"
    executor.finish("a")
    bench.turn(2)
    assert begun(executor) == ["later"]
    executor.finish("later")
    bench.turn(3)
    assert begun(executor) == ["b"]


def test_deaths_of_a_record_that_is_gone_are_not_counted_against_the_next() -> None:
    broker = MemoryBroker()
    broker.committed[INGEST] = CommitPoint(0, Note(begun=5, solo=2).encode())
    value = b'{"uri":"file:///x","media_id":"next"}'
    broker.logs[INGEST].append(RawRecord(INGEST, 3, None, value))  # retention took 0 to 2
    bench = Bench(broker=broker)
    bench.turn(4)
    assert bench.out(Topic.SUSPECT) == ["next"]
    assert bench.fallbacks == []


def test_waits_for_a_dependency_double_up_to_the_longest() -> None:
    bench = Bench(settings=RunnerSettings(backoff_first_s=1.0, backoff_max_s=4.0, dependency_max_age_s=1000))
    tries: list[float] = []
    process = bench.stage.process

    def timed(batch: Sequence[Item[MediaReference]]) -> Sequence[Outcome]:
        tries.append(bench.clock.now_s)
        return process(batch)

    bench.stage.process = timed  # type: ignore[method-assign]  # to see when
    bench.publish("a")
    bench.stage.script["a"].extend([Defer(DeferScope.DEPENDENCY, "store is down")] * 5)
    bench.turn(200)
    waits = [round(b - a) for a, b in pairwise(tries)]
    assert waits == [1, 2, 4, 4, 4]


def test_a_mark_whose_outcome_is_unknown_is_no_run() -> None:
    """The broker may hold a mark of a run that never began: one death later the record is not poison yet."""
    broker = MemoryBroker()
    broker.committed[INGEST] = CommitPoint(0, Note(begun=1).encode())
    executor = HeldExecutor()
    bench = Bench(broker=broker, executor=executor)
    bench.publish("a")
    bench.ledger.faults.append(OutcomeUnknown("timed out"))
    bench.turn(4)
    assert begun(executor) == ["a"]
    assert Note.decode(broker.committed[INGEST].note).solo == 1
