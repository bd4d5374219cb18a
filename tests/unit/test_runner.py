"""The loop, turned by hand over memory."""

from __future__ import annotations

import pytest

from pipeline.streaming.batch import BatchLimits, Lane
from pipeline.streaming.failure import DeadLetterLimitExceeded, DeadLetterLimits
from pipeline.streaming.memory import MemoryBroker, MemoryLedger, MemorySource
from pipeline.streaming.partitions import Note
from pipeline.streaming.plan import RunnerSettings
from pipeline.streaming.stage import Defer, DeferScope, Emit, GiveUpCause, Reject
from pipeline.streaming.transport import CommitAborted, Fenced, OutcomeUnknown
from schemas.deadletter import DEAD_LETTER_HEADER, DeadLetter, RejectCode
from schemas.topics import RETRY_DELAYS_S, Topic
from schemas.wire import UnknownMajorVersion, decode
from tests.support.streaming import INGEST, Bench, HeldExecutor


def letters(bench: Bench) -> list[DeadLetter]:
    records = bench.broker.records(Topic.DEAD_LETTER.value)
    return [decode(DeadLetter, r.header(DEAD_LETTER_HEADER) or b"") for r in records]


def test_a_record_becomes_a_result_and_its_offset_moves_in_the_same_commit() -> None:
    bench = Bench()
    bench.publish("a")
    bench.turn(3)
    assert bench.out(Topic.SUSPECT) == ["a"]
    with_result = [(out, offsets) for out, offsets in bench.ledger.commits if out]
    assert len(with_result) == 1
    assert with_result[0][1][INGEST].offset == 1


def test_only_the_finished_prefix_is_committed() -> None:
    executor = HeldExecutor()
    bench = Bench(executor=executor)
    bench.publish("a", "b", "c")
    bench.turn(2)
    executor.finish("b")
    executor.finish("c")
    bench.turn(3)
    assert bench.out(Topic.SUSPECT) == []
    assert bench.committed == 0
    executor.finish("a")
    bench.turn(2)
    assert bench.out(Topic.SUSPECT) == ["a", "b", "c"]
    assert bench.committed == 3


def test_another_partition_is_not_held_up_by_an_unfinished_record() -> None:
    executor = HeldExecutor()
    bench = Bench(executor=executor, broker=MemoryBroker(partitions=2))
    bench.publish("slow")
    bench.publish("quick", partition=1)
    bench.turn(2)
    executor.finish("quick")
    bench.turn(2)
    assert bench.out(Topic.SUSPECT) == ["quick"]


def test_an_abort_keeps_the_results_and_commits_them_again() -> None:
    bench = Bench()
    bench.publish("a")
    bench.ledger.faults.extend([None, CommitAborted("x"), CommitAborted("y")])
    bench.turn(6)
    assert bench.stage.seen == ["a"]
    assert bench.out(Topic.SUSPECT) == ["a"]


def test_aborts_for_too_long_end_the_process() -> None:
    bench = Bench(settings=RunnerSettings(commit_give_up_s=1.0))
    bench.publish("a")
    bench.ledger.faults.extend([None, *[CommitAborted("again") for _ in range(50)]])
    with pytest.raises(Fenced, match="aborted for 1 s"):
        bench.turn(50)
    assert bench.out(Topic.SUSPECT) == []


def test_an_unknown_outcome_rewinds_to_what_the_broker_says() -> None:
    bench = Bench()
    bench.publish("a", "b")
    bench.ledger.faults.extend([None, OutcomeUnknown("timed out")])
    bench.turn(6)
    assert bench.out(Topic.SUSPECT) == ["a", "b"], "the commit had happened: nothing may be doubled"
    assert bench.committed == 2


def test_fenced_propagates_and_nothing_is_visible() -> None:
    bench = Bench()
    bench.publish("a")
    bench.ledger.faults.extend([None, Fenced("zombie")])
    with pytest.raises(Fenced):
        bench.turn(4)
    assert bench.out(Topic.SUSPECT) == []


