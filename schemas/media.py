"""Media on its way through the tiers: MediaReference -> SuspectMedia -> AnomalousMedia.

Only references and results cross a topic, never pixels.
"""

from __future__ import annotations

from typing import Annotated, Any, ClassVar
from uuid import NAMESPACE_URL, UUID, uuid5

from pydantic import AfterValidator, ConfigDict, Field, model_validator

from schemas.base import Part, Record
from schemas.types import (
    ChromaSubsampling,
    ContentType,
    Identifier,
    Labels,
    MediaFormat,
    Milliseconds,
    Priority,
    Probability,
    Sha256,
    ShortText,
    StageName,
    Timestamp,
    Uri,
    Version,
)

DEFAULT_TENANT = "default"
MAX_EXTENSION_DEPTH = 16
"""Well inside `schemas.wire.MAX_DEPTH`, because unknown fields move one level down."""

DECISION_NAMESPACE = uuid5(NAMESPACE_URL, "https://mediasieve.dev/decision")


def decision_uid(tenant: str, media_id: str, content_sha256: str | None, policy: str, bundle: str) -> UUID:
    """UUIDv5 of what a verdict depends on; the same reference under the same rules has one decision uid.

    `content_sha256` is None when the bytes were never obtained (expired, source unavailable).
    """
    return uuid5(DECISION_NAMESPACE, "\x1f".join((tenant, media_id, content_sha256 or "", policy, bundle)))


def _not_too_deep(extensions: dict[str, Any]) -> dict[str, Any]:
    level: list[Any] = [extensions]
    for _ in range(MAX_EXTENSION_DEPTH):
        parts = [node.values() if isinstance(node, dict) else node for node in level]
        level = [child for part in parts for child in part if isinstance(child, dict | list)]
        if not level:
            return extensions
    raise ValueError(f"unknown fields nest more than {MAX_EXTENSION_DEPTH} levels; flatten them")


class MediaReference(Record):
    """What a producer publishes to `media.ingest`. Only `uri` is required.

    Unknown fields are kept in `extensions`, never refused: producers evolve on their own clock.
    """

    model_config = ConfigDict(json_schema_extra={"additionalProperties": True})
    event_type: ClassVar[str] = "dev.mediasieve.media.reference.v1"

    uri: Uri
    media_id: Identifier | None = None
    sha256: Sha256 | None = None
    content_type: ContentType | None = None
    size_bytes: Annotated[int, Field(ge=0, le=2**40)] | None = None
    source: Identifier | None = None
    tenant: Identifier | None = None
    priority: Priority = Priority.NORMAL
    submitted_at: Timestamp | None = None
    expires_at: Timestamp | None = None
    labels: Labels = Field(default_factory=dict)
    extensions: Annotated[dict[str, Any], AfterValidator(_not_too_deep)] = Field(default_factory=dict)

    @model_validator(mode="before")
    @classmethod
    def _keep_unknown_fields(cls, data: Any) -> Any:
        if not isinstance(data, dict):
            return data
        unknown = {k: v for k, v in data.items() if k not in cls.model_fields}
        if not unknown:
            return data
        known = {k: v for k, v in data.items() if k in cls.model_fields}
        given = known.get("extensions", {})
        if not isinstance(given, dict):
            return known
        return {**known, "extensions": {**given, **unknown}}


class Admission(Part):
    """Stamped once, by the classifier stage, and carried unchanged to the decision."""

    tenant: Identifier
    media_id: Identifier
    decision_uid: UUID
    uri: Uri
    source: Identifier | None = None
    priority: Priority = Priority.NORMAL
    labels: Labels = Field(default_factory=dict)
    submitted_at: Timestamp | None = None
    expires_at: Timestamp | None = None
    admitted_at: Timestamp
    policy_version: Version
    bundle_version: Version


class MediaFacts(Part):
    """What the bytes say of themselves. Sizes in pixels and bytes."""

    sha256: Sha256
    size_bytes: Annotated[int, Field(ge=0)]
    format: MediaFormat
    lossless: bool
    width: Annotated[int, Field(ge=1)]
    height: Annotated[int, Field(ge=1)]
    jpeg_quality: Annotated[int, Field(ge=1, le=100)] | None = None
    chroma_subsampling: ChromaSubsampling | None = None


class CandidateScore(Part):
    """What a model that decides nothing yet says of the same measurement; `score` as in `StageScore`."""

    score: Probability | None
    model: ShortText


class StageScore(Part):
    """What one stage measured. `score` is P(synthetic), None when the stage had nothing to say.

    `candidate`: what the model that may take this one's place would have said.
    """

    stage: StageName
    score: Probability | None
    p_value: Probability | None = None
    bundle_version: Version
    model: ShortText
    note: ShortText | None = None
    candidate: CandidateScore | None = None


class StageTiming(Part):
    """Where the time went. `waited_ms` is from the record's Kafka timestamp to the start of the work."""

    stage: StageName
    waited_ms: Milliseconds
    worked_ms: Milliseconds


class EvidenceRef(Part):
    """A blob in the evidence store, named by its own digest."""

    kind: ShortText
    uri: Uri
    sha256: Sha256


class Feature(Part):
    """One spectral statistic; `percentile` is its place among reference photographs of the stratum, 0-100."""

    name: ShortText
    value: float
    percentile: Annotated[float, Field(ge=0.0, le=100.0)] | None = None


SamplingProbability = Annotated[float, Field(gt=0.0, le=1.0)]
"""With which an item was drawn; its inverse is the item's weight."""


class AuditDraw(Part):
    """Marks media that stage 1 has passed and published: no later stage may publish a decision on it."""

    probability: SamplingProbability


class ShadowTrail(Part):
    """What a bundle and policy that only watch have measured so far. Of the timings only `worked_ms` is of use."""

    bundle_version: Version
    policy_version: Version
    scores: Annotated[tuple[StageScore, ...], Field(max_length=8)] = ()
    timings: Annotated[tuple[StageTiming, ...], Field(max_length=8)] = ()


class SuspectMedia(Record):
    """Score >= T1: the spectral stage must look; or a sample of the rest, marked by `audit`.

    The original bytes lie in the content store under `facts.sha256`.
    """

    event_type: ClassVar[str] = "dev.mediasieve.media.suspect.v1"

    admission: Admission
    facts: MediaFacts
    scores: Annotated[tuple[StageScore, ...], Field(max_length=8)]
    timings: Annotated[tuple[StageTiming, ...], Field(max_length=8)] = ()
    audit: AuditDraw | None = None
    shadow: ShadowTrail | None = None


class SpectralFinding(Part):
    """The spectral stage's result. `panel` is the picture that the MLLM and a reviewer see."""

    score: Probability
    p_value: Probability | None
    stratum: ShortText
    top_features: Annotated[tuple[Feature, ...], Field(max_length=32)]
    panel: EvidenceRef


class AnomalousMedia(Record):
    """Anomaly >= T2: the MLLM stage must look at the image and its spectral panel together. `audit` as before."""

    event_type: ClassVar[str] = "dev.mediasieve.media.anomalous.v1"

    admission: Admission
    facts: MediaFacts
    spectral: SpectralFinding
    scores: Annotated[tuple[StageScore, ...], Field(max_length=8)]
    timings: Annotated[tuple[StageTiming, ...], Field(max_length=8)] = ()
    audit: AuditDraw | None = None
    shadow: ShadowTrail | None = None
