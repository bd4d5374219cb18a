"""The fleet's own records, read from their topics: decisions, samples, reviews."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import datetime
from typing import TypeVar
from uuid import UUID

from pipeline.streaming.codec import TopicNames
from pipeline.streaming.kafka.client import RecordReader
from pipeline.streaming.kafka.config import KafkaSettings
from schemas.base import Record
from schemas.decision import Decision, Outcome
from schemas.ocsf import machine_decision
from schemas.review import ReferenceUpdate, ReviewVerdict
from schemas.shadow import AuditSample, ShadowResult
from schemas.topics import DECISION_TOPICS, Topic
from schemas.wire import UnknownMajorVersion, WireError, decode

STRICTEST_FIRST = (Outcome.BLOCK, Outcome.ESCALATE, Outcome.PASS)

R = TypeVar("R", bound=Record)
T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Window:
    """Media admitted from `since` up to but not including `until`.

    Not by the time of the decision: what takes longest would be missing at the end of every window.
    """

    since: datetime
    until: datetime

    def holds(self, time: datetime) -> bool:
        """True: within."""
        return self.since <= time < self.until


class RecordUnreadable(Exception):
    """A record on a topic of ours that cannot be read; the text names its place."""


@dataclass(frozen=True, slots=True)
class Recorded:
    """Reads the topics of one deployment.

    Every method raises KafkaUnavailable, and RecordUnreadable: a report must not quietly leave something out.
    """

    kafka: KafkaSettings

    def decisions(self, window: Window) -> Iterator[Decision]:
        """What the machine decided on media of the window, in the order of the topics.

        What people made of a decision lies on the same topics and is left out. A reference that
        was delivered twice is decided once, as the strictest says.
        """
        found: set[bytes] = set()  # of millions, so not as objects
        for outcome in STRICTEST_FIRST:  # so that of equal uids the strictest comes first
            for decision in self._read(machine_decision, DECISION_TOPICS[outcome], window.since):
                if decision is None or decision.decision_uid.bytes in found:
                    continue
                if window.holds(decision.admission.admitted_at):
                    found.add(decision.decision_uid.bytes)
                    yield decision

    def samples(self, window: Window) -> Iterator[AuditSample]:
        """Samples of stage-1 passes, each decision once."""
        found: set[UUID] = set()
        for sample in self._records(AuditSample, Topic.AUDIT_SAMPLES, window.since):
            if window.holds(sample.admission.admitted_at) and sample.decision.decision_uid not in found:
                found.add(sample.decision.decision_uid)
                yield sample

    def shadows(self, window: Window) -> Iterator[ShadowResult]:
        """What the shadow made of decisions, each decision and each of its rules once."""
        found: set[tuple[UUID, str, str]] = set()
        for result in self._records(ShadowResult, Topic.SHADOW_RESULTS, window.since):
            key = (result.admission.decision_uid, result.shadow.bundle_version, result.shadow.policy_version)
            if window.holds(result.admission.admitted_at) and key not in found:
                found.add(key)
                yield result

    def reviews(self, since: datetime) -> dict[UUID, ReviewVerdict]:
        """The latest review of each decision; reviews come after what they are of, so there is no end."""
        latest: dict[UUID, ReviewVerdict] = {}
        for review in self._records(ReviewVerdict, Topic.REVIEWS, since):
            before = latest.get(review.decision_uid)
            if before is None or (review.reviewed_at, review.review_id) > (before.reviewed_at, before.review_id):
                latest[review.decision_uid] = review
        return latest

    def references(self, since: datetime) -> Iterator[ReferenceUpdate]:
        """Confirmed samples that went into a reference, so that no evaluation counts them."""
        return self._records(ReferenceUpdate, Topic.REFERENCE_UPDATES, since)

    def _records(self, model: type[R], topic: Topic, since: datetime) -> Iterator[R]:
        return self._read(lambda value: decode(model, value), topic, since)

    def _read(self, parse: Callable[[bytes], T], topic: Topic, since: datetime) -> Iterator[T]:
        """A record is never older on its topic than what it tells of."""
        name = TopicNames(self.kafka.topic_prefix).physical(topic)
        since_ms = max(0, int(since.timestamp() * 1000))
        with RecordReader(self.kafka, [name], since_ms=since_ms) as reader:
            for record in reader.to_end():
                try:
                    parsed = parse(record.value)
                except (WireError, UnknownMajorVersion) as error:
                    where = f"{record.tp.topic}[{record.tp.partition}]@{record.offset}"
                    raise RecordUnreadable(f"{where}: {error}; upgrade this command, or begin after it") from error
                yield parsed