def test_revoke_finishes_what_is_in_flight_inside_the_deadline() -> None:
    executor = HeldExecutor()
    bench = Bench(executor=executor)
    bench.publish("a")
    bench.turn(2)
    executor.on_wait = lambda: executor.finish("a") if executor.running else None
    bench.source.revoke([INGEST])
    assert bench.out(Topic.SUSPECT) == ["a"]
    assert bench.broker.committed[INGEST].note == "", "left in good order: the next reader need not be careful"


def test_revoke_drops_what_does_not_finish_and_discards_its_late_result() -> None:
    executor = HeldExecutor()
    bench = Bench(executor=executor)
    bench.publish("a")
    bench.turn(2)
    executor.on_wait = lambda: bench.clock.advance(1.0)
    bench.source.revoke([INGEST])
    executor.finish("a")
    bench.turn(3)
    assert bench.out(Topic.SUSPECT) == []
    assert bench.committed == 0


def test_a_partition_that_left_and_came_back_takes_no_stale_result() -> None:
    executor = HeldExecutor()
    bench = Bench(executor=executor)
    bench.publish("a")
    bench.turn(2)
    stale = next(iter(executor.running))
    bench.source.lose([INGEST])
    bench.source.assign([INGEST])
    bench.turn(2)
    executor.finish("a")
    bench.turn(2)
    assert stale not in executor.running
    assert bench.out(Topic.SUSPECT) == []
    executor.finish("a")
    bench.turn(2)
    assert bench.out(Topic.SUSPECT) == ["a"]


def test_lost_partitions_commit_nothing() -> None:
    executor = HeldExecutor()
    bench = Bench(executor=executor)
    bench.publish("a")
    bench.turn(2)
    executor.finish("a")
    bench.source.lose([INGEST])
    bench.turn(3)
    assert bench.committed == 0
    assert bench.out(Topic.SUSPECT) == []


def test_with_nothing_in_hand_the_end_of_the_partition_is_committed() -> None:
    bench = Bench()
    bench.publish("a")
    bench.turn(3)
    bench.source.poll = lambda *_: _ends({INGEST: 7})  # type: ignore[method-assign, assignment] - a marker took 1..6
    bench.turn(2)
    assert bench.committed == 7


def _ends(ends: dict) -> object:  # type: ignore[type-arg]
    from pipeline.streaming.transport import Polled

    return Polled((), ends)


def test_a_full_buffer_pauses_and_goes_on_at_half() -> None:
    executor = HeldExecutor(slots=64)
    bench = Bench(executor=executor, lanes=(Lane("main", (Topic.INGEST.value,), 64, 8),))
    bench.publish(*[f"m{i}" for i in range(20)])
    bench.turn(6)
    assert len(executor.running) == 8
    assert bench.source.paused == {INGEST}
    for i in range(3):
        executor.finish(f"m{i}")
    bench.turn(2)
    assert bench.source.paused == {INGEST}, "room for 3 of 8 is below half"
    for i in range(3, 5):
        executor.finish(f"m{i}")
    bench.turn(4)
    assert len(executor.running) > 3


def test_unreadable_input_is_dead_lettered_byte_for_byte() -> None:
    bench = Bench()
    bench.broker.append(Topic.INGEST.value, b'{"uri":', headers=(("x", b"1"),))
    bench.publish("b")
    bench.turn(4)
    record = bench.broker.records(Topic.DEAD_LETTER.value)[0]
    assert record.value == b'{"uri":'
    assert record.headers[0] == ("x", b"1")
    assert letters(bench)[0].code is RejectCode.TRUNCATED_JSON
    assert letters(bench)[0].media_id == "kafka-media.ingest-0-0"
    assert bench.out(Topic.SUSPECT) == ["b"]


def test_producers_cannot_halt_the_fleet() -> None:
    bench = Bench(settings=RunnerSettings(dead_letters=DeadLetterLimits(max_consecutive=3, window=10)))
    for _ in range(30):
        bench.broker.append(Topic.INGEST.value, b"rubbish")
    bench.turn(20)
    assert len(letters(bench)) == 30


