"""Decisions, samples and reviews as a fleet leaves them, with the numbers that a report cares about."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from uuid import UUID, uuid5

from pipeline.detection.policy import DEFAULT_THRESHOLDS
from schemas.decision import Decision, Outcome, Reason, ReasonCode, Risk
from schemas.media import Admission, MediaFacts, StageScore, decision_uid
from schemas.review import Label, ReviewVerdict
from schemas.shadow import AuditSample
from schemas.types import StageName

NOW = datetime(2026, 3, 1, 12, tzinfo=UTC)
_STAGES = tuple(StageName)


def decided(
    media_id: str,
    outcome: Outcome,
    *scores: float | None,
    risk: Risk | None = None,
    source: str | None = "camera",
    at: datetime = NOW,
    quality: int | None = 90,
    code: ReasonCode = ReasonCode.UNCERTAIN,
    sha256: str = "0" * 64,
    bundle: str = "b1",
    reference: str = "m",
) -> Decision:
    """Exited at the stage of its last score; a JPEG, or with quality None a PNG."""
    admission = Admission(
        tenant="acme",
        media_id=media_id,
        decision_uid=decision_uid("acme", media_id, None, "p1", bundle),
        uri="file:///x",
        source=source,
        admitted_at=at,
        policy_version="p1",
        bundle_version=bundle,
    )
    return Decision(
        decision_uid=admission.decision_uid,
        outcome=outcome,
        risk=risk,
        stage_exited=_STAGES[max(0, len(scores) - 1)],
        admission=admission,
        facts=MediaFacts(
            sha256=sha256,
            size_bytes=10,
            format="png" if quality is None else "jpeg",
            lossless=quality is None,
            width=800,
            height=600,
            jpeg_quality=quality,
        ),
        scores=tuple(
            StageScore(
                stage=stage,
                score=value,
                bundle_version=bundle,
                model=f"spectral/{reference}" if stage is StageName.SPECTRAL else "m",
                note="jpeg_85_94/384_767",
            )
            for stage, value in zip(_STAGES, scores, strict=False)
        ),
        thresholds=DEFAULT_THRESHOLDS,
        reasons=(Reason(code=code),),
        decided_at=at + timedelta(seconds=1),
    )


def released(media_id: str, score: float = 0.1, **fields: object) -> Decision:
    """Passed by stage 1."""
    return decided(media_id, Outcome.PASS, score, risk=Risk.RELEASED, **fields)  # type: ignore[arg-type]  # passed on


def sampled(
    media_id: str, outcome: Outcome, *scores: float | None, probability: float = 0.01, **fields: object
) -> AuditSample:
    """The same media after the later stages."""
    risk = {2: Risk.LOW_RISK, 3: Risk.CLEARED}[len(scores)] if outcome is Outcome.PASS else None
    made = decided(media_id, outcome, *scores, risk=risk, **fields)  # type: ignore[arg-type]  # passed on
    return AuditSample(probability=probability, decision=made)


def reviewed(decision: Decision, label: Label, at: datetime = NOW + timedelta(hours=1)) -> ReviewVerdict:
    """By a person."""
    return ReviewVerdict(
        review_id=uuid5(decision.decision_uid, f"{label}{at}"),
        decision_uid=decision.decision_uid,
        tenant="acme",
        media_id=decision.admission.media_id,
        label=label,
        reviewer="anna",
        rationale="seen",
        reviewed_at=at,
    )


def by_uid(*reviews: ReviewVerdict) -> dict[UUID, ReviewVerdict]:
    """As reports take them."""
    return {review.decision_uid: review for review in reviews}
