"""What never becomes a decision: samples that measure stage 1, and the verdicts of rules that only watch."""

from __future__ import annotations

from typing import Annotated, ClassVar

from pydantic import Field

from schemas.base import Record
from schemas.decision import Decision, Outcome, Risk
from schemas.media import Admission, MediaFacts, SamplingProbability, ShadowTrail, StageScore, StageTiming
from schemas.types import Probability, StageName, Text, Timestamp


class AuditSample(Record):
    """What the later stages make of media that stage 1 passed.

    `decision` was not published: the pass of the same `decision_uid` on `decisions.pass` is the one that counts.
    """

    event_type: ClassVar[str] = "dev.mediasieve.audit.sample.v1"

    probability: SamplingProbability
    decision: Decision

    @property
    def admission(self) -> Admission:
        """Of the media, as stamped when it was passed."""
        return self.decision.admission


class ShadowResult(Record):
    """One decision beside what a second bundle or policy would have decided on the same pixels."""

    event_type: ClassVar[str] = "dev.mediasieve.shadow.result.v1"

    admission: Admission
    facts: MediaFacts | None = None
    outcome: Outcome
    risk: Risk | None = None
    stage_exited: StageName
    final_score: Probability | None = None
    scores: Annotated[tuple[StageScore, ...], Field(max_length=8)] = ()
    timings: Annotated[tuple[StageTiming, ...], Field(max_length=8)] = ()
    shadow: ShadowTrail
    shadow_outcome: Annotated[
        Outcome | None, Field(description="null: the live rules let it go before it could be told; `why` says where")
    ] = None
    shadow_risk: Risk | None = None
    shadow_stage: Annotated[StageName, Field(description="where the shadow decided, or would have to look")]
    why: Text = ""
    decided_at: Timestamp
