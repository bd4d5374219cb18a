"""How far a member is behind on its own partitions, in records and in seconds."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

from pipeline.streaming.partitions import PartitionLog
from pipeline.streaming.transport import Polled, TopicPartition

_COARSE = 128
"""Ends are remembered at this part of the time for which a partition lags: an hour to half a
minute, two minutes to the second."""


@dataclass(frozen=True, slots=True)
class Lag:
    """`records`: offsets not committed yet, of which transaction markers are some. `seconds`: how old the oldest is."""

    records: int = 0
    seconds: float = 0.0

    def with_partition(self, records: int, seconds: float) -> Lag:
        """One partition more: records add up, the oldest counts."""
        return Lag(self.records + max(0, records), max(self.seconds, seconds, 0.0))


@dataclass(slots=True)
class _End:
    """A partition's end, and when it was heard first and last, in seconds since the epoch."""

    high: int
    first_s: float
    last_s: float


@dataclass(slots=True)
class Arrivals:
    """When offsets came to be, by the partition's end as it was heard about once a second.

    A record's timestamp is its producer's word, and may be missing, of 1970 or of next year. Between the last time at
    which the end was not beyond an offset, and the first at which it was, its record came.
    """

    _ends: dict[TopicPartition, list[_End]] = field(default_factory=dict)

    def __len__(self) -> int:
        """Ends that are remembered."""
        return sum(len(ends) for ends in self._ends.values())

    def hear(self, highs: Mapping[TopicPartition, int], wall_s: float) -> None:
        """The ends of all partitions that are assigned now; others are forgotten."""
        self._ends = {tp: _heard(self._ends.get(tp, []), high, wall_s) for tp, high in highs.items()}

    def age_s(self, tp: TopicPartition, place: int, wall_s: float, stamped_s: float | None) -> float:
        """Age of the offset `place`, at which the partition does not end; `stamped_s` by its record's timestamp.

        The timestamp counts as far as the ends allow. Without one it is the longest time that they allow, and of an
        offset that was there before them the shortest.
        """
        ends = self._ends.get(tp, [])
        while len(ends) > 1 and ends[1].high <= place:
            ends.pop(0)  # nobody asks for an earlier offset again
        longest_s = wall_s - ends[0].last_s if ends and ends[0].high <= place else math.inf
        shortest_s = wall_s - next((end.first_s for end in ends if end.high > place), wall_s)
        if stamped_s is None:
            return longest_s if longest_s < math.inf else shortest_s
        return min(max(stamped_s, shortest_s), longest_s)


def _heard(ends: list[_End], high: int, wall_s: float) -> list[_End]:
    if ends and high < ends[-1].high:
        ends = []  # the topic was made anew
    if ends and high == ends[-1].high:
        ends[-1].last_s = wall_s
    elif len(ends) > 1 and ends[-1].first_s - ends[-2].last_s < (wall_s - ends[0].first_s) / _COARSE:
        ends[-1] = _End(high, wall_s, wall_s)
    else:
        ends.append(_End(high, wall_s, wall_s))
    return ends


@dataclass(slots=True)
class MemberLag:
    """Of a member with partition logs."""

    _arrivals: Arrivals = field(default_factory=Arrivals)

    def after(
        self, logs: Iterable[PartitionLog], highs: Mapping[TopicPartition, int], wall_s: float
    ) -> Mapping[str, Lag]:
        """By topic, of partitions whose end is known; `highs` as in Polled.

        The oldest uncommitted offset may be one of which nothing is in hand: its partition is paused, has no leader, or
        ends in an open transaction. That ages too.
        """
        self._arrivals.hear(highs, wall_s)
        found: dict[str, Lag] = {}
        for log in logs:
            high = highs.get(log.tp)
            if high is None:
                continue
            first = log.entries[0].raw if log.entries else None
            place = max(log.committed or 0, first.offset if first else log.end)
            stamped_s = wall_s - first.timestamp_ms / 1000.0 if first and first.timestamp_ms > 0 else None
            age_s = self._arrivals.age_s(log.tp, place, wall_s, stamped_s) if high > place else 0.0
            found[log.tp.topic] = found.get(log.tp.topic, Lag()).with_partition(high - place, age_s)
        return found


@dataclass(slots=True)
class ReaderLag:
    """The same for a reader without partition logs, which is done with each poll before the next.

    The oldest unread record is younger than the newest one read.
    """

    _arrivals: Arrivals = field(default_factory=Arrivals)
    _places: dict[TopicPartition, int] = field(default_factory=dict)
    _read_ms: dict[TopicPartition, int] = field(default_factory=dict)

    def after(self, polled: Polled, wall_s: float) -> Mapping[str, Lag]:
        """Take note of a poll; empty when it did not tell where partitions end."""
        if polled.highs:
            self._arrivals.hear(polled.highs, wall_s)
            self._places = {tp: place for tp, place in self._places.items() if tp in polled.highs}
            self._read_ms = {tp: read for tp, read in self._read_ms.items() if tp in polled.highs}
        for record in polled.records:
            self._places[record.tp], self._read_ms[record.tp] = record.offset + 1, record.timestamp_ms
        self._places |= polled.ends
        found: dict[str, Lag] = {}
        for tp, high in polled.highs.items():
            place = self._places.get(tp)
            if place is None:
                continue
            read_ms = self._read_ms.get(tp, 0)
            longest_s = wall_s - read_ms / 1000.0 if read_ms else None
            age_s = self._arrivals.age_s(tp, place, wall_s, longest_s) if high > place else 0.0
            found[tp.topic] = found.get(tp.topic, Lag()).with_partition(high - place, age_s)
        return found
