"""Lanes, quotas and memory: one lane's trouble is not another's."""

from __future__ import annotations

from pipeline.streaming.batch import Lane
from pipeline.streaming.memory import MemoryBroker
from pipeline.streaming.partitions import Note
from pipeline.streaming.plan import RunnerSettings
from pipeline.streaming.stage import Defer, DeferScope
from pipeline.streaming.transport import CommitPoint, TopicPartition
from schemas.topics import Topic
from tests.support.streaming import INGEST, Bench, HeldExecutor

INGEST_1 = TopicPartition(Topic.INGEST.value, 1)


def test_retries_that_wait_do_not_pause_fresh_media_by_their_bytes() -> None:
    bench = Bench(settings=RunnerSettings(max_held_bytes=2**20))
    big = b'{"uri":"file:///x","media_id":"big%d","labels":{"a":"' + b"x" * 200 + b'"},"pad":"' + b"y" * 300_000 + b'"}'
    for i in range(3):
        bench.broker.append(Topic.INGEST.value, big % i)
        bench.stage.script[f"big{i}"].append(Defer(DeferScope.ITEM, "down"))
    bench.turn(12)
    assert len(bench.broker.records(Topic.RETRY_10S.value)) == 3
    bench.publish("fresh")
    bench.turn(4)
    assert "fresh" in bench.out(Topic.SUSPECT)


def test_a_retry_partition_whose_records_are_due_is_not_kept_out_by_another_that_waits() -> None:
    lanes = (
        Lane("main", (Topic.INGEST.value,), 8, 64),
        Lane("r", (Topic.RETRY_10S.value,), 4, 4, delayed=True),
    )
    bench = Bench(broker=MemoryBroker(partitions=2), lanes=lanes)
    now_ms = int(bench.clock.wall_s() * 1000)
    for i in range(8):
        for partition, due_s in ((0, 600), (1, 1)):
            media_id = f"p{partition}-{i}"
            ticket = f'{{"attempt":2,"due_ms":{now_ms + due_s * 1000},"origin":"o","since_ms":{now_ms}}}'
            value = f'{{"uri":"file:///x","media_id":"{media_id}"}}'.encode()
            headers = (("mediasieve-retry", ticket.encode()),)
            bench.broker.append(Topic.RETRY_10S.value, value, headers=headers, partition=partition)
    bench.turn(100)
    assert sorted(bench.out(Topic.SUSPECT)) == [f"p1-{i}" for i in range(8)]


def test_retries_do_not_take_the_tenants_share_of_the_main_lane() -> None:
    executor = HeldExecutor(slots=64)
    lanes = (Lane("main", (Topic.INGEST.value,), 8, 64), Lane("r", (Topic.RETRY_10S.value,), 4, 16, delayed=True))
    bench = Bench(executor=executor, lanes=lanes, quota=lambda _: 2)
    for i in range(2):
        value = f'{{"uri":"file:///x","media_id":"retry-{i}"}}'.encode()
        bench.broker.append(Topic.RETRY_10S.value, value)
    bench.publish("fresh-0", "fresh-1", "fresh-2")
    bench.turn(3)
    begun = sorted(i.media_id for items in executor.running.values() for i in items)
    assert begun == ["fresh-0", "fresh-1", "retry-0", "retry-1"]


def test_a_careful_head_that_waits_for_a_dependency_does_not_stop_other_partitions() -> None:
    broker = MemoryBroker(partitions=2)
    broker.committed[INGEST] = CommitPoint(0, Note(begun=2).encode())
    bench = Bench(broker=broker, settings=RunnerSettings(backoff_first_s=15.0))
    bench.publish("stuck", "behind")
    bench.stage.script["stuck"].extend([Defer(DeferScope.DEPENDENCY, "newer envelope")] * 100)
    bench.publish("other", partition=1)
    bench.turn(20)
    assert bench.out(Topic.SUSPECT) == ["other"]
    assert "behind" not in bench.stage.seen, "it may be the one that killed: it runs alone, after the head"


def test_a_deferred_head_does_not_make_its_lane_overdue() -> None:
    executor = HeldExecutor(slots=1)
    lanes = (
        Lane("priority", (Topic.SUSPECT_PRIORITY.value,), 8, 64, weight=8),
        Lane("normal", (Topic.INGEST.value,), 8, 64, max_age_s=1.0),
    )
    bench = Bench(executor=executor, lanes=lanes, edge=False)
    bench.publish(*[f"n{i}" for i in range(4)])
    for i in range(12):
        bench.broker.append(Topic.SUSPECT_PRIORITY.value, f'{{"uri":"file:///x","media_id":"p{i}"}}'.encode())
    bench.turn(20)
    order = []
    for _ in range(10):
        (media_id,) = [i.media_id for items in executor.running.values() for i in items]
        order.append(media_id[0])
        executor.finish(media_id)
        bench.turn(2)
    assert order.count("p") >= 5, "an overdue lane gets every other batch, not all"
    assert order.count("n") >= 3


def test_a_partner_whose_partition_was_lost_does_not_make_its_batch_a_solo_one() -> None:
    from pipeline.streaming.batch import BatchLimits

    executor = HeldExecutor()
    settings = RunnerSettings(batch=BatchLimits(max_items=2, max_wait_s=0))
    bench = Bench(broker=MemoryBroker(partitions=2), executor=executor, settings=settings)
    bench.publish("good")
    bench.publish("bad", partition=1)
    bench.turn(2)
    bench.source.lose([INGEST_1])
    executor.crash("good")
    bench.turn(2)
    executor.crash("good")
    bench.turn(2)
    assert bench.fallbacks == [], "only one death while it ran alone"
    executor.finish("good")
    bench.turn(2)
    assert bench.out(Topic.SUSPECT) == ["good"]


def test_an_offset_below_the_committed_one_ends_the_process() -> None:
    import pytest

    from pipeline.streaming.transport import SourceFailed

    broker = MemoryBroker()
    broker.committed[INGEST] = CommitPoint(5)
    bench = Bench(broker=broker)
    bench.publish("a")
    bench.turn(1)
    bench.source._positions[INGEST] = 0
    with pytest.raises(SourceFailed, match="truncated or made anew"):
        bench.turn(2)
