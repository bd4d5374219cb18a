"""Records of one item on its way through the tiers."""

from __future__ import annotations

import hashlib
from datetime import UTC, datetime, timedelta
from typing import Any

from pipeline.detection.policy import DEFAULT_THRESHOLDS
from schemas.decision import Decision, Outcome, Reason, ReasonCode, Risk
from schemas.media import (
    Admission,
    AnomalousMedia,
    EvidenceRef,
    Feature,
    MediaFacts,
    SpectralFinding,
    StageScore,
    StageTiming,
    SuspectMedia,
    decision_uid,
)
from schemas.types import Priority, StageName

NOW = datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)
PAST = datetime.now(UTC) - timedelta(days=1)


def admission(priority: Priority = Priority.NORMAL, expires_at: datetime | None = None) -> Admission:
    return Admission(
        tenant="acme",
        media_id="m-1",
        decision_uid=decision_uid("acme", "m-1", "a" * 64, "p1", "b1"),
        uri="file:///x",
        priority=priority,
        expires_at=expires_at,
        admitted_at=NOW,
        policy_version="p1",
        bundle_version="b1",
    )


def facts(data: bytes = b"x") -> MediaFacts:
    sha256 = hashlib.sha256(data).hexdigest()
    return MediaFacts(sha256=sha256, size_bytes=len(data), format="png", lossless=True, width=64, height=48)


def score(stage: StageName, value: float | None) -> StageScore:
    return StageScore(stage=stage, score=value, bundle_version="b1", model="m")


def suspect(classifier: float | None = 0.5, *, data: bytes = b"x", **stamped: Any) -> SuspectMedia:
    return SuspectMedia(
        admission=admission(**stamped),
        facts=facts(data),
        scores=(score(StageName.CLASSIFIER, classifier),),
        timings=(StageTiming(stage=StageName.CLASSIFIER, waited_ms=1.0, worked_ms=2.0),),
    )


def anomalous(
    classifier: float = 0.9, spectral: float = 0.9, *, data: bytes = b"x", panel: EvidenceRef, **stamped: Any
) -> AnomalousMedia:
    before = suspect(classifier, data=data, **stamped)
    features = (Feature(name="grid", value=1.5, percentile=99.0),)
    return AnomalousMedia(
        admission=before.admission,
        facts=before.facts,
        spectral=SpectralFinding(score=spectral, p_value=0.01, stratum="png", top_features=features, panel=panel),
        scores=(*before.scores, score(StageName.SPECTRAL, spectral)),
        timings=before.timings,
    )


def decision(outcome: Outcome = Outcome.PASS, code: ReasonCode = ReasonCode.SCORE_BELOW_T1) -> Decision:
    stamped = admission()
    return Decision(
        decision_uid=stamped.decision_uid,
        outcome=outcome,
        risk=Risk.RELEASED if outcome is Outcome.PASS else None,
        stage_exited=StageName.CLASSIFIER,
        admission=stamped,
        thresholds=DEFAULT_THRESHOLDS,
        reasons=(Reason(code=code),),
        decided_at=NOW,
    )
