"""The audit worker's loop: what is in the log, and when nothing may be."""

from __future__ import annotations

import pytest

from pipeline.evidence.log.errors import LogUnavailable, Superseded
from pipeline.media.errors import ContentCorrupt, StoreUnavailable
from pipeline.streaming.transport import CommitPoint, TopicPartition
from schemas.topics import AUDITED_TOPICS, Topic
from tests.support.audit import BLOCKS, ORIGIN, TREE, AuditWorld


def test_every_record_of_every_audited_topic_becomes_one_leaf() -> None:
    world = AuditWorld(partitions=2)
    tps = [TopicPartition(topic.value, partition) for topic in AUDITED_TOPICS for partition in range(2)]
    for number, tp in enumerate(tps, 1):
        world.produce(number, tp)
    world.settle()
    for number, tp in enumerate(tps, 1):
        leaves = world.leaves(f"{tp.topic}/{tp.partition}")
        assert [leaf.offset for leaf in leaves] == list(range(number))
        assert {(leaf.topic, leaf.partition) for leaf in leaves} == {(tp.topic, tp.partition)}
        assert world.broker.committed[tp].offset == number
    assert len(world.logged) == sum(range(1, len(tps) + 1))
    assert world.count("mediasieve_audit_leaves_total", Topic.BLOCK) == 1 + 2


def test_a_batch_is_written_when_it_is_full_or_old_enough() -> None:
    world = AuditWorld(overrides={"batch_size": 4, "checkpoint_age_s": 10.0})
    world.produce(3)
    world.turn(seconds=9.0)
    world.turn(seconds=2.0)
    assert "before_append" not in world.hooks, "9 s old"
    world.turn()
    assert world.offsets() == [0, 1, 2], "11 s old"
    world.produce(4)
    world.turn(seconds=0.0)
    assert world.offsets() == list(range(7)), "full"


@pytest.mark.parametrize("good_writes", range(4))
def test_a_log_that_is_away_costs_a_wait_and_no_leaf(good_writes: int) -> None:
    world = AuditWorld(overrides={"backoff_first_s": 5.0})
    world.turn()  # opens the trees, which writes too
    world.produce(3)
    world.storage.faults.extend([None] * good_writes + [LogUnavailable("the disk is full")])
    world.turn(3, seconds=1.0)
    assert world.count("mediasieve_audit_waits_total", Topic.BLOCK) == (good_writes < 3)
    world.produce(2)
    world.turn(6, seconds=5.0)
    assert world.offsets() == list(range(5))
    assert [offset for _, offset in world.logged] == list(range(5))
    assert world.broker.committed[BLOCKS].offset == 5


def test_the_checkpoints_age_is_that_of_the_oldest_record_without_one_though_its_log_is_away() -> None:
    world = AuditWorld(overrides={"backoff_first_s": 30.0, "checkpoint_age_s": 1.0})
    world.turn()
    assert world.age() == 0.0
    world.produce(3)
    world.storage.faults.append(LogUnavailable("the disk is full"))
    world.turn(4, seconds=5.0)
    assert world.age() >= 10.0, "held, not forgotten"
    world.turn(10, seconds=5.0)
    assert world.age() == 0.0
    made_s = world.metrics.registry.get_sample_value("mediasieve_audit_checkpoint_timestamp_seconds")
    assert made_s == pytest.approx(world.clock.wall_s(), abs=60.0)


def test_waits_double_up_to_the_longest_and_are_forgotten_after_a_success() -> None:
    world = AuditWorld(overrides={"backoff_first_s": 1.0, "backoff_max_s": 4.0})
    world.produce(1)
    world.storage.away = True
    opened_at_s = []
    for _ in range(40):
        before = world.waits
        now_s = world.clock.now_s
        world.turn(seconds=0.5)
        if world.waits > before:
            opened_at_s.append(now_s - 1_000.0)
    assert opened_at_s == [0.0, 1.0, 3.0, 7.0, 11.0, 15.0, 19.0]
    world.storage.away = False
    world.turn(12, seconds=0.5)
    assert world.offsets() == [0]
    world.produce(1)
    world.storage.faults.append(LogUnavailable("again"))
    world.turn(8, seconds=0.6)
    assert world.offsets() == [0, 1], "the first wait again, not the longest"


def test_a_log_that_cannot_be_opened_is_tried_again() -> None:
    world = AuditWorld()
    world.produce(2)
    world.storage.away = True
    world.turn(3)
    assert world.source.starts == []
    world.storage.away = False
    world.turn(6)
    assert world.offsets() == [0, 1]


def test_retention_that_is_away_holds_the_offset_and_not_the_log() -> None:
    world = AuditWorld()
    world.produce(3)
    world.store_faults.extend([None, StoreUnavailable("503")])
    world.turn(2)
    assert world.offsets() == [0, 1, 2], "the leaves do not wait for the archive"
    assert BLOCKS not in world.broker.committed
    world.settle()
    assert world.offsets() == [0, 1, 2]
    assert [offset for _, offset in world.logged] == [0, 0, 1, 2]
    assert world.broker.committed[BLOCKS].offset == 3


