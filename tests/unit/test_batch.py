"""What goes to the executor next, and when a batch is full enough."""

from __future__ import annotations

import pytest
from pydantic import ValidationError

from pipeline.streaming.batch import Batcher, BatchLimits, Lane
from pipeline.streaming.partitions import Entry, State
from tests.support.entries import entry

MAIN = Lane("main", ("t",), max_in_flight=100, max_held=100)
NOW_S = 100.0


def batcher(*lanes: Lane, quota: int = 1000, **limits: float) -> Batcher:
    return Batcher(lanes or (MAIN,), BatchLimits.model_validate({"max_wait_s": 0, **limits}), lambda _: quota)


def filled(made: Batcher, *entries: Entry) -> Batcher:
    for e in entries:
        made.add(e)
    return made


def offsets(batch: list[Entry]) -> list[int]:
    return [e.raw.offset for e in batch]


def drained(made: Batcher, now_s: float = NOW_S) -> list[list[int]]:
    """All batches, each landed before the next."""
    found = []
    while batch := made.next_batch(now_s):
        found.append(offsets(batch))
        made.landed(batch)
    return found


def test_nothing_waiting_gives_an_empty_batch() -> None:
    assert batcher().next_batch(NOW_S) == []


def test_a_batch_closes_by_count_and_keeps_the_order() -> None:
    made = filled(batcher(max_items=2), *(entry(i) for i in range(5)))
    assert drained(made) == [[0, 1], [2, 3], [4]]


def test_what_goes_out_is_in_flight_and_no_longer_waiting() -> None:
    made = filled(batcher(max_items=2), entry(0), entry(1), entry(2))
    batch = made.next_batch(NOW_S)
    assert [e.state for e in batch] == [State.IN_FLIGHT] * 2
    assert (made.waiting, made.in_flight) == (1, 2)
    made.landed(batch)
    assert made.in_flight == 0


def test_a_batch_closes_by_cost_and_the_item_that_does_not_fit_begins_the_next() -> None:
    made = filled(batcher(max_items=10, max_cost=10), *(entry(i, cost=4) for i in range(3)))
    assert drained(made) == [[0, 1], [2]]


def test_costs_that_fit_exactly_share_a_batch() -> None:
    made = filled(batcher(max_items=10, max_cost=8), entry(0, cost=4), entry(1, cost=4), entry(2, cost=4))
    assert drained(made) == [[0, 1], [2]]


def test_an_item_larger_than_any_batch_goes_alone() -> None:
    made = filled(batcher(max_items=10, max_cost=10), entry(0, cost=99), entry(1, cost=1))
    assert drained(made) == [[0], [1]]


def test_a_batch_waits_for_company_only_as_long_as_its_first_item_may() -> None:
    made = filled(batcher(max_items=4, max_wait_s=1.0), entry(0, polled_at_s=10.0), entry(1, polled_at_s=10.9))
    assert made.next_batch(10.99) == []
    assert made.waiting == 2
    assert offsets(made.next_batch(11.0)) == [0, 1]


def test_a_full_batch_does_not_wait() -> None:
    made = filled(batcher(max_items=2, max_wait_s=60), entry(0, polled_at_s=NOW_S), entry(1, polled_at_s=NOW_S))
    assert offsets(made.next_batch(NOW_S)) == [0, 1]


def test_a_batch_of_full_cost_does_not_wait() -> None:
    made = filled(batcher(max_items=9, max_cost=5, max_wait_s=60), entry(0, cost=5, polled_at_s=NOW_S))
    assert offsets(made.next_batch(NOW_S)) == [0]


def test_the_age_of_a_delayed_item_counts_from_its_due_time() -> None:
    made = filled(batcher(max_items=4, max_wait_s=1.0), entry(0, polled_at_s=0.0, not_before_s=50.0))
    assert made.next_batch(50.5) == []
    assert offsets(made.next_batch(51.0)) == [0]


def test_what_is_not_due_is_passed_over() -> None:
    made = filled(batcher(), entry(0, not_before_s=NOW_S + 0.1), entry(1))
    assert drained(made) == [[1]]
    assert drained(made, NOW_S + 0.1) == [[0]]


def test_a_lane_never_has_more_in_flight_than_its_slots() -> None:
    made = filled(batcher(Lane("main", ("t",), 3, 100), max_items=2), *(entry(i) for i in range(6)))
    first, second = made.next_batch(NOW_S), made.next_batch(NOW_S)
    assert (offsets(first), offsets(second)) == ([0, 1], [2])
    assert made.next_batch(NOW_S) == []
    made.landed(second)
    assert offsets(made.next_batch(NOW_S)) == [3]


def test_one_full_lane_leaves_the_other_its_slots() -> None:
    made = batcher(Lane("a", ("ta",), 1, 9), Lane("b", ("tb",), 1, 9))
    filled(made, entry(0, lane="a"), entry(1, lane="a"), entry(2, lane="b"))
    assert sorted(offsets(made.next_batch(NOW_S)) + offsets(made.next_batch(NOW_S))) == [0, 2]
    assert made.next_batch(NOW_S) == []


