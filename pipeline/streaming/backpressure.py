"""How much may be held, and which partitions must be silent for now. Polling goes on all the time."""

from __future__ import annotations

from collections.abc import Iterable

from pipeline.streaming.batch import Lane
from pipeline.streaming.partitions import PartitionLog, Partitions, State
from pipeline.streaming.transport import Source, TopicPartition

MAX_POLL = 64


class Backpressure:
    """Pauses what is full, waits for a dependency, or is not yet due.

    A lane is bounded as a whole; a delayed lane by partition, because records that wait for their time must not
    keep another partition's due ones out.
    """

    def __init__(self, lanes: Iterable[Lane], partitions: Partitions, source: Source, max_held_bytes: int) -> None:
        """Every lane may hold its share of `max_held_bytes`."""
        self._lane_of = {topic: lane for lane in lanes for topic in lane.topics}
        self._lanes = set(self._lane_of.values())
        self._partitions = partitions
        self._source = source
        self._lane_bytes = max_held_bytes // len(self._lanes)
        self._paused: set[TopicPartition] = set()
        self._full: set[TopicPartition] = set()

    def poll_limit(self) -> int:
        """How many records may be asked for without filling a lane by more than one poll."""
        rooms = [lane.max_held - self._held(lane.name) for lane in self._lanes if not lane.delayed]
        return max(1, min([MAX_POLL, *(room for room in rooms if room > 0)]))

    def balance(self, now_s: float) -> None:
        """Pause and resume; once a turn."""
        self._full = {log.tp for log in self._partitions if self._is_full(log)}
        wanted = self._full | {log.tp for log in self._partitions if _held_back(log, now_s)}
        if wanted - self._paused:
            self._source.pause(wanted - self._paused)
        if self._paused - wanted:
            self._source.resume(self._paused - wanted)
        self._paused = wanted

    def forget(self, partitions: Iterable[TopicPartition]) -> None:
        """These left, or came anew: the source has resumed them."""
        self._paused -= set(partitions)
        self._full -= set(partitions)

    def _is_full(self, log: PartitionLog) -> bool:
        """Full at the limit, open again at half of it, so that pausing does not flutter."""
        lane = self._lane_of[log.tp.topic]
        held = len(log.entries) if lane.delayed else self._held(lane.name)
        share = 0.5 if log.tp in self._full else 1.0
        too_many_bytes = self._partitions.lane_bytes.get(lane.name, 0) >= share * self._lane_bytes
        return held >= max(1.0, share * lane.max_held) or too_many_bytes

    def _held(self, lane: str) -> int:
        return self._partitions.lane_entries.get(lane, 0)


def _held_back(log: PartitionLog, now_s: float) -> bool:
    head = next((e for e in log.entries if e.state is State.WAITING), None)
    return head is not None and head.not_before_s > now_s
