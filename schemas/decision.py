"""The verdict on one media reference."""

from __future__ import annotations

from enum import StrEnum
from typing import Annotated, ClassVar
from uuid import UUID

from pydantic import ConfigDict, Field, model_validator
from pydantic.config import JsonDict

from schemas.base import Part, Record
from schemas.media import Admission, EvidenceRef, MediaFacts, StageScore, StageTiming
from schemas.types import Probability, StageName, Text, Timestamp


class Outcome(StrEnum):
    """For equal decision uid a consumer takes the strictest: block > escalate > pass."""

    BLOCK = "block"
    ESCALATE = "escalate"
    PASS = "pass"  # noqa: S105 - an outcome, no password


class Risk(StrEnum):
    """How a pass was reached, so that a SIEM may drop `released` and keep the rest."""

    RELEASED = "released"
    LOW_RISK = "low_risk"
    CLEARED = "cleared"


class Mode(StrEnum):
    """Which score stage 2 decided by: its own, or its own and the classifier's together."""

    STRICT = "strict"
    FUSED = "fused"


class ReasonCode(StrEnum):
    """Why this outcome. Scores first, then everything that fails closed into an escalation."""

    SCORE_BELOW_T1 = "score_below_t1"
    ANOMALY_BELOW_T2 = "anomaly_below_t2"
    SYNTHETIC_CONFIRMED = "synthetic_confirmed"
    AUTHENTIC_CONFIRMED = "authentic_confirmed"
    UNCERTAIN = "uncertain"
    NOT_BLOCKED = "not_blocked"
    NOT_CLEARED = "not_cleared"
    SPECTRAL_NOT_APPLICABLE = "spectral_not_applicable"
    EXPIRED = "expired"
    MEDIA_TRUNCATED = "media_truncated"
    MEDIA_TOO_LARGE = "media_too_large"
    MEDIA_UNSUPPORTED = "media_unsupported"
    MEDIA_TYPE_MISMATCH = "media_type_mismatch"
    MEDIA_UNDECODABLE = "media_undecodable"
    ANALYSIS_CRASH = "analysis_crash"
    DEPENDENCY_UNAVAILABLE = "dependency_unavailable"
    CONTENT_MISSING = "content_missing"
    MLLM_UNCONFIGURED = "mllm_unconfigured"
    MLLM_UNAVAILABLE = "mllm_unavailable"
    MLLM_TIMEOUT = "mllm_timeout"
    MLLM_REFUSED = "mllm_refused"
    MLLM_INVALID_REPORT = "mllm_invalid_report"
    MLLM_OVERLOADED = "mllm_overloaded"


class Reason(Part):
    """One line a reviewer can read."""

    code: ReasonCode
    detail: Text = ""


class Thresholds(Part):
    """The policy's numbers at the time of the verdict; all on P(synthetic).

    `t1_alone`: in fused mode, below it the classifier alone passes media whose spectrum says nothing; None: `t1`.
    """

    t1: Probability
    t1_alone: Probability | None = None
    priority: Probability
    t2: Probability
    t3_block: Probability
    t3_clear: Probability
    p12_block: Probability
    uncertain: Probability


_RISK_MEANS_PASS: JsonDict = {
    "if": {"properties": {"outcome": {"const": "pass"}}, "required": ["outcome"]},
    "then": {"properties": {"risk": {"type": "string"}}, "required": ["risk"]},
    "else": {"properties": {"risk": {"type": "null"}}},
}


class Decision(Record):
    """What `decisions.block|escalate|pass` carry, inside an OCSF Detection Finding."""

    model_config = ConfigDict(json_schema_extra=_RISK_MEANS_PASS)
    event_type: ClassVar[str] = "dev.mediasieve.decision.v1"

    decision_uid: UUID
    sequence: Annotated[int, Field(ge=0)] = 0
    outcome: Outcome
    risk: Risk | None = None
    stage_exited: StageName
    final_score: Probability | None = None
    admission: Admission
    facts: MediaFacts | None = None
    scores: Annotated[tuple[StageScore, ...], Field(max_length=8)] = ()
    mode: Mode = Mode.STRICT
    thresholds: Thresholds
    evidence: Annotated[tuple[EvidenceRef, ...], Field(max_length=16)] = ()
    reasons: Annotated[tuple[Reason, ...], Field(min_length=1, max_length=16)]
    timings: Annotated[tuple[StageTiming, ...], Field(max_length=8)] = ()
    decided_at: Timestamp

    @model_validator(mode="after")
    def _a_pass_says_how(self) -> Decision:
        if (self.outcome is Outcome.PASS) != (self.risk is not None):
            raise ValueError("`risk` is given for a pass and for nothing else")
        if self.decision_uid != self.admission.decision_uid:
            raise ValueError("`decision_uid` differs from `admission.decision_uid`")
        return self