def test_a_bad_producer_fills_the_dead_letters_with_4_kib_each_at_most_past_its_rate() -> None:
    bench = Bench(settings=RunnerSettings(dead_letters=DeadLetterLimits(source_full_per_minute=2)))
    for _ in range(4):
        bench.broker.append(Topic.INGEST.value, b"x" * 10_000)
    bench.turn(8, seconds=0.01)
    assert [len(v) for v in bench.broker.values(Topic.DEAD_LETTER.value)] == [10_000, 10_000, 4096, 4096]
    assert [x.value_truncated for x in letters(bench)] == [False, False, True, True]
    assert {x.value_bytes for x in letters(bench)} == {10_000}


def test_own_rejects_in_a_row_stop_the_process_with_nothing_committed() -> None:
    limits = DeadLetterLimits(max_consecutive=3)
    bench = Bench(settings=RunnerSettings(dead_letters=limits), edge=False)
    for _ in range(3):
        bench.broker.append(Topic.INGEST.value, b"rubbish")
    with pytest.raises(DeadLetterLimitExceeded, match=r"media.ingest\[0\]@2 .*deadletter accept --stage classifier"):
        bench.turn(5)
    assert letters(bench) == []
    assert bench.committed == -1


def test_a_share_of_own_rejects_stops_the_process() -> None:
    limits = DeadLetterLimits(max_consecutive=100, max_ratio=0.5, window=10)
    bench = Bench(settings=RunnerSettings(dead_letters=limits), edge=False)
    for i in range(10):
        bench.publish(f"m{i}")
        bench.broker.append(Topic.INGEST.value, b"rubbish")
    with pytest.raises(DeadLetterLimitExceeded, match="50%"):
        bench.turn(40)


def test_an_unexpected_code_counts_even_at_the_edge() -> None:
    bench = Bench(settings=RunnerSettings(dead_letters=DeadLetterLimits(max_consecutive=1)))
    bench.publish("a")
    bench.stage.script["a"].append(Reject(RejectCode.UNEXPECTED, "?"))
    with pytest.raises(DeadLetterLimitExceeded):
        bench.turn(3)


def test_accepted_dead_letters_do_not_count() -> None:
    bench = Bench(settings=RunnerSettings(dead_letters=DeadLetterLimits(max_consecutive=2)), edge=False)
    from pipeline.streaming.transport import CommitPoint

    bench.broker.committed[INGEST] = CommitPoint(0, Note(accept=5).encode())
    for _ in range(5):
        bench.broker.append(Topic.INGEST.value, b"rubbish")
    bench.turn(10)
    assert len(letters(bench)) == 5
    bench.broker.append(Topic.INGEST.value, b"rubbish")
    bench.broker.append(Topic.INGEST.value, b"rubbish")
    with pytest.raises(DeadLetterLimitExceeded):
        bench.turn(5)


def test_a_newer_major_version_stops_an_internal_reader_but_not_the_edge() -> None:
    newer = b'{"schema_version":"2.0","uri":"file:///x"}'
    bench = Bench(edge=False)
    bench.broker.append(Topic.INGEST.value, newer)
    with pytest.raises(UnknownMajorVersion):
        bench.turn(2)
    assert bench.ledger.commits == []
    edge = Bench()
    edge.broker.append(Topic.INGEST.value, newer)
    edge.turn(3)
    assert letters(edge)[0].code is RejectCode.UNSUPPORTED_VERSION