def test_a_tenant_at_its_quota_is_passed_over_and_the_others_go() -> None:
    made = filled(batcher(quota=1), *(entry(i, tenant=t) for i, t in enumerate("aab")))
    first, second = made.next_batch(NOW_S), made.next_batch(NOW_S)
    assert (offsets(first), offsets(second)) == ([0], [2])
    assert made.next_batch(NOW_S) == []
    made.landed(first)
    assert offsets(made.next_batch(NOW_S)) == [1]


def test_the_quota_holds_inside_a_batch_too() -> None:
    made = filled(batcher(max_items=4, quota=2), *(entry(i, tenant=t) for i, t in enumerate("aaab")))
    assert offsets(made.next_batch(NOW_S)) == [0, 1, 3]


def test_an_item_that_must_be_alone_closes_the_batch_before_it() -> None:
    suspect = entry(1)
    suspect.alone = True
    made = filled(batcher(max_items=9, max_wait_s=60), entry(0, polled_at_s=0), suspect, entry(2, polled_at_s=0))
    assert drained(made) == [[0], [1], [2]]


def test_what_is_put_back_goes_first_and_in_its_old_order() -> None:
    made = filled(batcher(max_items=2), *(entry(i) for i in range(3)))
    batch = made.next_batch(NOW_S)
    made.landed(batch)
    made.put_back(batch)
    assert {e.state for e in batch} == {State.WAITING}
    assert drained(made) == [[0, 1], [2]]


def test_entries_of_partitions_that_left_are_forgotten() -> None:
    made = filled(batcher(), *(entry(i, epoch=i % 2) for i in range(4)))
    made.keep(lambda e: e.epoch == 1)
    assert drained(made) == [[1], [3]]


def test_next_solo_goes_past_all_limits() -> None:
    made = batcher(Lane("main", ("t",), 0, 9), quota=0)
    only = entry(0, not_before_s=NOW_S + 60)
    filled(made, only)
    assert made.next_solo(only) == [only]
    assert (only.state, made.in_flight, made.waiting) == (State.IN_FLIGHT, 1, 0)


def two_lanes(max_age_s: float = float("inf")) -> Batcher:
    return batcher(Lane("priority", ("p",), 9, 99, weight=8), Lane("normal", ("n",), 9, 99, max_age_s=max_age_s))


def test_lanes_share_by_weight() -> None:
    made = two_lanes()
    for i in range(27):
        made.add(entry(i, lane="priority"))
        made.add(entry(100 + i, lane="normal"))
    served = [batch[0] >= 100 for batch in drained(made)[:27]]
    assert served.count(True) == 3
    assert all(served[i : i + 9].count(True) == 1 for i in range(18)), "spread out, not in bursts"


def test_an_idle_lane_saves_up_no_turns() -> None:
    made = two_lanes()
    for i in range(50):
        filled(made, entry(i, lane="priority"))
        drained(made)
    for i in range(9):
        filled(made, entry(i, lane="priority"), entry(100 + i, lane="normal"))
    assert sum(batch[0] >= 100 for batch in drained(made)[:9]) == 1


def test_an_overdue_lane_is_served_first() -> None:
    made = filled(two_lanes(max_age_s=30), *(entry(i, lane="priority", polled_at_s=NOW_S) for i in range(3)))
    filled(made, entry(9, lane="normal", polled_at_s=NOW_S - 30.1))
    assert drained(made)[0] == [9]


def test_a_lane_that_is_not_overdue_waits_its_turn() -> None:
    made = filled(two_lanes(max_age_s=30), *(entry(i, lane="priority", polled_at_s=NOW_S) for i in range(3)))
    filled(made, entry(9, lane="normal", polled_at_s=NOW_S - 30))
    assert drained(made)[0] == [0]


@pytest.mark.parametrize("fault", [{"max_items": 0}, {"max_cost": 0}, {"max_wait_s": -1}, {"max_size": 1}])
def test_limits_are_bounded(fault: dict[str, int]) -> None:
    with pytest.raises(ValidationError, match=next(iter(fault))):
        BatchLimits.model_validate(fault)


def test_the_cost_in_flight_is_bounded_over_all_batches() -> None:
    made = filled(batcher(max_items=1, max_cost_in_flight=10), *(entry(i, cost=6) for i in range(2)))
    first = made.next_batch(NOW_S)
    assert offsets(first) == [0]
    assert made.next_batch(NOW_S) == []
    made.landed(first)
    assert offsets(made.next_batch(NOW_S)) == [1]


def test_the_cost_in_flight_counts_what_the_batch_itself_adds() -> None:
    made = filled(batcher(max_items=2, max_cost_in_flight=10), entry(0, cost=4))
    assert offsets(made.next_batch(NOW_S)) == [0]
    filled(made, entry(1, cost=4), entry(2, cost=4))
    assert offsets(made.next_batch(NOW_S)) == [1]


def test_an_overdue_lane_gets_every_other_batch_and_the_others_the_rest() -> None:
    made = two_lanes(max_age_s=30)
    for i in range(6):
        filled(made, entry(i, lane="priority", polled_at_s=NOW_S), entry(100 + i, lane="normal", polled_at_s=0.0))
    assert [batch[0] >= 100 for batch in drained(made)[:6]] == [True, False] * 3