def test_another_writer_ends_this_one() -> None:
    world = AuditWorld()
    world.produce(2)
    world.settle()
    other = world.open_log(TREE)
    other.append([world.leaves()[0].model_copy(update={"offset": 2}).encode()])
    world.produce(3)
    with pytest.raises(Superseded):
        world.settle()
    world.loop.abandon(Superseded())
    assert world.offsets() == [0, 1, 2], "what the other wrote, and no more"
    assert world.broker.committed[BLOCKS].offset == 2


def test_a_lost_partition_is_dropped_and_a_revoked_one_is_finished() -> None:
    world = AuditWorld(overrides={"checkpoint_age_s": 100.0})
    world.produce(2)
    world.turn()
    world.source.lose([BLOCKS])
    world.turn(3)
    assert world.offsets() == []
    world.source.assign([BLOCKS])
    world.turn(2)
    world.source.revoke([BLOCKS])
    assert world.offsets() == [0, 1]
    assert world.broker.committed[BLOCKS].offset == 2
    world.turn(3)
    assert len(world.leaves()) == 2


def test_a_failure_while_partitions_leave_is_raised_by_the_turn_and_commits_nothing() -> None:
    world = AuditWorld(overrides={"checkpoint_age_s": 100.0})
    world.produce(2)
    world.turn()
    world.storage.faults.append(Superseded("moved"))
    world.source.revoke([BLOCKS])
    assert BLOCKS not in world.broker.committed
    with pytest.raises(Superseded):
        world.turn()


def test_an_archive_that_differs_while_partitions_leave_is_raised_by_the_turn() -> None:
    world = AuditWorld(overrides={"checkpoint_age_s": 100.0})
    world.produce(2)
    world.turn()
    world.store_faults.append(ContentCorrupt("other bytes"))  # type: ignore[arg-type]
    world.source.revoke([BLOCKS])
    with pytest.raises(ContentCorrupt):
        world.turn()


def test_the_end_of_a_partition_is_committed_when_nothing_waits_below_it() -> None:
    world = AuditWorld()
    world.turn()
    assert world.broker.committed[BLOCKS] == CommitPoint(0, f"{ORIGIN}@-1")
    world.produce(3)
    world.broker.logs[BLOCKS].pop(1)  # offsets 0 and 2, and the end at 2: a marker's gap
    world.turn(3)
    assert world.offsets() == [0, 2]


def test_a_commit_that_was_refused_is_sent_again_though_nothing_new_comes() -> None:
    world = AuditWorld()
    world.produce(3)
    world.source.refusing = True
    world.settle()
    assert BLOCKS not in world.broker.committed
    world.source.refusing = False
    world.turn()
    assert world.broker.committed[BLOCKS] == CommitPoint(3, f"{ORIGIN}@2")
    sent = len(world.source.commits)
    world.turn(3)
    assert len(world.source.commits) == sent, "and then no more"


def test_one_partition_without_a_leader_holds_up_no_other() -> None:
    world = AuditWorld(partitions=3, overrides={"backoff_first_s": 5.0})
    silent = TopicPartition(Topic.BLOCK.value, 0)
    world.source.silent.add(silent)
    world.turn(3)
    assert {tp for tp, _ in world.source.starts} == set(world.source._positions) - {silent}
    world.source.silent.clear()
    world.turn(8)
    assert silent in {tp for tp, _ in world.source.starts}


def test_a_slow_archive_is_no_stalled_worker() -> None:
    """The loop's pulse beats between slices of one batch."""
    world = AuditWorld(overrides={"batch_size": 1000})
    beats = []
    world.loop._on_logged = lambda _topic, records: beats.append((len(records), world.watch.pulses))
    world.produce(950)
    world.settle()
    assert [size for size, _ in beats] == [*[100] * 9, 50]
    assert len({pulses for _, pulses in beats}) == 10


def test_a_tree_that_fills_a_tile_removes_what_it_replaced() -> None:
    world = AuditWorld()
    world.produce(200)
    world.settle()
    world.produce(200)
    world.settle()
    assert world.offsets() == list(range(400))


def test_brokers_that_do_not_answer_are_asked_again() -> None:
    world = AuditWorld()
    world.produce(2)
    world.source.answers = False
    world.turn(3)
    world.source.answers = True
    world.source.not_yet = 3
    world.settle()
    assert world.offsets() == [0, 1]


def test_stopping_logs_what_waits() -> None:
    world = AuditWorld(overrides={"checkpoint_age_s": 100.0})
    world.produce(2)
    turns = iter([False, False, True])
    world.loop.run(lambda: next(turns))
    assert world.offsets() == [0, 1]
    assert world.broker.committed[BLOCKS].offset == 2
