"""Rebalances and rewinds: what is dropped is neither run nor committed, what stays is not disturbed."""

from __future__ import annotations

from collections.abc import Callable

from pipeline.streaming.memory import MemoryBroker
from pipeline.streaming.partitions import Note
from pipeline.streaming.transport import OutcomeUnknown, Polled, TopicPartition
from schemas.topics import Topic
from tests.support.streaming import INGEST, Bench, HeldExecutor

OTHER = TopicPartition(Topic.INGEST.value, 1)


def begun(executor: HeldExecutor) -> list[str]:
    return sorted(i.media_id for items in executor.running.values() for i in items)


def with_a_revoke_inside_the_next_poll(bench: Bench) -> None:
    """The poll has fetched its records already when partition 1 leaves."""
    poll = bench.source.poll

    def poll_then_revoke(timeout_s: float, limit: int) -> Polled:
        bench.source.poll = poll  # type: ignore[method-assign]  # for once
        polled = poll(timeout_s, limit)
        bench.source.revoke([OTHER])
        return polled

    bench.source.poll = poll_then_revoke  # type: ignore[method-assign]  # for once


def a_on_0_in_flight_and_b_on_1_finished() -> tuple[Bench, HeldExecutor]:
    executor = HeldExecutor()
    bench = Bench(executor=executor, broker=MemoryBroker(partitions=2))
    bench.publish("a")
    bench.publish("b", partition=1)
    bench.turn(2)
    executor.finish("b")
    return bench, executor


def test_records_fetched_before_a_rewind_do_not_hide_those_before_them() -> None:
    bench, executor = a_on_0_in_flight_and_b_on_1_finished()
    bench.publish("c")
    bench.ledger.faults.append(OutcomeUnknown("timed out"))
    with_a_revoke_inside_the_next_poll(bench)
    executor.on_wait = lambda: bench.clock.advance(1.0)
    bench.turn(4)
    for media_id in ("a", "a", "c"):
        if any(i.media_id == media_id for items in executor.running.values() for i in items):
            executor.finish(media_id)
        bench.turn(2)
    assert sorted(bench.out(Topic.SUSPECT)) == ["a", "b", "c"]
    assert bench.committed == 2


def test_an_end_seen_before_a_rewind_is_not_committed() -> None:
    bench, executor = a_on_0_in_flight_and_b_on_1_finished()
    executor.finish("a")
    poll = bench.source.poll
    bench.ledger.commit = never_once(bench.ledger.commit, bench)  # type: ignore[method-assign]  # for once
    bench.source.poll = lambda *_: Polled((), {INGEST: 1})  # type: ignore[method-assign]  # "a" has been read
    with_a_revoke_inside_the_next_poll(bench)
    bench.turn(1)
    bench.source.poll = lambda *_: Polled()  # type: ignore[method-assign]  # the next fetch takes its time
    bench.turn(3)
    assert bench.committed == 0
    bench.source.poll = poll  # type: ignore[method-assign]  # as it was
    bench.turn(2)
    executor.finish("a")
    bench.turn(2)
    assert bench.out(Topic.SUSPECT) == ["a"]


def never_once(commit: Callable[..., None], bench: Bench) -> Callable[..., None]:
    """A commit of unknown outcome that had not happened, then good ones."""

    def once(*_: object) -> None:
        bench.ledger.commit = commit  # type: ignore[method-assign]  # for once
        raise OutcomeUnknown("timed out")

    return once


def test_a_record_that_is_delivered_twice_is_answered_once() -> None:
    executor = HeldExecutor()
    bench = Bench(executor=executor)
    bench.publish("a", "b")
    bench.turn(3)
    bench.source._positions[INGEST] = 0
    bench.turn(2)
    assert begun(executor) == ["a", "b"]


def one_slot() -> tuple[Bench, HeldExecutor]:
    """`a` runs, `b` and `c` wait."""
    executor = HeldExecutor(slots=1)
    bench = Bench(executor=executor)
    bench.publish("a", "b", "c")
    bench.turn(4)
    assert begun(executor) == ["a"]
    return bench, executor


def test_waiting_records_of_a_lost_partition_are_not_begun() -> None:
    bench, executor = one_slot()
    bench.source.lose([INGEST])
    executor.finish("a")
    bench.turn(3)
    assert begun(executor) == []


def test_waiting_records_of_before_a_rewind_are_not_begun() -> None:
    bench, executor = one_slot()
    bench.source.poll = lambda *_: Polled()  # type: ignore[method-assign]  # the next fetch takes its time
    executor.finish("a")
    bench.ledger.faults.append(OutcomeUnknown("timed out"))
    executor.slots = 0
    bench.turn(1)
    executor.slots = 1
    bench.turn(3)
    assert begun(executor) == []


def test_partitions_that_stay_keep_their_note_when_others_leave() -> None:
    bench, executor = a_on_0_in_flight_and_b_on_1_finished()
    executor.finish("a")
    bench.source.revoke([OTHER])
    assert Note.decode(bench.broker.committed[OTHER].note) == Note()
    assert Note.decode(bench.broker.committed[INGEST].note) == Note(begun=1)
    assert bench.out(Topic.SUSPECT) == ["b"]
    bench.turn(2)
    assert sorted(bench.out(Topic.SUSPECT)) == ["a", "b"]
