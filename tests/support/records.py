"""Valid records between the stages, with the fields that a test cares about."""

from __future__ import annotations

from datetime import UTC, datetime

from pipeline.media.content_store import ContentStore
from pipeline.media.decode import DecodeLimits, decode_image
from schemas.media import Admission, AnomalousMedia, EvidenceRef, MediaFacts, SpectralFinding, StageScore, SuspectMedia
from schemas.media import decision_uid as uid_of
from schemas.types import StageName

TENANT = "default"
_VERSION = "v1"


def admission(media_id: str, sha256: str) -> Admission:
    """As the classifier stamps it."""
    return Admission(
        tenant=TENANT,
        media_id=media_id,
        decision_uid=uid_of(TENANT, media_id, sha256, _VERSION, _VERSION),
        uri=f"file:///{media_id}",
        admitted_at=datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC),
        policy_version=_VERSION,
        bundle_version=_VERSION,
    )


def suspect(media_id: str, classifier: float = 0.5) -> SuspectMedia:
    """Its bytes lie nowhere: for stages that do not look at them."""
    facts = MediaFacts(sha256="0" * 64, size_bytes=1, format="png", lossless=True, width=1, height=1)
    return SuspectMedia(
        admission=admission(media_id, facts.sha256), facts=facts, scores=(_score(StageName.CLASSIFIER, classifier),)
    )


def anomalous(media_id: str, store: ContentStore, original: bytes, panel_png: bytes, score: float) -> AnomalousMedia:
    """Original and panel in the store, both pixel stages at `score`."""
    facts = decode_image(original, DecodeLimits()).facts
    store.put(TENANT, facts.sha256, original)
    uri, sha256 = store.put_evidence(TENANT, panel_png, ".png")
    panel = EvidenceRef(kind="spectral_panel", uri=uri, sha256=sha256)
    return AnomalousMedia(
        admission=admission(media_id, facts.sha256),
        facts=facts,
        spectral=SpectralFinding(score=score, p_value=0.01, stratum="png-small", top_features=(), panel=panel),
        scores=(_score(StageName.CLASSIFIER, score), _score(StageName.SPECTRAL, score)),
    )


def _score(stage: StageName, score: float) -> StageScore:
    return StageScore(stage=stage, score=score, bundle_version=_VERSION, model="made up")
