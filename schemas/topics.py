"""Every topic of the fleet: its name, what it carries, how long it is kept."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum

from schemas.base import Record
from schemas.decision import Decision, Outcome
from schemas.erasure import Erasure
from schemas.media import AnomalousMedia, MediaReference, SuspectMedia
from schemas.quality import QualityEvent
from schemas.reference import ReferencePointer
from schemas.review import ReferenceUpdate, ReviewAction, ReviewVerdict
from schemas.shadow import AuditSample, ShadowResult

INGEST_MAX_BYTES = 1_048_576
"""Largest record batch (value, key, headers and the broker's framing) that the ingest topic takes."""

DEAD_LETTER_MAX_BYTES = INGEST_MAX_BYTES + 65_536
"""An original of the largest size, with its dead-letter headers, always fits."""

_DAY_MS = 86_400_000


class Topic(StrEnum):
    """Logical topics; a deployment may put a prefix before the names."""

    INGEST = "media.ingest"
    RETRY_10S = "media.ingest.retry.10s"
    RETRY_1M = "media.ingest.retry.1m"
    RETRY_10M = "media.ingest.retry.10m"
    SUSPECT = "media.suspect"
    SUSPECT_PRIORITY = "media.suspect.priority"
    ANOMALOUS = "media.anomalous"
    ANOMALOUS_PRIORITY = "media.anomalous.priority"
    DEAD_LETTER = "media.deadletter"
    BLOCK = "decisions.block"
    ESCALATE = "decisions.escalate"
    PASS = "decisions.pass"  # noqa: S105 - a topic, no password
    REVIEWS = "reviews.verdicts"
    REVIEW_ACTIONS = "reviews.actions"
    REFERENCE_UPDATES = "references.updates"
    REFERENCES = "references"
    ERASURES = "evidence.erasures"
    AUDIT_SAMPLES = "audit.samples"
    SHADOW_RESULTS = "shadow.results"
    QUALITY = "quality.events"


@dataclass(frozen=True, slots=True)
class TopicSpec:
    """What `topics apply` creates and `topics check` compares. `record` None: original bytes of any kind.

    `partitions` None: as many as the deployment says. `compacted`: the last record of each key is kept for ever, and
    `retention_ms` is what Kafka is told and does not use.
    """

    topic: Topic
    record: type[Record] | None
    retention_ms: int
    max_bytes: int
    purpose: str
    partitions: int | None = None
    compacted: bool = False

    @property
    def cleanup(self) -> str:
        """Kafka's `cleanup.policy`."""
        return "compact" if self.compacted else "delete"


_STAGE_MAX_BYTES = 262_144

TOPICS: tuple[TopicSpec, ...] = (
    TopicSpec(Topic.INGEST, MediaReference, 7 * _DAY_MS, INGEST_MAX_BYTES, "media references from producers"),
    *(
        TopicSpec(
            t,
            MediaReference,
            7 * _DAY_MS,
            DEAD_LETTER_MAX_BYTES,
            f"origins to ask again after {t.value[-3:].strip('.')}",
        )
        for t in (Topic.RETRY_10S, Topic.RETRY_1M, Topic.RETRY_10M)
    ),
    TopicSpec(Topic.SUSPECT, SuspectMedia, 7 * _DAY_MS, _STAGE_MAX_BYTES, "score >= T1, for the spectral stage"),
    TopicSpec(Topic.SUSPECT_PRIORITY, SuspectMedia, 7 * _DAY_MS, _STAGE_MAX_BYTES, "the same, served 8:1"),
    TopicSpec(Topic.ANOMALOUS, AnomalousMedia, 7 * _DAY_MS, _STAGE_MAX_BYTES, "anomaly >= T2, for the MLLM stage"),
    TopicSpec(Topic.ANOMALOUS_PRIORITY, AnomalousMedia, 7 * _DAY_MS, _STAGE_MAX_BYTES, "the same, served 8:1"),
    TopicSpec(Topic.DEAD_LETTER, None, 30 * _DAY_MS, DEAD_LETTER_MAX_BYTES, "records that could not be processed"),
    TopicSpec(Topic.BLOCK, Decision, 30 * _DAY_MS, _STAGE_MAX_BYTES, "verdict block, as OCSF Detection Finding"),
    TopicSpec(Topic.ESCALATE, Decision, 30 * _DAY_MS, _STAGE_MAX_BYTES, "verdict escalate, for people"),
    TopicSpec(Topic.PASS, Decision, 30 * _DAY_MS, _STAGE_MAX_BYTES, "verdict pass, with its risk flag"),
    TopicSpec(Topic.REVIEWS, ReviewVerdict, 30 * _DAY_MS, _STAGE_MAX_BYTES, "what people said of escalated media"),
    TopicSpec(Topic.REVIEW_ACTIONS, ReviewAction, 30 * _DAY_MS, _STAGE_MAX_BYTES, "what people did in the console"),
    TopicSpec(Topic.REFERENCE_UPDATES, ReferenceUpdate, 30 * _DAY_MS, _STAGE_MAX_BYTES, "samples confirmed by people"),
    TopicSpec(
        Topic.REFERENCES,
        ReferencePointer,
        30 * _DAY_MS,
        _STAGE_MAX_BYTES,
        "which spectral reference decides now; key: the reference that the bundle holds",
        partitions=1,
        compacted=True,
    ),
    TopicSpec(Topic.ERASURES, Erasure, 30 * _DAY_MS, _STAGE_MAX_BYTES, "payloads whose keys were destroyed, and why"),
    TopicSpec(
        Topic.AUDIT_SAMPLES, AuditSample, 30 * _DAY_MS, _STAGE_MAX_BYTES, "what later stages make of stage-1 passes"
    ),
    TopicSpec(Topic.SHADOW_RESULTS, ShadowResult, 7 * _DAY_MS, _STAGE_MAX_BYTES, "what other rules would decide"),
    TopicSpec(Topic.QUALITY, QualityEvent, 30 * _DAY_MS, _STAGE_MAX_BYTES, "regressions, as OCSF Application Error"),
)

RETRY_DELAYS_S: dict[Topic, float] = {Topic.RETRY_10S: 10.0, Topic.RETRY_1M: 60.0, Topic.RETRY_10M: 600.0}
"""One fixed delay a topic, so that due times rise with the offset."""

DECISION_TOPICS: dict[Outcome, Topic] = {
    Outcome.BLOCK: Topic.BLOCK,
    Outcome.ESCALATE: Topic.ESCALATE,
    Outcome.PASS: Topic.PASS,
}

AUDITED_TOPICS: tuple[Topic, ...] = (
    *DECISION_TOPICS.values(),
    Topic.REVIEWS,
    Topic.REVIEW_ACTIONS,
    Topic.REFERENCE_UPDATES,
    Topic.ERASURES,
)
"""What the audit log keeps a leaf of, record by record."""
