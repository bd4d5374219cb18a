"""Published against decided: what a reader of committed records finds, by media id and by decision_uid."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection
from dataclasses import dataclass, field

import orjson

from pipeline.streaming.kafka.client import RecordReader
from pipeline.streaming.kafka.config import KafkaSettings
from pipeline.streaming.transport import RawRecord
from schemas.deadletter import DEAD_LETTER_HEADER
from schemas.topics import DECISION_TOPICS, Topic


@dataclass
class Count:
    """Of the machine's answers; reviews are left out."""

    by_media: Counter[str] = field(default_factory=Counter)
    by_uid: Counter[str] = field(default_factory=Counter)
    by_topic: Counter[str] = field(default_factory=Counter)
    by_bundle: Counter[str] = field(default_factory=Counter)
    by_reason: Counter[str] = field(default_factory=Counter)
    codes: Counter[str] = field(default_factory=Counter)
    bundles: list[tuple[int, str]] = field(default_factory=list)
    """When a decision was written, in ms of Kafka's clock, and by which bundle it was admitted."""

    @classmethod
    def read(cls, kafka: KafkaSettings) -> Count:
        """All that the decision and dead-letter topics hold now."""
        found = cls()
        topics = [*DECISION_TOPICS.values(), Topic.DEAD_LETTER]
        with RecordReader(kafka, topics) as reader:
            for record in reader.to_end():
                found.add(record)
        return found

    def add(self, record: RawRecord) -> None:
        """Count one record."""
        if record.tp.topic == Topic.DEAD_LETTER:
            letter = orjson.loads(record.header(DEAD_LETTER_HEADER) or b"")
            self._count(record, letter["media_id"])
            self.codes[letter["code"]] += 1
            return
        unmapped = orjson.loads(record.value)["unmapped"]
        if "review" in unmapped:
            return
        decision = unmapped["mediasieve"]
        bundle = decision["admission"]["bundle_version"]
        self._count(record, decision["admission"]["media_id"])
        self.by_uid[decision["decision_uid"]] += 1
        self.by_bundle[bundle] += 1
        self.by_reason[decision["reasons"][0]["code"]] += 1
        self.bundles.append((record.timestamp_ms, bundle))

    def _count(self, record: RawRecord, media_id: str) -> None:
        self.by_media[media_id] += 1
        self.by_topic[record.tp.topic] += 1

    def missing(self, published: Collection[str]) -> list[str]:
        """Published and not answered."""
        return [m for m in published if m not in self.by_media]

    def line(self, published: Collection[str]) -> str:
        """The sum of it."""
        doubled = sum(n - 1 for m, n in self.by_media.items() if m in set(published))
        uids = sum(n - 1 for n in self.by_uid.values())
        answers = self.by_media.total()
        letters = self.by_topic[Topic.DEAD_LETTER]
        return (
            f"published {len(published)}, decided {answers - letters}, dead letters {letters}, lost "
            f"{len(self.missing(published))}, answered again {doubled}, decision_uids seen twice {uids}"
        )

    def exact(self, published: Collection[str]) -> bool:
        """Each of them has one answer, and there is no other."""
        return self.by_media == Counter(published) and max(self.by_uid.values(), default=1) == 1
