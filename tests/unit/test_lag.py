"""Lag in records and seconds, from what a member has in hand."""

from __future__ import annotations

from dataclasses import replace

import pytest

from pipeline.streaming.lag import Arrivals, Lag, MemberLag, ReaderLag
from pipeline.streaming.partitions import Entry, Partitions
from pipeline.streaming.transport import CommitPoint, Polled, TopicPartition
from tests.support.entries import TP, entry, raw

OTHER = TopicPartition(TP.topic, 1)
MADE_S = raw().timestamp_ms / 1000.0


def test_records_count_from_the_first_uncommitted_one_and_its_age_is_the_lag() -> None:
    logs = Partitions()
    logs.assign(TP, CommitPoint(5, ""))
    logs.add(entry(5, epoch=1))
    logs.add(entry(6, epoch=1))
    assert MemberLag().after(logs, {TP: 12}, MADE_S + 30.0) == {TP.topic: Lag(7, 30.0)}


def test_partitions_add_up_and_the_oldest_counts() -> None:
    logs = Partitions()
    logs.assign(TP, CommitPoint(5, ""))
    logs.assign(OTHER, None)
    logs.add(entry(5, epoch=1))
    assert MemberLag().after(logs, {TP: 6, OTHER: 4}, MADE_S + 2.0) == {TP.topic: Lag(5, 2.0)}


def test_at_the_end_nothing_lags_though_the_last_offsets_are_markers() -> None:
    logs = Partitions()
    log = logs.assign(TP, CommitPoint(5, ""))
    log.end = 7
    assert MemberLag().after(logs, {TP: 7}, MADE_S) == {TP.topic: Lag(0, 0.0)}


def test_a_partition_whose_end_is_not_known_says_nothing() -> None:
    logs = Partitions()
    logs.assign(TP, CommitPoint(5, ""))
    assert MemberLag().after(logs, {}, MADE_S) == {}


def test_a_clock_behind_the_producers_makes_no_negative_lag() -> None:
    logs = Partitions()
    logs.assign(TP, None)
    logs.add(entry(0, epoch=1))
    assert MemberLag().after(logs, {TP: 1}, MADE_S - 60.0) == {TP.topic: Lag(1, 0.0)}


def test_a_partition_of_which_nothing_is_in_hand_ages_from_when_its_end_moved() -> None:
    """Without a leader, behind an open transaction, or paused: somebody must hear of it."""
    logs, lag = Partitions(), MemberLag()
    logs.assign(TP, CommitPoint(5, ""))
    assert lag.after(logs, {TP: 5}, MADE_S) == {TP.topic: Lag(0, 0.0)}
    assert lag.after(logs, {TP: 8}, MADE_S + 10.0) == {TP.topic: Lag(3, 10.0)}
    assert lag.after(logs, {TP: 9}, MADE_S + 700.0) == {TP.topic: Lag(4, 700.0)}


def test_a_partition_that_was_behind_when_it_came_is_at_least_as_old_as_its_assignment() -> None:
    logs, lag = Partitions(), MemberLag()
    logs.assign(TP, CommitPoint(5, ""))
    assert lag.after(logs, {TP: 8}, MADE_S) == {TP.topic: Lag(3, 0.0)}
    assert lag.after(logs, {TP: 8}, MADE_S + 90.0) == {TP.topic: Lag(3, 90.0)}


@pytest.mark.parametrize("stamp_ms", [0, 1000, 1_600_000_000_000, 4_000_000_000_000])
def test_a_producers_wrong_timestamp_makes_no_lag_and_hides_none(stamp_ms: int) -> None:
    """The record came between 10 and 11 s, as the partition's end tells, whatever is stamped on it."""
    logs, lag = Partitions(), MemberLag()
    logs.assign(TP, CommitPoint(5, ""))
    logs.add(Entry(replace(raw(5), timestamp_ms=stamp_ms), 1, "main", 0.0))
    lag.after(logs, {TP: 5}, MADE_S + 10.0)
    lag.after(logs, {TP: 6}, MADE_S + 11.0)
    (found,) = lag.after(logs, {TP: 7}, MADE_S + 40.0).values()
    assert found.records == 2
    assert 29.0 <= found.seconds <= 30.0


