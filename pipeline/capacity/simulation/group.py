"""One stage as a consumer group: who reads what, and what changes of its members cost."""

from __future__ import annotations

from collections.abc import Callable

from pipeline.capacity.simulation.items import Item, PartitionState
from pipeline.capacity.simulation.loop import Cores, Loop
from pipeline.capacity.simulation.replica import Phase, Replica
from pipeline.capacity.simulation.scenario import Membership, StageModel


class Group:
    """Replicas and partitions of a stage."""

    def __init__(
        self,
        *,
        stage: StageModel,
        index: int,
        loop: Loop,
        membership: Membership,
        host: Cores | None,
        slowed: Callable[[float], float],
        committed: Callable[[list[Item]], None],
    ) -> None:
        """`host`: cores that all share; None: each replica has its own."""
        self.stage = stage
        self.partitions = [
            [PartitionState(lane, n) for n in range(stage.partitions)] for lane in range(len(stage.lanes))
        ]
        self.replicas: list[Replica] = []
        self.redone = 0
        self._index = index
        self._loop = loop
        self._membership = membership
        self._host = host
        self._slowed = slowed
        self._committed = committed
        for _ in range(min(stage.replicas, stage.partitions)):
            replica = self._new()
            replica.phase = Phase.WORKING
        self._hand_over()

    # -- items --

    def receive(self, item: Item, lane: int) -> None:
        """A record is written; it can be read after the lane's delay and the transport."""
        partition = self.partitions[lane][int(item.key * len(self.partitions[lane]))]
        item.partition = partition
        item.done = item.readable = False
        delay_s = self.stage.lanes[lane].delay_s + self.stage.transport_s
        item.arrived_s = self._loop.now_s + self.stage.lanes[lane].delay_s
        partition.items.append(item)
        if delay_s > 0.0:
            self._loop.after(delay_s, self._readable, item, lane)
        else:
            self._readable(item, lane)

    def _readable(self, item: Item, lane: int) -> None:
        partition = item.partition
        assert partition is not None  # noqa: S101 - set when it was received
        item.readable = True
        if partition.owner is not None and not partition.moving:
            partition.owner.offer(item, lane)

    @property
    def lag(self) -> int:
        """Records of all lanes but retries that are not committed."""
        main = [self.partitions[i] for i, lane in enumerate(self.stage.lanes) if lane.delay_s == 0.0]
        return sum(len(p.items) for lane in main for p in lane)

    @property
    def in_system(self) -> int:
        """Records of all lanes that are not committed."""
        return sum(len(p.items) for lane in self.partitions for p in lane)

    def lag_s(self, now_s: float) -> float:
        """Age of the oldest of them; 0 without any."""
        ages = [now_s - p.oldest_s for lane in self.partitions for p in lane if p.oldest_s is not None]
        return max(0.0, max(ages, default=0.0))

    # -- members --

    @property
    def wanted(self) -> int:
        """Replicas that exist, started or not."""
        return sum(r.phase in (Phase.STARTING, Phase.WORKING) for r in self.replicas)

    @property
    def working(self) -> int:
        """Replicas that take items."""
        return sum(r.phase is Phase.WORKING for r in self.replicas)

    def scale(self, replicas: int) -> None:
        """Start or stop pods until so many are wanted; the last ones leave first."""
        for _ in range(replicas - self.wanted):
            self._loop.after(self._membership.pod_start_s, self._join, self._new())
        leaving = [r for r in reversed(self.replicas) if r.phase in (Phase.STARTING, Phase.WORKING)]
        for replica in leaving[: max(0, self.wanted - replicas)]:
            if replica.phase is Phase.STARTING:
                self._forget(replica)
            else:
                replica.phase = Phase.LEAVING
                self._drain(replica, self._loop.now_s + self._membership.drain_s)

    def lose(self, count: int) -> None:
        """So many working replicas are gone without a word; the group notices after the session timeout."""
        gone = [r for r in self.replicas if r.phase is Phase.WORKING][:count]
        for replica in gone:
            replica.phase = Phase.GONE
            self.replicas.remove(replica)
            self._loop.after(self._membership.session_timeout_s, self._noticed, replica)
            self._loop.after(self._membership.replace_s + self._membership.pod_start_s, self._join, self._new())

    def _new(self) -> Replica:
        cores = self._host or Cores(self._loop, self.stage.cores)
        replica = Replica(
            stage=self.stage,
            index=self._index,
            loop=self._loop,
            cores=cores,
            slowed=self._slowed,
            committed=self._committed,
        )
        self.replicas.append(replica)
        return replica

    def _join(self, replica: Replica) -> None:
        if replica.phase is Phase.STARTING:
            replica.phase = Phase.WORKING
            self._rebalance()

    def _drain(self, replica: Replica, until_s: float) -> None:
        if replica.phase is not Phase.LEAVING:
            return
        if replica.in_flight and self._loop.now_s < until_s:
            self._loop.after(min(0.5, until_s - self._loop.now_s), self._drain, replica, until_s)
            return
        self._forget(replica)
        self._rebalance()

    def _noticed(self, replica: Replica) -> None:
        for partition in list(replica.partitions):
            partition.careful = set(partition.begun)
        self._abandon(replica)
        self._rebalance()

    def _forget(self, replica: Replica) -> None:
        replica.phase = Phase.GONE
        self.replicas.remove(replica)
        self._abandon(replica)

    def _abandon(self, replica: Replica) -> None:
        for partition in list(replica.partitions):
            self._take_from(replica, partition)

    def _take_from(self, replica: Replica, partition: PartitionState) -> None:
        finished = [item for item in partition.items if item.done]
        self.redone += len(partition.begun) + len(finished)
        for item in finished:  # finished, but behind one that was not: no offset says so
            item.done = False
        partition.begun.clear()
        partition.epoch += 1
        replica.release(partition)

    # -- assignment --

    def _rebalance(self) -> None:
        """Stop what must move, and hand it over a moment later. Eager groups stop everything."""
        for replica, partition in self._moving():
            self._loop.after(self._membership.rebalance_s, self._moved, replica, partition, partition.epoch)
            replica.stop(partition)
        self._loop.after(self._membership.rebalance_s, self._hand_over)

    def _moved(self, replica: Replica, partition: PartitionState, epoch: int) -> None:
        if partition.epoch == epoch and partition in replica.partitions:
            self._take_from(replica, partition)
            self._hand_over()

    def _moving(self) -> list[tuple[Replica, PartitionState]]:
        working = [r for r in self.replicas if r.phase is Phase.WORKING]
        if not working:
            return []
        moving = []
        for lane in self.partitions:
            most = -(-len(lane) // len(working))
            for replica in working:
                mine = sorted((p for p in lane if p in replica.partitions), key=lambda p: p.number)
                surplus = mine if self._membership.eager else mine[self._fair(replica, working, len(lane), most) :]
                moving += [(replica, partition) for partition in surplus]
        return moving

    @staticmethod
    def _fair(replica: Replica, working: list[Replica], partitions: int, most: int) -> int:
        """Members in order of joining get one more while the division leaves a rest."""
        rest = partitions % len(working)
        return most if rest == 0 or working.index(replica) < rest else most - 1

    def _hand_over(self) -> None:
        """Give every partition that nobody reads to the member with fewest of its lane."""
        working = [r for r in self.replicas if r.phase is Phase.WORKING]
        if not working:
            return
        for lane in self.partitions:
            counts = {r: sum(p in r.partitions for p in lane) for r in working}
            for partition in lane:
                if partition.owner is None:
                    replica = min(working, key=lambda r: counts[r])
                    counts[replica] += 1
                    replica.assign(partition)
