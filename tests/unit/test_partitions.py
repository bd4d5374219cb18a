"""What a member holds of its partitions, and what of it may be committed."""

from __future__ import annotations

import pytest

from pipeline.streaming.partitions import Note, PartitionLog, Partitions, State
from pipeline.streaming.transport import CommitPoint, TopicPartition
from tests.support.entries import TP, entry

OTHER = TopicPartition("media.ingest", 1)
D, W, F = State.DONE, State.WAITING, State.IN_FLIGHT


def log_of(*states: State, first: int = 0, committed: int | None = None, end: int = -1) -> PartitionLog:
    log = PartitionLog(TP, epoch=1, note=Note(), committed=committed, careful_until=0, end=end)
    for i, state in enumerate(states):
        log.entries.append(entry(first + i, state=state))
        log.next_offset = first + i + 1
    return log


@pytest.mark.parametrize(
    ("states", "finished"),
    [((), 0), ((W,), 0), ((F, D), 0), ((D, W, D), 1), ((D, D, F), 2), ((D, D), 2)],
)
def test_only_the_prefix_counts_as_finished(states: tuple[State, ...], finished: int) -> None:
    log = log_of(*states, first=5)
    assert [e.raw.offset for e in log.finished()] == list(range(5, 5 + finished))


def test_the_commit_offset_is_that_of_the_first_unfinished_record() -> None:
    assert log_of(D, D, W, first=5).commit_offset(2) == 7


def test_nothing_finished_and_something_in_hand_says_nothing() -> None:
    assert log_of(W, first=5).commit_offset(0) is None


def test_with_all_finished_it_is_the_next_offset() -> None:
    assert log_of(D, D, first=5).commit_offset(2) == 7


def test_transaction_markers_before_the_first_unfinished_record_are_passed() -> None:
    log = log_of(D)
    log.entries.append(entry(9, state=W))
    assert log.commit_offset(1) == 9


def test_with_nothing_in_hand_the_end_of_the_partition_counts() -> None:
    assert log_of(end=12, committed=3).commit_offset(0) == 12


def test_an_end_that_is_committed_already_says_nothing() -> None:
    assert log_of(end=12, committed=12).commit_offset(0) is None
    assert log_of(end=11, committed=12).commit_offset(0) is None
    assert log_of().commit_offset(0) is None


def test_an_end_says_nothing_while_something_is_in_hand() -> None:
    assert log_of(W, end=12).commit_offset(0) is None
    assert log_of(D, W, end=12).commit_offset(1) == 1


def test_a_mark_is_needed_once_before_anything_is_begun() -> None:
    assert log_of(W).must_be_marked(10.0)
    assert log_of(F, W).must_be_marked(10.0)
    later = log_of()
    later.entries.append(entry(0, not_before_s=10.0))
    assert not later.must_be_marked(9.9)
    assert not log_of(D, F).must_be_marked(10.0)
    assert not log_of().must_be_marked(10.0)
    marked = log_of(W)
    marked.mark_done(marked.mark(4, solo=False), solo=False)
    assert not marked.must_be_marked(10.0)


def test_a_careful_head_waits_for_its_time_and_keeps_the_mark_away() -> None:
    log = log_of()
    log.entries.append(entry(0, not_before_s=10.0))
    log.entries[0].careful = True
    assert not log.careful_head(9.9)
    assert log.careful_head(10.0)
    assert not log.must_be_marked(10.0)
    log.entries[0].state = F
    assert not log.careful_head(10.0)


def test_a_new_assignment_begins_a_new_epoch() -> None:
    partitions = Partitions()
    old = entry(0, epoch=partitions.assign(TP, None).epoch)
    partitions.add(old)
    assert partitions.is_current(old)
    new = partitions.assign(TP, None)
    assert not partitions.is_current(old)
    assert partitions.is_current(entry(0, epoch=new.epoch))
    assert len(partitions) == 1


def test_epochs_differ_between_partitions() -> None:
    partitions = Partitions()
    assert partitions.assign(TP, None).epoch != partitions.assign(OTHER, None).epoch


def test_entries_of_a_partition_that_left_are_not_current() -> None:
    partitions = Partitions()
    mine = entry(0, epoch=partitions.assign(TP, None).epoch)
    partitions.drop([TP, OTHER])
    assert not partitions.is_current(mine)
    assert TP not in partitions
    assert partitions.get(TP) is None


@pytest.mark.parametrize(("note", "careful"), [(Note(), 0), (Note(begun=9), 9), (Note(accept=3), 0)])
def test_a_note_of_begun_records_makes_the_next_reader_careful(note: Note, careful: int) -> None:
    log = Partitions().assign(TP, CommitPoint(7, note.encode()))
    assert (log.careful_until, log.note, log.committed) == (careful, note, 7)


def test_what_is_held_is_counted_until_it_is_committed_or_dropped() -> None:
    partitions = Partitions()
    log = partitions.assign(TP, None)
    entries = [entry(i, epoch=log.epoch, lane=lane) for i, lane in enumerate(("a", "a", "b"))]
    for e in entries:
        partitions.add(e)
    size = entries[0].raw.size_bytes
    assert size == len(b"k") + len(b"{}")
    assert (partitions.lane_bytes, partitions.lane_entries) == ({"a": 2 * size, "b": size}, {"a": 2, "b": 1})
    partitions.forget(log, 1)
    assert (partitions.lane_bytes, partitions.lane_entries) == ({"a": size, "b": size}, {"a": 1, "b": 1})
    assert [e.raw.offset for e in log.entries] == [1, 2]
    assert partitions.drop([TP]) == 2
    assert (partitions.lane_bytes, partitions.lane_entries) == ({"a": 0, "b": 0}, {"a": 0, "b": 0})


def test_a_note_writes_only_what_is_not_the_default() -> None:
    assert not Note().encode()
    assert Note(begun=9, solo=2).encode() == '{"begun":9,"solo":2}'


@pytest.mark.parametrize("text", ["", "{}", "hello", "[]", "3", "null", '{"solo":"x"}', '{"solo":[]}', '{"solo":null}'])
def test_the_note_of_another_program_counts_as_none(text: str) -> None:
    assert Note.decode(text) == Note()
