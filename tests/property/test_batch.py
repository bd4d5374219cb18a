"""The batcher under any order of arrivals, landings and returns."""

from __future__ import annotations

from collections import Counter

from hypothesis import given
from hypothesis import strategies as st

from pipeline.streaming.batch import Batcher, BatchLimits, Lane
from pipeline.streaming.partitions import Entry
from tests.support.entries import entry

QUOTA = 3
LIMITS = BatchLimits(max_items=4, max_cost=10, max_cost_in_flight=20, max_wait_s=1.0)
LANES = (
    Lane("priority", ("p",), max_in_flight=5, max_held=99, weight=8),
    Lane("normal", ("n",), max_in_flight=3, max_held=99, max_age_s=20.0),
)
SLOTS = {lane.name: lane.max_in_flight for lane in LANES}

arrivals = st.tuples(st.sampled_from(sorted(SLOTS)), st.sampled_from("abc"), st.integers(1, 25), st.floats(0, 3))
steps = st.lists(
    arrivals | st.just("next") | st.sampled_from(["land", "put back"]) | st.floats(0.0, 5.0), min_size=1, max_size=80
)


class Driven:
    """A batcher, its clock and what is out."""

    def __init__(self) -> None:
        self.batcher = Batcher(LANES, LIMITS, lambda _: QUOTA)
        self.now_s = 0.0
        self.added: list[Entry] = []
        self.out: list[list[Entry]] = []
        self.landed: list[Entry] = []

    def add(self, lane: str, tenant: str, cost: int, delay_s: float) -> None:
        made = entry(len(self.added), lane=lane, tenant=tenant, cost=cost, polled_at_s=self.now_s)
        made.not_before_s = self.now_s + delay_s if delay_s > 2 else 0.0
        self.added.append(made)
        self.batcher.add(made)

    def next(self) -> list[Entry]:
        batch = self.batcher.next_batch(self.now_s)
        if batch:
            self.out.append(batch)
        return batch

    def land(self, again: bool) -> None:
        if not self.out:
            return
        batch = self.out.pop(0)
        self.batcher.landed(batch)
        if again:
            self.batcher.put_back(batch)
        else:
            self.landed += batch

    def take(self, step: object) -> list[Entry]:
        match step:
            case "next":
                return self.next()
            case "land" | "put back":
                self.land(step == "put back")
            case float():
                self.now_s += step
            case (str() as lane, str() as tenant, int() as cost, float() as delay_s):
                self.add(lane, tenant, cost, delay_s)
        return []


@given(steps)
def test_every_bound_holds_at_every_step(script: list[object]) -> None:
    driven = Driven()
    for step in script:
        batch = driven.take(step)
        flying = [e for out in driven.out for e in out]
        by_lane = Counter(e.lane for e in flying)
        assert all(count <= SLOTS[lane] for lane, count in by_lane.items())
        assert all(count <= QUOTA for count in Counter(e.item.tenant for e in flying if e.item).values())
        assert driven.batcher.in_flight == len(flying)
        assert len(flying) == 1 or sum(e.cost for e in flying) <= LIMITS.max_cost_in_flight
        if batch:
            assert len({e.lane for e in batch}) == 1
            assert len(batch) <= LIMITS.max_items
            assert len(batch) == 1 or sum(e.cost for e in batch) <= LIMITS.max_cost
            assert all(e.not_before_s <= driven.now_s for e in batch)


@given(steps)
def test_a_batch_is_full_or_its_first_item_has_waited(script: list[object]) -> None:
    driven = Driven()
    for step in script:
        batch = driven.take(step)
        if batch:
            waited_s = driven.now_s - max(batch[0].polled_at_s, batch[0].not_before_s)
            full = len(batch) == LIMITS.max_items or sum(e.cost for e in batch) >= LIMITS.max_cost
            assert full or waited_s >= LIMITS.max_wait_s


@given(steps)
def test_no_item_is_lost_or_doubled(script: list[object]) -> None:
    driven = Driven()
    for step in script:
        driven.take(step)
        held = driven.batcher.waiting + driven.batcher.in_flight + len(driven.landed)
        assert held == len(driven.added)
    for _ in range(2 * len(driven.added) + 1):
        driven.now_s += 10.0
        while driven.next():
            pass
        while driven.out:
            driven.land(again=False)
    assert Counter(map(id, driven.landed)) == Counter(map(id, driven.added))


@given(st.integers(1, 20), st.integers(1, 20), st.integers(1, 4))
def test_saturated_lanes_share_by_weight(heavy: int, light: int, rounds: int) -> None:
    lanes = (Lane("heavy", ("h",), 99, 99, weight=heavy), Lane("light", ("l",), 99, 99, weight=light))
    batcher = Batcher(lanes, BatchLimits(max_items=1, max_wait_s=0))
    turns = rounds * (heavy + light)
    for i in range(turns + 1):
        batcher.add(entry(i, lane="heavy"))
        batcher.add(entry(i, lane="light"))
    served: Counter[str] = Counter()
    for _ in range(turns):
        batch = batcher.next_batch(0.0)
        batcher.landed(batch)
        served[batch[0].lane] += 1
    assert served == {"heavy": rounds * heavy, "light": rounds * light}


@given(st.floats(20.1, 1000.0), st.integers(1, 30))
def test_an_overdue_lane_comes_first_whatever_the_weights(age_s: float, waiting: int) -> None:
    driven = Driven()
    driven.add("normal", "a", 1, 0.0)
    driven.now_s = age_s
    for _ in range(waiting):
        driven.add("priority", "b", 1, 0.0)
    assert driven.next()[0].lane == "normal"
