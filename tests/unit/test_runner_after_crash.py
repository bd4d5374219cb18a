"""The one-at-a-time mode of a process whose predecessor did not end well."""

from __future__ import annotations

from pipeline.streaming.memory import MemoryBroker
from pipeline.streaming.partitions import Note
from pipeline.streaming.runner import RunnerSettings
from pipeline.streaming.stage import Defer, DeferScope
from pipeline.streaming.transport import CommitPoint, TopicPartition
from schemas.topics import Topic
from tests.support.streaming import INGEST, Bench, HeldExecutor


def dead_letter_free(bench: Bench) -> bool:
    return not bench.broker.records(Topic.DEAD_LETTER.value)


def left_by_a_dead_process(*media_ids: str, settings: RunnerSettings | None = None) -> Bench:
    """Records that somebody had begun."""
    broker = MemoryBroker()
    first = Bench(broker=broker, executor=HeldExecutor())
    first.publish(*media_ids)
    first.turn(2)
    assert Note.decode(broker.committed[INGEST].note).open
    return Bench(broker=broker, settings=settings or RunnerSettings(careful_window=2))


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
    broker.committed[INGEST] = CommitPoint(0, Note(open=True, solo=1).encode())
    bench.stage.script["a"].append(Defer(DeferScope.DEPENDENCY, "store is down"))
    bench.turn(2)
    log = bench.runner._partitions.get(INGEST)
    assert log is not None
    assert log.note.solo == 1
    assert Note.decode(broker.committed[INGEST].note) == Note(open=True, solo=2), "it was begun a second time"


def test_a_retry_partition_that_is_not_due_does_not_hold_up_the_others() -> None:
    broker = MemoryBroker()
    first = Bench(broker=broker)
    first.publish("later")
    first.stage.script["later"].append(Defer(DeferScope.ITEM, "503"))
    first.turn(6)
    retry = TopicPartition(Topic.RETRY_10S.value, 0)
    assert Note.decode(broker.committed[retry].note).open
    second = Bench(broker=broker)
    second.clock.now_s = first.clock.now_s
    second.publish("a", "b", "c")
    second.turn(10)
    assert second.clock.now_s < first.clock.now_s + 8
    assert second.out(Topic.SUSPECT) == ["a", "b", "c"]
    second.turn(100)
    assert second.out(Topic.SUSPECT)[-1] == "later"
    assert dead_letter_free(second)


def test_when_it_is_due_it_still_runs_alone() -> None:
    broker = MemoryBroker()
    first = Bench(broker=broker)
    first.publish("later")
    first.stage.script["later"].append(Defer(DeferScope.ITEM, "503"))
    first.turn(6)
    executor = HeldExecutor()
    second = Bench(broker=broker, executor=executor)
    second.clock.now_s = first.clock.now_s
    second.turn(2)
    second.clock.advance(20.0)
    second.publish("a", "b")
    second.turn(3)
    begun = [[i.media_id for i in items] for items in executor.running.values()]
    assert len(begun) == 1, f"{begun}: neither lane may run beside the other"
