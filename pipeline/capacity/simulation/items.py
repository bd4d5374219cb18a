"""What moves through the simulation, and the partitions in which it waits."""

from __future__ import annotations

from collections import deque
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pipeline.capacity.simulation.replica import Replica


class Item:
    """One reference.

    `work_s` holds its time at each stage, drawn when it is born, so that runs that differ in replicas alone compare
    the same items.
    """

    __slots__ = (
        "arrived_s",
        "attempts",
        "born_s",
        "done",
        "epoch",
        "exit",
        "key",
        "lane",
        "partition",
        "readable",
        "started_s",
        "work_s",
    )

    def __init__(self, born_s: float, exit_stage: int, lane: int, key: float, work_s: tuple[float, ...]) -> None:
        """`exit_stage`: index of the stage that decides. `lane`: 0 is the first of a later stage's lanes.

        `key`: the hash of its key, from 0 to below 1, which chooses the partition of every topic on its way.
        """
        self.born_s = born_s
        self.exit = exit_stage
        self.lane = lane
        self.key = key
        self.work_s = work_s
        self.attempts = 0
        self.arrived_s = born_s
        self.started_s = 0.0
        self.done = False
        self.readable = False
        self.epoch = 0
        self.partition: PartitionState | None = None


class PartitionState:
    """One partition of a lane: what is not committed, in order.

    `owner` None: nobody reads it for now. `moving`: its owner begins nothing more of it. `epoch` ends with each
    assignment; what an ended one brings is thrown away. `careful`: items that a reader who died had begun, to be run
    alone.
    """

    __slots__ = ("begun", "careful", "epoch", "items", "lane", "moving", "number", "owner")

    def __init__(self, lane: int, number: int) -> None:
        """Empty."""
        self.lane = lane
        self.number = number
        self.items: deque[Item] = deque()
        self.owner: Replica | None = None
        self.moving = False
        self.epoch = 0
        self.begun: set[Item] = set()
        self.careful: set[Item] = set()

    @property
    def oldest_s(self) -> float | None:
        """When the oldest uncommitted item arrived."""
        return self.items[0].arrived_s if self.items else None

    def finished_prefix(self) -> list[Item]:
        """Take what may be committed: done, and nothing before it is not."""
        taken = []
        while self.items and self.items[0].done:
            taken.append(self.items.popleft())
        return taken
