"""The manifest of one decision: what it rests on, as canonical JSON in the evidence store.

It is written before the decision is handed on, and the decision names it by digest. So whoever holds the decision
can tell years later that nothing of its grounds was changed, also when the topics are long gone.
"""

from __future__ import annotations

from typing import Annotated, Literal
from uuid import UUID

import orjson
from pydantic import Field, ValidationError

from pipeline.media.content_store import ContentStore
from pipeline.media.errors import ContentCorrupt
from schemas.base import SCHEMA_VERSION, Part
from schemas.decision import Decision, Mode, Outcome, Reason, Risk, Thresholds
from schemas.media import EvidenceRef, Feature, MediaFacts, StageScore, StageTiming
from schemas.ocsf.decided import PRODUCT_VERSION
from schemas.types import Identifier, Probability, Sha256, ShortText, StageName, Timestamp, Uri

KIND = "manifest"
"""Of the `EvidenceRef` by which a decision names its manifest."""

ORIGINAL = "original"
"""Of the `EvidenceRef` of the media's own bytes."""

SUFFIX = ".manifest.json"


class StoredContent(Part):
    """The original bytes, where the store keeps them."""

    uri: Uri
    sha256: Sha256


class SpectralGrounds(Part):
    """What the spectral stage measured; `features` are those that weighed most, `score` None: not applicable."""

    score: Probability | None
    p_value: Probability | None
    stratum: ShortText
    features: Annotated[tuple[Feature, ...], Field(max_length=32)] = ()


class Versions(Part):
    """What must be had again to decide the same. `dialogue`: digest of how the MLLM was asked, None: not asked."""

    package: ShortText
    records: ShortText
    bundle: ShortText
    policy: ShortText
    models: dict[StageName, ShortText]
    dialogue: Sha256 | None = None


class Times(Part):
    """When the reference was submitted, admitted and decided on, in UTC."""

    submitted_at: Timestamp | None
    expires_at: Timestamp | None
    admitted_at: Timestamp
    decided_at: Timestamp


class Manifest(Part):
    """Everything by which a decision can be questioned. `evidence` does not name the manifest itself."""

    v: Literal[1] = 1
    decision_uid: UUID
    sequence: int
    tenant: Identifier
    media_id: Identifier
    uri: Uri
    outcome: Outcome
    risk: Risk | None
    stage_exited: StageName
    reasons: tuple[Reason, ...]
    final_score: Probability | None
    scores: tuple[StageScore, ...]
    mode: Mode
    thresholds: Thresholds
    content: StoredContent | None
    facts: MediaFacts | None
    spectral: SpectralGrounds | None
    evidence: tuple[EvidenceRef, ...]
    versions: Versions
    timings: tuple[StageTiming, ...]
    times: Times

    def encoded(self) -> bytes:
        """JSON with sorted keys: the bytes that are stored and whose digest the decision holds.

        Nobody writes them again to compare, so they need no canonical form as an audit leaf does; that took 2 ms of
        each decision.
        """
        return orjson.dumps(self.model_dump(mode="json"), option=orjson.OPT_SORT_KEYS)

    @classmethod
    def decoded(cls, data: bytes) -> Manifest:
        """Read what `encoded` wrote, ignoring fields that a newer release added.

        Raises:
            ContentCorrupt: it is no manifest of this version.
        """
        try:
            return cls.model_validate_json(data, extra="ignore")
        except ValidationError as error:
            fault = error.errors(include_url=False, include_input=False)[0]
            place = ".".join(map(str, fault["loc"])) or "JSON"
            raise ContentCorrupt(f"not a decision's manifest: {place}: {fault['msg']}") from error


def manifest_of(
    decision: Decision,
    store: ContentStore,
    spectral: SpectralGrounds | None = None,
    dialogue_sha256: str | None = None,
) -> Manifest:
    """Of a decision that names no manifest yet; reads and writes nothing."""
    admission = decision.admission
    return Manifest(
        decision_uid=decision.decision_uid,
        sequence=decision.sequence,
        tenant=admission.tenant,
        media_id=admission.media_id,
        uri=admission.uri,
        outcome=decision.outcome,
        risk=decision.risk,
        stage_exited=decision.stage_exited,
        reasons=decision.reasons,
        final_score=decision.final_score,
        scores=decision.scores,
        mode=decision.mode,
        thresholds=decision.thresholds,
        content=_content(decision, store),
        facts=decision.facts,
        spectral=spectral,
        evidence=decision.evidence,
        versions=_versions(decision, dialogue_sha256),
        timings=decision.timings,
        times=Times(
            submitted_at=admission.submitted_at,
            expires_at=admission.expires_at,
            admitted_at=admission.admitted_at,
            decided_at=decision.decided_at,
        ),
    )


def with_manifest(
    decision: Decision,
    store: ContentStore,
    spectral: SpectralGrounds | None = None,
    dialogue_sha256: str | None = None,
) -> Decision:
    """The decision with its manifest stored and named.

    Raises:
        StoreUnavailable: not stored; the decision must not be handed on.
    """
    data = manifest_of(decision, store, spectral, dialogue_sha256).encoded()
    uri, sha256 = store.put_evidence(decision.admission.tenant, data, SUFFIX)
    named = EvidenceRef(kind=KIND, uri=uri, sha256=sha256)
    return decision.model_copy(update={"evidence": (*decision.evidence, named)})


def read_manifest(decision: Decision, store: ContentStore) -> Manifest | None:
    """The manifest that a decision names; None for one that names none, such as a `released` pass.

    Raises:
        ValueError: it lies in another store.
        ContentMissing, ContentErased, ContentCorrupt, StoreUnavailable: see `pipeline.media.errors`.
    """
    named = next((ref for ref in decision.evidence if ref.kind == KIND), None)
    return Manifest.decoded(store.get_evidence(named.uri, named.sha256)) if named is not None else None


def _content(decision: Decision, store: ContentStore) -> StoredContent | None:
    kept = next((ref for ref in decision.evidence if ref.kind == ORIGINAL), None)
    if kept is not None:
        return StoredContent(uri=kept.uri, sha256=kept.sha256)
    if decision.facts is None:
        return None
    sha256 = decision.facts.sha256
    return StoredContent(uri=store.content_uri(decision.admission.tenant, sha256), sha256=sha256)


def _versions(decision: Decision, dialogue_sha256: str | None) -> Versions:
    return Versions(
        package=PRODUCT_VERSION,
        records=SCHEMA_VERSION,
        bundle=decision.admission.bundle_version,
        policy=decision.admission.policy_version,
        models={score.stage: score.model for score in decision.scores},
        dialogue=dialogue_sha256,
    )
