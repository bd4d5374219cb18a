"""One member of a group: its lanes, its slots, and when it commits."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from enum import StrEnum

from pipeline.capacity.simulation.items import Item, PartitionState
from pipeline.capacity.simulation.loop import Cores, Loop
from pipeline.capacity.simulation.scenario import StageModel


class Phase(StrEnum):
    """Of a replica's life."""

    STARTING = "starting"
    WORKING = "working"
    LEAVING = "leaving"
    GONE = "gone"


class Replica:
    """Takes items of its partitions in the order in which they came, as lanes and slots allow."""

    def __init__(
        self,
        *,
        stage: StageModel,
        index: int,
        loop: Loop,
        cores: Cores,
        slowed: Callable[[float], float],
        committed: Callable[[list[Item]], None],
    ) -> None:
        """`index`: of the stage. `slowed` gives the factor of now; `committed` takes what became visible."""
        self.stage = stage
        self.phase = Phase.STARTING
        self.partitions: set[PartitionState] = set()
        self.in_flight = 0
        self.started = 0
        self._index = index
        self._loop = loop
        self._cores = cores
        self._slowed = slowed
        self._committed = committed
        self._queues: tuple[deque[Item], ...] = tuple(deque() for _ in stage.lanes)
        self._lane_flight = [0] * len(stage.lanes)
        self._credit = [0] * len(stage.lanes)
        self._careful: deque[Item] = deque()
        self._alone = False
        self._rescued = -1
        self._slots = stage.slots
        self._commit_asked = False
        self._finished: dict[PartitionState, None] = {}  # in order, so that equal runs are equal

    # -- partitions --

    def assign(self, partition: PartitionState) -> None:
        """Read it from its first uncommitted item; what was begun by one who died comes first, and alone."""
        partition.owner = self
        self.partitions.add(partition)
        for item in partition.items:
            if item.done:
                continue
            if item in partition.careful:
                self._careful.append(item)
            elif item.readable:
                self._queues[partition.lane].append(item)
        self._queues = tuple(deque(sorted(q, key=lambda i: i.arrived_s)) for q in self._queues)
        self.dispatch()

    def release(self, partition: PartitionState) -> None:
        """Give it away: what is in work here comes to nothing."""
        self.stop(partition)
        self.partitions.discard(partition)
        partition.owner = None
        partition.moving = False

    def stop(self, partition: PartitionState) -> None:
        """Begin nothing more of it; what is in work may still be committed."""
        partition.moving = True
        keep = [deque(i for i in q if i.partition is not partition) for q in self._queues]
        self._queues = tuple(keep)
        self._careful = deque(i for i in self._careful if i.partition is not partition)

    def offer(self, item: Item, lane: int) -> None:
        """An item of one of its partitions, which does not move, can be read from now on."""
        self._queues[lane].append(item)
        self.dispatch()

    # -- work --

    def dispatch(self) -> None:
        """Begin what may begin."""
        if self.phase is not Phase.WORKING:
            return
        if self._careful or self._alone:
            if self.in_flight == 0 and self._careful:
                self._alone = True
                self._begin([self._careful.popleft()])
            return
        while self._slots > 0:
            lane = self._next_lane()
            if lane < 0 or not self._closes(lane):
                return
            size = min(self.stage.batch_items, len(self._queues[lane]))
            self._begin([self._queues[lane].popleft() for _ in range(size)])

    def _closes(self, lane: int) -> bool:
        """A batch goes when it is full or its first item has waited long enough."""
        queue, stage = self._queues[lane], self.stage
        if len(queue) >= stage.batch_items:
            return True
        age_s = self._loop.now_s - queue[0].arrived_s
        if age_s >= stage.batch_wait_s - 1e-12:
            return True
        self._loop.after(stage.batch_wait_s - age_s, self.dispatch)
        return False

    def _next_lane(self) -> int:
        """Overdue lanes get every other turn, all others theirs by weight; -1: nothing waits that may go."""
        lanes = self.stage.lanes
        ready = [i for i, q in enumerate(self._queues) if q and self._lane_flight[i] < lanes[i].slots]
        if len(ready) < 2:
            return ready[0] if ready else -1
        now_s = self._loop.now_s
        overdue = [i for i in ready if now_s - self._queues[i][0].arrived_s > lanes[i].max_age_s and i != self._rescued]
        self._rescued = overdue[0] if overdue else -1
        chosen = overdue[0] if overdue else max(ready, key=lambda i: (self._credit[i] + lanes[i].weight, -i))
        for i in ready:
            self._credit[i] += lanes[i].weight
        self._credit[chosen] -= sum(lanes[i].weight for i in ready)
        return chosen

    def _begin(self, batch: list[Item]) -> None:
        now_s = self._loop.now_s
        self._slots -= 1
        self.in_flight += len(batch)
        self.started += len(batch)
        waits_s = cpu_s = 0.0
        for item in batch:
            partition = item.partition
            assert partition is not None  # noqa: S101 - it was offered through one
            item.started_s = now_s
            item.epoch = partition.epoch
            partition.begun.add(item)
            self._lane_flight[partition.lane] += 1
            work_s = item.work_s[self._index]
            cpu_s += work_s * self.stage.cpu_share
            waits_s = max(waits_s, work_s * (1.0 - self.stage.cpu_share))
        waits_s *= self._slowed(now_s)
        if waits_s > 0.0:
            self._loop.after(waits_s, self._compute, batch, cpu_s)
        else:
            self._compute(batch, cpu_s)

    def _compute(self, batch: list[Item], cpu_s: float) -> None:
        if cpu_s > 0.0:
            self._cores.take(cpu_s, self._end, batch)
        else:
            self._end(batch)

    def _end(self, batch: list[Item]) -> None:
        if self.phase is Phase.GONE:
            return
        self._slots += 1
        self._alone = False
        self.in_flight -= len(batch)
        for item in batch:
            partition = item.partition
            assert partition is not None  # noqa: S101 - as above
            self._lane_flight[partition.lane] -= 1
            if partition.epoch != item.epoch or partition.owner is not self:
                continue  # another reader has it by now: this work was for nothing
            item.done = True
            partition.begun.discard(item)
            partition.careful.discard(item)
            self._finished[partition] = None
        self._ask_commit()
        self.dispatch()

    # -- commits --

    def _ask_commit(self) -> None:
        """At once when nothing else is in work, else when the first result has waited long enough."""
        if not self._finished:
            return
        if self.in_flight == 0 or self.stage.commit_interval_s == 0.0:
            self._commit()
        elif not self._commit_asked:
            self._commit_asked = True
            self._loop.after(self.stage.commit_interval_s, self._due)

    def _due(self) -> None:
        self._commit_asked = False
        self._commit()

    def _commit(self) -> None:
        if self.phase is Phase.GONE:
            return
        taken = [item for p in self._finished if p.owner is self for item in p.finished_prefix()]
        self._finished.clear()
        if taken and self.stage.commit_s > 0.0:
            self._loop.after(self.stage.commit_s, self._committed, taken)
        elif taken:
            self._committed(taken)