def test_an_item_goes_up_the_retry_ladder_and_then_to_the_dead_letters() -> None:
    bench = Bench()
    bench.publish("a", "b")
    bench.stage.script["a"].extend([Defer(DeferScope.ITEM, "host is down")] * 4)
    bench.turn(3)
    assert bench.out(Topic.SUSPECT) == ["b"], "neighbours go on"
    assert len(bench.broker.records(Topic.RETRY_10S.value)) == 1
    assert bench.stage.seen.count("a") == 1
    bench.turn(20, seconds=0.4)
    assert bench.stage.seen.count("a") == 1, "not due before 10 s"
    bench.turn(20, seconds=0.4)
    assert bench.stage.seen.count("a") == 2
    bench.turn(20, seconds=4.0)
    assert bench.stage.seen.count("a") == 3
    bench.turn(40, seconds=20.0)
    assert bench.stage.seen.count("a") == 4
    letter = letters(bench)[0]
    assert (letter.code, letter.attempts, letter.media_id) == (RejectCode.SOURCE_UNAVAILABLE, 4, "a")
    for topic in RETRY_DELAYS_S:
        assert bench.broker.values(topic.value) == [bench.broker.values(Topic.INGEST.value)[0]]


def test_a_minted_media_id_survives_the_retry_ladder() -> None:
    bench = Bench()
    bench.broker.append(Topic.INGEST.value, b'{"uri":"file:///x"}')
    minted = "kafka-media.ingest-0-0"
    bench.stage.script[minted].append(Defer(DeferScope.ITEM, "down"))
    bench.turn(3)
    bench.turn(40, seconds=0.4)
    assert bench.stage.seen == [minted, minted]


def test_a_retry_partition_waits_paused_until_its_head_is_due() -> None:
    bench = Bench()
    bench.publish("a")
    bench.stage.script["a"].append(Defer(DeferScope.ITEM, "down"))
    bench.turn(6)
    assert {tp.topic for tp in bench.source.paused} == {Topic.RETRY_10S.value}
    bench.turn(40, seconds=0.4)
    assert bench.source.paused == set()


def test_a_missing_dependency_moves_nothing_and_backs_off() -> None:
    bench = Bench(settings=RunnerSettings(backoff_first_s=1.0, backoff_max_s=4.0))
    bench.publish("a", "b")
    bench.stage.script["a"].extend([Defer(DeferScope.DEPENDENCY, "store is down")] * 3)
    bench.turn(5)
    assert bench.committed == 0
    assert INGEST in bench.source.paused
    assert bench.stage.seen.count("a") == 1
    bench.turn(8)
    assert bench.stage.seen.count("a") == 2
    bench.turn(80)
    assert bench.out(Topic.SUSPECT) == ["a", "b"]
    assert bench.source.paused == set()


def test_a_dependency_that_stays_away_escalates_the_item() -> None:
    bench = Bench(settings=RunnerSettings(dependency_max_age_s=5.0))
    bench.publish("a")
    bench.stage.script["a"].extend([Defer(DeferScope.DEPENDENCY, "store is down")] * 1000)
    bench.turn(200)
    assert bench.out(Topic.ESCALATE) == ["a"]
    assert bench.fallbacks == [("a", GiveUpCause.DEPENDENCY_UNAVAILABLE, "store is down")]


def test_a_dead_process_splits_only_its_own_batch_and_two_kills_alone_escalate() -> None:
    executor = HeldExecutor()
    bench = Bench(executor=executor, settings=RunnerSettings(batch=BatchLimits(max_items=2, max_wait_s=0)))
    bench.publish("poison", "b", "c", "d")
    bench.turn(2)
    executor.crash("poison")
    bench.turn(2)
    assert sorted(len(items) for items in executor.running.values()) == [1, 1, 2]
    for _ in range(2):
        executor.crash("poison")
        bench.turn(2)
    for media_id in ("b", "c"):
        executor.finish(media_id)
    bench.turn(3)
    assert bench.fallbacks == [("poison", GiveUpCause.ANALYSIS_CRASH, "killed by SIGKILL")]
    assert bench.out(Topic.ESCALATE) == ["poison"]
    assert bench.out(Topic.SUSPECT) == ["b", "c", "d"]


class Died(BaseException):
    """The process is gone."""


def _run_until_death(broker: MemoryBroker, poison: str) -> Bench:
    """One life of a consumer in whose process `poison` is deadly."""
    bench = Bench(broker=broker)

    def process(batch: list) -> list:  # type: ignore[type-arg]
        if any(item.media_id == poison for item in batch):
            raise Died
        return healthy(batch)

    healthy = bench.stage.process
    bench.stage.process = process  # type: ignore[method-assign, assignment]
    bench.clock.now_s += 1000
    try:
        bench.turn(200)
    except Died:
        return bench
    return bench


