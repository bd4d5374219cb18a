"""Where an audit worker goes on: its log against what Kafka keeps and what the group has committed."""

from __future__ import annotations

import pytest

from pipeline.evidence.log.verify_all import verify_all
from pipeline.media.errors import StoreUnavailable
from pipeline.streaming.transport import CommitPoint
from tests.support.audit import BLOCKS, ORIGIN, TREE, AuditWorld
from workers.audit.errors import AuditContradiction, AuditGap
from workers.audit.settings import GapPolicy


def test_a_restart_goes_on_behind_the_last_leaf_and_looks_at_it_again() -> None:
    world = AuditWorld()
    world.produce(5)
    world.settle()
    world.restart()
    world.produce(2)
    world.settle()
    assert world.source.starts[0] == (BLOCKS, 4), "the last logged record is read again, and compared"
    assert world.offsets() == list(range(7))
    assert world.broker.committed[BLOCKS] == CommitPoint(7, f"{ORIGIN}@6")


def test_a_client_that_reads_from_the_beginning_in_spite_of_its_seek_is_no_contradiction(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """It happens when the answer to its question for the first offset comes after the seek."""
    world = AuditWorld()
    world.produce(5)
    world.settle()
    world.logged.clear()
    world.restart()
    start = world.source.start
    monkeypatch.setattr(world.source, "start", lambda tp, _: start(tp, 0))
    world.produce(2)
    world.settle()
    assert world.offsets() == list(range(7))
    assert [offset for _, offset in world.logged] == [5, 6]
    assert world.broker.committed[BLOCKS] == CommitPoint(7, f"{ORIGIN}@6")


def test_what_the_log_has_and_kafka_did_not_commit_is_not_logged_twice_but_handed_on_again() -> None:
    world = AuditWorld()
    world.produce(5)
    world.settle()
    world.broker.committed[BLOCKS] = CommitPoint(2, f"{ORIGIN}@1")  # the crash came between append and commit
    world.logged.clear()
    world.restart()
    world.settle()
    assert world.offsets() == list(range(5))
    assert [offset for _, offset in world.logged] == [2, 3, 4]


def test_a_group_without_offsets_hands_everything_on_again_and_logs_nothing_twice() -> None:
    world = AuditWorld()
    world.produce(5)
    world.settle()
    world.broker.committed.clear()
    world.restart()
    world.settle()
    assert world.offsets() == list(range(5))
    assert [offset for _, offset in world.logged] == [*range(5), *range(5)]


def test_removed_records_stop_the_worker_and_the_message_says_how_to_go_on() -> None:
    world = AuditWorld()
    world.produce(3)
    world.settle()
    world.produce(7)
    world.source.lows[BLOCKS] = 8
    lows = world.source.lows
    world.restart()
    world.source.lows = lows
    with pytest.raises(AuditGap, match=r"offsets 3 to 7 .*mediasieve audit accept-gap decisions.block 0 --until 8"):
        world.turn()
    assert world.offsets() == [0, 1, 2]
    world.overrides["gap"] = GapPolicy.RECORD
    world.restart()
    world.source.lows = lows
    world.settle()
    assert [(leaf.offset, leaf.gap_from) for leaf in world.leaves()][3:] == [(7, 3), (8, None), (9, None)]
    world.restart()
    world.source.lows = lows
    world.settle()
    assert world.offsets() == [0, 1, 2, 7, 8, 9], "the gap is told once"


def test_markers_that_retention_removed_are_no_gap() -> None:
    world = AuditWorld()
    world.produce(3)
    world.settle()
    world.broker.committed[BLOCKS] = CommitPoint(6, f"{ORIGIN}@2")  # three markers behind the last record
    world.produce(5)
    world.restart()
    world.source.lows[BLOCKS] = 6
    world.settle()
    assert world.offsets() == [0, 1, 2, 6, 7]


@pytest.mark.parametrize("note", ["", "somebody", f"{ORIGIN}@1", f"{ORIGIN}@x", "other@2"])
def test_an_offset_that_somebody_else_moved_hides_no_gap(note: str) -> None:
    world = AuditWorld()
    world.produce(8)
    world.broker.logs[BLOCKS], later = world.broker.logs[BLOCKS][:3], world.broker.logs[BLOCKS][3:]
    world.settle()
    world.broker.logs[BLOCKS] += later
    world.broker.committed[BLOCKS] = CommitPoint(8, note)
    world.restart()
    world.source.lows[BLOCKS] = 6
    with pytest.raises(AuditGap):
        world.turn()


def test_an_empty_log_begins_at_the_oldest_record() -> None:
    world = AuditWorld()
    world.produce(5)
    world.source.lows[BLOCKS] = 3
    world.settle()
    assert world.offsets() == [3, 4]


def test_a_log_that_was_rolled_back_is_noticed_by_kafkas_note() -> None:
    world = AuditWorld()
    world.produce(3)
    world.settle()
    world.broker.committed[BLOCKS] = CommitPoint(9, f"{ORIGIN}@8")
    world.produce(6)
    world.restart()
    with pytest.raises(AuditContradiction, match=r"once reached offset 8 .* ends at 2: it was rolled back"):
        world.turn()


@pytest.mark.parametrize("kept", [0, 2])
def test_a_topic_that_was_made_anew_is_noticed_by_its_end(kept: int) -> None:
    world = AuditWorld()
    world.produce(3)
    world.settle()
    del world.broker.logs[BLOCKS][kept:]
    world.restart()
    with pytest.raises(AuditContradiction, match="made anew or truncated"):
        world.turn()
    assert world.offsets() == [0, 1, 2]


def test_a_topic_that_was_made_anew_and_grew_is_noticed_by_the_last_record() -> None:
    world = AuditWorld()
    world.produce(3)
    world.settle()
    world.broker.logs[BLOCKS].clear()
    for number in range(6):
        world.broker.append(BLOCKS.topic, f"another record {number}".encode())
    world.restart()
    with pytest.raises(AuditContradiction, match=r"@2 is not the one that the log has a leaf for at offset 2"):
        world.settle()
    assert world.offsets() == [0, 1, 2]


def test_a_last_record_that_vanished_from_kafka_is_noticed() -> None:
    world = AuditWorld()
    world.produce(4)
    last = world.broker.logs[BLOCKS].pop()
    world.settle()
    world.broker.logs[BLOCKS][2:] = [last]
    world.broker.append(BLOCKS.topic, b"later")
    world.restart()
    with pytest.raises(AuditContradiction, match=r"@3 is not the one that the log has a leaf for at offset 2"):
        world.settle()


def test_records_that_went_before_the_first_leaf_stop_the_worker_too() -> None:
    world = AuditWorld()
    world.turn()
    assert world.broker.committed[BLOCKS] == CommitPoint(0, f"{ORIGIN}@-1")
    world.produce(8)
    world.restart()
    world.source.lows[BLOCKS] = 6
    with pytest.raises(AuditGap, match="offsets 0 to 5"):
        world.turn()
    assert world.offsets() == []
    world.overrides["gap"] = GapPolicy.RECORD
    world.restart()
    world.source.lows[BLOCKS] = 6
    world.settle()
    assert [(leaf.offset, leaf.gap_from) for leaf in world.leaves()] == [(5, 0), (6, None), (7, None)]


def test_nothing_is_handed_on_or_committed_before_the_last_record_was_compared() -> None:
    """A topic that was made anew, and the group's offsets gone: read from the start, in batches that end before it."""
    world = AuditWorld(overrides={"batch_size": 2})
    world.produce(5)
    world.turn(6)
    world.broker.logs[BLOCKS].clear()
    world.broker.committed.clear()
    world.logged.clear()
    for number in range(8):
        world.broker.append(BLOCKS.topic, f"forged {number}".encode())
    world.restart()
    with pytest.raises(AuditContradiction, match=r"@4 is not the one"):
        world.turn(6)
    assert world.logged == []
    assert BLOCKS not in world.broker.committed


def test_after_the_comparison_what_is_due_is_read_again_from_its_place() -> None:
    world = AuditWorld(overrides={"batch_size": 2})
    world.produce(7)
    world.turn(8)
    world.broker.committed[BLOCKS] = CommitPoint(3, f"{ORIGIN}@2")
    world.logged.clear()
    world.produce(2)
    world.restart()
    world.source.not_yet = 1
    world.turn(12)
    assert [start for tp, start in world.source.starts if tp == BLOCKS] == [6, 3]
    assert [offset for _, offset in world.logged] == [3, 4, 5, 6, 7, 8]
    assert world.offsets() == list(range(9))
    assert world.broker.committed[BLOCKS] == CommitPoint(9, f"{ORIGIN}@8")


@pytest.mark.parametrize("note", ["", "somebody", f"{ORIGIN}@x", "other@4"])
def test_a_point_that_somebody_moved_to_the_end_spares_no_record_the_archive(note: str) -> None:
    world = AuditWorld()
    world.produce(5)
    world.store_faults.append(StoreUnavailable("503"))
    world.turn(2)
    assert (world.offsets(), world.logged) == ([0, 1, 2, 3, 4], [])
    world.broker.committed[BLOCKS] = CommitPoint(5, note)
    world.restart()
    world.settle()
    assert [offset for _, offset in world.logged] == [0, 1, 2, 3, 4]


@pytest.mark.parametrize("name", ["tests.example/audit2", "another"])
def test_after_a_topic_was_made_anew_another_name_begins_a_log_beside_the_old_one(name: str) -> None:
    world = AuditWorld()
    world.produce(5)
    world.settle()
    world.broker.logs[BLOCKS].clear()
    for number in range(7):
        world.broker.append(BLOCKS.topic, f"another record {number}".encode())
    world.restart()
    with pytest.raises(AuditContradiction, match=r"keygen DIR --name NAME.* audit\.log_name"):
        world.settle()
    old, old_keys = world.place, world.keys
    world.logged.clear()
    world.begin_anew(name)
    world.settle()
    assert world.offsets() == list(range(7))
    assert [offset for _, offset in world.logged] == list(range(7))
    assert world.broker.committed[BLOCKS] == CommitPoint(7, f"{name}/{TREE}@6")
    assert verify_all(old.tree(TREE), ORIGIN, old_keys).entries == 5
    assert verify_all(old.tree(TREE), ORIGIN, old_keys).ok
    assert verify_all(world.place.tree(TREE), f"{name}/{TREE}", world.keys).ok
