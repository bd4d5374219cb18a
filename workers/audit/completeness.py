"""Whether the log has a leaf for every record that Kafka holds, and for no other."""

from __future__ import annotations

import hashlib
import time
from dataclasses import dataclass, field

from pipeline.evidence.log.errors import NotInLog
from pipeline.evidence.log.key_set import KeySet
from pipeline.evidence.log.leaf import Leaf
from pipeline.streaming.codec import TopicNames
from pipeline.streaming.kafka.admin import PartitionId, TopicAdmin
from pipeline.streaming.kafka.client import RecordReader
from pipeline.streaming.kafka.config import KafkaSettings
from schemas.topics import AUDITED_TOPICS, Topic
from workers.audit.log import LogPlace

LATE_S = 3600
"""A record of this age has its leaf, if an audit worker is at work."""

GROUP = "audit"
"""The consumer group of the audit workers."""

_SHOWN = 5


@dataclass(frozen=True, slots=True)
class Completeness:
    """One partition. `compared` records are in both, `pending` ones wait for their leaf.

    Faults, as offsets: `missing` are in Kafka and not in the log, though later ones are, or the group `audit` has
    committed past them, or they are older than `LATE_S`; `foreign` are in the log and not in Kafka, though Kafka keeps
    that range or ends below; `differing` have another digest there.
    """

    tree: str
    compared: int
    pending: int
    missing: tuple[int, ...] = ()
    foreign: tuple[int, ...] = ()
    differing: tuple[int, ...] = ()

    @property
    def ok(self) -> bool:
        """The two sets are equal, but for what is pending."""
        return not (self.missing or self.foreign or self.differing)

    @property
    def detail(self) -> str:
        """What is wrong, in words; empty when nothing is."""
        lists = (("missing", self.missing), ("foreign", self.foreign), ("differing", self.differing))
        return "; ".join(f"{len(found)} {kind}: {_some(found)}" for kind, found in lists if found)


def compare_with_kafka(place: LogPlace, keys: KeySet, kafka: KafkaSettings) -> list[Completeness]:
    """Read every audited topic again, committed records only, and compare (topic, partition, offset, digest).

    Holds a digest for each record of one topic in memory.

    Raises:
        KafkaUnavailable, AdminError: Kafka does not answer.
        LogCorrupt, Untrusted, LogUnavailable: see LogReader.
    """
    admin, names = TopicAdmin(kafka.common()), TopicNames(kafka.topic_prefix)
    found = []
    for topic in AUDITED_TOPICS:
        held = _held(admin, kafka, names.physical(topic))
        logged = {p: _logged(place, keys, topic, p, one.low) for p, one in held.items()}
        ends = admin.end_offsets([names.physical(topic)])  # asked last: what is logged meanwhile lies below
        for partition, one in sorted(held.items()):
            end = ends[PartitionId(names.physical(topic), partition)]
            found.append(compare(f"{topic}/{partition}", one, logged[partition], end))
    return found


@dataclass(slots=True)
class Held:
    """What Kafka holds of a partition: digests by offset, from `low` on.

    `due` are offsets that must have a leaf by now. It was read before the log.
    """

    digests: dict[int, bytes] = field(default_factory=dict)
    due: set[int] = field(default_factory=set)
    low: int = 0


def _held(admin: TopicAdmin, kafka: KafkaSettings, name: str) -> dict[int, Held]:
    ends = admin.end_offsets([name])  # asked before the lag, so that a point is never put too high
    lag = admin.group_lag(kafka.group(GROUP), [name])
    held = {p.partition: Held() for p in ends}
    late_ms = (time.time() - LATE_S) * 1000
    with RecordReader(kafka, [name]) as reader:
        for record in reader.to_end():
            one = held[record.tp.partition]
            one.digests[record.offset] = hashlib.sha256(record.value).digest()
            place = PartitionId(name, record.tp.partition)
            if record.offset < ends[place] - lag[place] or record.timestamp_ms < late_ms:
                one.due.add(record.offset)
    for place, low in admin.start_offsets([name]).items():  # asked last: what retention removes meanwhile is no fault
        one = held[place.partition]
        one.low, one.digests = low, {offset: digest for offset, digest in one.digests.items() if offset >= low}
    return held


def compare(tree: str, kafka: Held, log: dict[int, bytes], end: int) -> Completeness:
    """Compare with the leaves from `kafka.low` on; `end` is Kafka's, asked after the log was read."""
    held = kafka.digests
    last_logged, last_read = max(log, default=-1), max(held, default=-1)
    absent, extra, both = held.keys() - log.keys(), log.keys() - held.keys(), held.keys() & log.keys()
    missing = sorted(o for o in absent if o < last_logged or o in kafka.due)
    return Completeness(
        tree,
        compared=len(both),
        pending=len(absent) - len(missing),
        missing=tuple(missing),
        foreign=tuple(sorted(o for o in extra if o <= last_read or o >= end)),
        differing=tuple(sorted(o for o in both if held[o] != log[o])),
    )


def _logged(place: LogPlace, keys: KeySet, topic: Topic, partition: int, low: int) -> dict[int, bytes]:
    """Digests by offset, from `low` on, of leaves that stand for records; a gap's leaf stands for none."""
    reader = place.reader(f"{topic}/{partition}", keys)
    try:
        size = reader.checkpoint().size
    except NotInLog:
        return {}
    leaves = (Leaf.parse(entry) for entry in reader.entries(0, size))
    kept = (leaf for leaf in leaves if leaf.gap_from is None and leaf.offset >= low)
    return {leaf.offset: bytes.fromhex(leaf.record_sha256) for leaf in kept}


def _some(offsets: tuple[int, ...]) -> str:
    shown = ", ".join(map(str, offsets[:_SHOWN]))
    return f"{shown}, ..." if len(offsets) > _SHOWN else shown