def test_a_member_that_is_never_idle_still_knows_when_records_came() -> None:
    """The end runs ahead of what is committed all the time: no moment at which the partition was empty is needed."""
    logs, lag = Partitions(), MemberLag()
    log = logs.assign(TP, CommitPoint(0, ""))
    ages = []
    for second in range(3_000):
        log.committed = second
        (found,) = lag.after(logs, {TP: second + 5}, MADE_S + second).values()
        ages.append(found.seconds)
    assert set(ages[10:]) == {5.0}


def test_what_is_remembered_of_a_partition_that_stands_still_is_bounded() -> None:
    arrivals = Arrivals()
    for second in range(100_000):
        arrivals.hear({TP: 5 + second}, float(second))
    assert arrivals.age_s(TP, 5, 100_000.0, None) == pytest.approx(100_000.0, abs=1.0)
    assert len(arrivals) <= 1_500
    assert arrivals.age_s(TP, 90_000, 100_000.0, None) == pytest.approx(10_005.0, abs=100_000 / 128)
    arrivals.hear({TP: 100_005}, 100_000.0)
    assert len(arrivals) < 50, "what lies behind is forgotten"


def test_what_left_is_forgotten() -> None:
    logs, lag = Partitions(), MemberLag()
    logs.assign(TP, CommitPoint(5, ""))
    lag.after(logs, {TP: 5}, MADE_S)
    lag.after(logs, {OTHER: 1}, MADE_S + 1.0)
    assert lag.after(logs, {TP: 9}, MADE_S + 9_000.0) == {TP.topic: Lag(4, 0.0)}


def test_a_topic_that_was_made_anew_begins_anew() -> None:
    arrivals = Arrivals()
    arrivals.hear({TP: 100}, 0.0)
    arrivals.hear({TP: 3}, 50.0)
    assert arrivals.age_s(TP, 0, 60.0, None) == 10.0


def test_a_reader_lags_by_what_it_has_not_stored() -> None:
    reader = ReaderLag()
    assert reader.after(Polled([raw(3)], {}, {TP: 10}), MADE_S + 9.0) == {TP.topic: Lag(6, 9.0)}
    assert reader.after(Polled(highs={TP: 12}), MADE_S + 20.0) == {TP.topic: Lag(8, 20.0)}
    assert reader.after(Polled((), {TP: 12}, {TP: 12}), MADE_S + 21.0) == {TP.topic: Lag(0, 0.0)}
    assert reader.after(Polled(highs={TP: 13}), MADE_S + 500.0) == {TP.topic: Lag(1, 479.0)}


def test_a_partition_that_comes_back_to_a_reader_is_not_as_old_as_its_absence() -> None:
    reader = ReaderLag()
    reader.after(Polled([raw(3)], {TP: 4}, {TP: 4}), MADE_S + 1.0)
    reader.after(Polled(highs={OTHER: 1}), MADE_S + 2.0)
    assert reader.after(Polled(highs={TP: 900}), MADE_S + 9_000.0) == {}
    assert reader.after(Polled([raw(899)], {}, {TP: 901}), MADE_S + 9_001.0) == {TP.topic: Lag(1, 1.0)}


def test_a_new_record_after_a_long_silence_is_not_as_old_as_the_silence() -> None:
    reader = ReaderLag()
    reader.after(Polled([raw(3)], {TP: 4}, {TP: 4}), MADE_S + 1.0)
    reader.after(Polled(highs={TP: 4}), MADE_S + 400.0)
    assert reader.after(Polled(highs={TP: 5}), MADE_S + 401.0) == {TP.topic: Lag(1, 1.0)}