def test_a_record_that_kills_the_consumer_itself_is_found_and_escalated() -> None:
    broker = MemoryBroker()
    feeder = Bench(broker=broker)
    feeder.publish("a", "b", "poison", "c", "d")
    lives = 0
    bench = feeder
    while bench.committed < 5:
        lives += 1
        assert lives < 8, "it never gets past the poison"
        bench = _run_until_death(broker, "poison")
    assert bench.out(Topic.ESCALATE) == ["poison"]
    assert sorted(bench.out(Topic.SUSPECT)) == ["a", "b", "c", "d"]
    assert bench.fallbacks[0][1] is GiveUpCause.ANALYSIS_CRASH
    assert lives <= 4


def test_after_a_crash_the_first_records_run_one_at_a_time() -> None:
    broker = MemoryBroker()
    first = Bench(broker=broker, executor=HeldExecutor(), settings=RunnerSettings(careful_window=2))
    first.publish("a", "b", "c", "d")
    first.turn(2)
    executor = HeldExecutor()
    second = Bench(broker=broker, executor=executor)
    second.turn(3)
    assert len(executor.running) == 1
    executor.finish("a")
    second.turn(3)
    assert len(executor.running) == 1
    executor.finish("b")
    second.turn(3)
    assert len(executor.running) == 2


def test_drain_commits_what_is_finished_and_leaves_a_clean_note() -> None:
    bench = Bench()
    bench.publish("a", "b")
    bench.turn(1)
    bench.runner.drain()
    assert bench.out(Topic.SUSPECT) == ["a"], "b was not begun, the next reader takes it"
    assert bench.broker.committed[INGEST].offset == 1
    assert bench.broker.committed[INGEST].note == ""


def test_one_tenant_cannot_take_every_slot() -> None:
    executor = HeldExecutor()
    bench = Bench(executor=executor, quota=lambda tenant: 2)
    bench.publish("a1", "a2", "a3", "a4", tenant="a")
    bench.publish("b1", tenant="b")
    bench.turn(3)
    assert sorted(i.media_id for items in executor.running.values() for i in items) == ["a1", "a2", "b1"]


def test_every_hook_of_the_loop_is_called() -> None:
    from pipeline.streaming.runner import HOOKS

    called: set[str] = set()
    bench = Bench(hook=called.add)
    bench.publish("a")
    bench.turn(4)
    assert called == set(HOOKS)


def test_an_emit_without_outputs_still_moves_the_offset() -> None:
    bench = Bench()
    bench.publish("a")
    bench.stage.script["a"].append(Emit(()))
    bench.turn(3)
    assert bench.committed == 1


def test_memory_stays_small_after_many_records() -> None:
    bench = Bench()
    for i in range(300):
        bench.publish(f"m{i}")
    bench.turn(320)
    assert len(bench.out(Topic.SUSPECT)) == 300
    assert set(bench.runner._partitions.lane_bytes.values()) == {0}
    assert set(bench.runner._partitions.lane_entries.values()) == {0}
    assert isinstance(bench.source, MemorySource)
    assert isinstance(bench.ledger, MemoryLedger)


def test_rejects_of_ours_wait_for_something_good_behind_them() -> None:
    bench = Bench(edge=False)
    bench.broker.append(Topic.INGEST.value, b"rubbish")
    bench.turn(20, seconds=0.1)
    assert letters(bench) == [], "there may be more, and then none goes out"
    bench.publish("good")
    bench.turn(3)
    assert (len(letters(bench)), bench.committed) == (1, 2)


def test_a_lone_reject_of_ours_goes_out_after_a_while() -> None:
    bench = Bench(edge=False)
    bench.broker.append(Topic.INGEST.value, b"rubbish")
    bench.turn(120, seconds=0.1)
    assert (len(letters(bench)), bench.committed) == (1, 1)
