"""Whether the log has a leaf for every record that Kafka holds, and for no other."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass

from pipeline.evidence.log.errors import NotInLog
from pipeline.evidence.log.key_set import KeySet
from pipeline.evidence.log.leaf import Leaf
from pipeline.streaming.codec import TopicNames
from pipeline.streaming.kafka.admin import PartitionId, TopicAdmin
from pipeline.streaming.kafka.client import RecordReader
from pipeline.streaming.kafka.config import KafkaSettings
from schemas.topics import AUDITED_TOPICS, Topic
from workers.audit.log import LogPlace

_SHOWN = 5


@dataclass(frozen=True, slots=True)
class Completeness:
    """One partition. `compared` records are in both, `pending` ones are newer than the last leaf.

    Faults, as offsets: `missing` are in Kafka and not in the log though later ones are, `foreign` are in the log and
    not in Kafka though Kafka still keeps that range, `differing` have another digest there.
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
        name = names.physical(topic)
        held: dict[int, dict[int, bytes]] = {p.partition: {} for p in admin.end_offsets([name])}
        with RecordReader(kafka, [name]) as reader:
            for record in reader.to_end():
                held[record.tp.partition][record.offset] = hashlib.sha256(record.value).digest()
        oldest = admin.start_offsets([name])  # asked last: what retention removes meanwhile is no fault
        for partition, records in sorted(held.items()):
            low = oldest[PartitionId(name, partition)]
            kept = {offset: digest for offset, digest in records.items() if offset >= low}
            found.append(compare(f"{topic}/{partition}", kept, _logged(place, keys, topic, partition), low))
    return found


def compare(tree: str, kafka: dict[int, bytes], log: dict[int, bytes], low: int) -> Completeness:
    """Offsets and digests of both sides; Kafka keeps offsets from `low` on, and was read before the log."""
    last_logged, last_read = max(log, default=-1), max(kafka, default=-1)
    newer = sum(offset > last_logged for offset in kafka)
    both = kafka.keys() & log.keys()
    return Completeness(
        tree,
        compared=len(both),
        pending=newer,
        missing=tuple(sorted(o for o in kafka.keys() - log.keys() if o < last_logged)),
        foreign=tuple(sorted(o for o in log.keys() - kafka.keys() if low <= o <= last_read)),
        differing=tuple(sorted(o for o in both if kafka[o] != log[o])),
    )


def _logged(place: LogPlace, keys: KeySet, topic: Topic, partition: int) -> dict[int, bytes]:
    """Leaves that stand for records; a gap's leaf stands for none."""
    reader = place.reader(f"{topic}/{partition}", keys)
    try:
        size = reader.checkpoint().size
    except NotInLog:
        return {}
    leaves = (Leaf.parse(entry) for entry in reader.entries(0, size)) if size else iter(())
    return {leaf.offset: bytes.fromhex(leaf.record_sha256) for leaf in leaves if leaf.gap_from is None}


def _some(offsets: tuple[int, ...]) -> str:
    shown = ", ".join(map(str, offsets[:_SHOWN]))
    return f"{shown}, ..." if len(offsets) > _SHOWN else shown
