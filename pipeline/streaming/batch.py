"""Which waiting records go to the executor next, and when a batch is full enough.

A batch closes by count, by cost or by age, the age counted from its first item. Lanes share the slots by weight,
but a lane whose head has waited longer than its `max_age_s` gets every other batch, so that nothing starves.
"""

from __future__ import annotations

from collections import Counter, deque
from collections.abc import Callable, Iterable
from dataclasses import dataclass

from pydantic import BaseModel, ConfigDict, Field

from pipeline.streaming.partitions import Entry, State


class BatchLimits(BaseModel):
    """When a batch closes, and how much is in flight at once. The item that does not fit begins the next batch.

    The unit of cost is the stage's: declared bytes for the classifier, pixels for the others.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    max_items: int = Field(default=1, ge=1, le=4096, description="items in a batch")
    max_cost: int = Field(default=64_000_000, ge=1, description="sum of item costs in a batch")
    max_cost_in_flight: int = Field(default=1_000_000_000, ge=1, description="sum of item costs in flight at once")
    max_wait_s: float = Field(default=0.02, ge=0, le=60, description="age of the first item at which a batch closes")


@dataclass(frozen=True, slots=True)
class Lane:
    """A group of topics that is buffered, weighed and bounded together.

    `max_in_flight` are slots of its own; `max_held` bounds what is buffered and not yet committed. A `delayed`
    lane's records carry the time at which they are due.
    """

    name: str
    topics: tuple[str, ...]
    max_in_flight: int
    max_held: int
    weight: int = 1
    max_age_s: float = float("inf")
    delayed: bool = False


class Batcher:
    """Waiting entries by lane; hands out one batch at a time, each from a single lane."""

    def __init__(
        self, lanes: Iterable[Lane], limits: BatchLimits, tenant_quota: Callable[[str], int] = lambda _: 2**31
    ) -> None:
        """`tenant_quota` gives the most items in flight of one tenant in each lane."""
        self._lanes = {lane.name: lane for lane in lanes}
        self._limits = limits
        self._quota = tenant_quota
        self._waiting: dict[str, deque[Entry]] = {name: deque() for name in self._lanes}
        self._credit = dict.fromkeys(self._lanes, 0)
        self._lane_flight: Counter[str] = Counter()
        self._tenant_flight: Counter[tuple[str, str]] = Counter()
        self._rescued: Lane | None = None
        self._cost_flight = 0

    @property
    def in_flight(self) -> int:
        """Items handed out and not yet returned."""
        return self._lane_flight.total()

    @property
    def waiting(self) -> int:
        """Items not yet handed out."""
        return sum(map(len, self._waiting.values()))

    def add(self, entry: Entry) -> None:
        """A record waits for its turn."""
        self._waiting[entry.lane].append(entry)

    def put_back(self, entries: Iterable[Entry]) -> None:
        """Entries that must be tried again go before all others, in their old order."""
        for entry in reversed(list(entries)):
            entry.state = State.WAITING
            self._waiting[entry.lane].appendleft(entry)

    def landed(self, entries: Iterable[Entry]) -> None:
        """These are no longer in flight, whatever came of them."""
        for entry in entries:
            self._lane_flight[entry.lane] -= 1
            self._cost_flight -= entry.cost
            self._tenant_flight[_whose(entry)] -= 1

    def keep(self, wanted: Callable[[Entry], bool]) -> None:
        """Forget waiting entries of partitions that left."""
        for name, queue in self._waiting.items():
            self._waiting[name] = deque(e for e in queue if wanted(e))

    def next_batch(self, now_s: float) -> list[Entry]:
        """The next batch that may go out, marked in flight; empty when none is full, old enough and allowed."""
        for lane in self._by_turn(now_s):
            batch = self._gather(lane, now_s)
            if batch and self._closes(batch, now_s):
                overdue = self._age_s(lane, now_s) > lane.max_age_s
                self._rescued = lane if overdue and lane is not self._rescued else None
                self._take(lane, batch)
                return batch
        return []

    def next_solo(self, entry: Entry) -> list[Entry]:
        """A batch of this one careful entry, past all limits."""
        self._waiting[entry.lane].remove(entry)
        self._launch([entry])
        return [entry]

    def _by_turn(self, now_s: float) -> list[Lane]:
        ready = [lane for lane in self._lanes.values() if self._waiting[lane.name]]
        overdue = [lane for lane in ready if self._age_s(lane, now_s) > lane.max_age_s and lane is not self._rescued]
        rest = sorted((x for x in ready if x not in overdue), key=lambda x: -(self._credit[x.name] + x.weight))
        return overdue + rest

    def _age_s(self, lane: Lane, now_s: float) -> float:
        """How long the first entry that may go has been able to."""
        first = next((e for e in self._waiting[lane.name] if self._may_go(e, [], now_s)), None)
        return now_s - max(first.polled_at_s, first.not_before_s) if first else 0.0

    def _gather(self, lane: Lane, now_s: float) -> list[Entry]:
        free = lane.max_in_flight - self._lane_flight[lane.name]
        batch: list[Entry] = []
        cost = 0
        for entry in self._waiting[lane.name]:
            if len(batch) >= min(free, self._limits.max_items):
                break
            if not self._may_go(entry, batch, now_s):
                continue
            if not self._fits(entry, batch, cost):
                break
            batch.append(entry)
            cost += entry.cost
            if entry.alone:
                break
        return batch

    def _may_go(self, entry: Entry, batch: list[Entry], now_s: float) -> bool:
        if entry.careful or entry.not_before_s > now_s:
            return False
        whose = _whose(entry)
        flying = self._tenant_flight[whose] + sum(_whose(e) == whose for e in batch)
        return flying < self._quota(whose[1])

    def _fits(self, entry: Entry, batch: list[Entry], cost: int) -> bool:
        """The largest item still goes when it is alone."""
        if batch and (cost + entry.cost > self._limits.max_cost or entry.alone):
            return False
        flying = self._cost_flight + cost
        return flying == 0 or flying + entry.cost <= self._limits.max_cost_in_flight

    def _closes(self, batch: list[Entry], now_s: float) -> bool:
        return (
            len(batch) >= self._limits.max_items
            or batch[0].alone
            or sum(e.cost for e in batch) >= self._limits.max_cost
            or now_s - max(batch[0].polled_at_s, batch[0].not_before_s) >= self._limits.max_wait_s
        )

    def _take(self, lane: Lane, batch: list[Entry]) -> None:
        taken = set(map(id, batch))
        self._waiting[lane.name] = deque(e for e in self._waiting[lane.name] if id(e) not in taken)
        self._launch(batch)
        self._charge(lane)

    def _launch(self, batch: list[Entry]) -> None:
        for entry in batch:
            entry.state = State.IN_FLIGHT
            self._lane_flight[entry.lane] += 1
            self._cost_flight += entry.cost
            self._tenant_flight[_whose(entry)] += 1

    def _charge(self, served: Lane) -> None:
        """Smooth weighted round robin over the lanes that had something waiting (the scheme of nginx)."""
        competing = [x for x in self._lanes.values() if self._waiting[x.name] or x is served]
        for lane in competing:
            self._credit[lane.name] += lane.weight
        self._credit[served.name] -= sum(lane.weight for lane in competing)
        if len(competing) == 1:
            self._credit[served.name] = 0


def _whose(entry: Entry) -> tuple[str, str]:
    """A tenant's quota holds in each lane, as the lanes have slots of their own."""
    return entry.lane, entry.item.tenant if entry.item else ""
