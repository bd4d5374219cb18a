"""Decisions, made the same way by all three stages."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from typing import Any

from pipeline.detection.policy import Policy
from pipeline.streaming.stage import Emit, Item, Output
from schemas.decision import Decision, Mode, Outcome, Reason, ReasonCode, Risk
from schemas.media import Admission, EvidenceRef, MediaFacts, StageScore, StageTiming
from schemas.topics import DECISION_TOPICS
from schemas.types import StageName

MAX_WAITED_S = 30 * 86_400.0


@dataclass(frozen=True, slots=True)
class CaseFile:
    """What is known of an item when a stage decides on it."""

    admission: Admission
    facts: MediaFacts | None = None
    scores: tuple[StageScore, ...] = ()
    timings: tuple[StageTiming, ...] = ()
    evidence: tuple[EvidenceRef, ...] = ()
    final_score: float | None = None

    def timed(self, timing: StageTiming) -> CaseFile:
        """The same, with the deciding stage's time."""
        return replace(self, timings=(*self.timings, timing))

    @property
    def key(self) -> str:
        """The key on every internal topic."""
        return f"{self.admission.tenant}/{self.admission.media_id}"


@dataclass(frozen=True, slots=True)
class Verdicts:
    """One stage's verdicts under one policy."""

    stage: StageName
    policy: Policy

    def released(self, case: CaseFile, risk: Risk, code: ReasonCode, detail: str) -> Emit:
        """A pass; the caller has checked the threshold that allows it."""
        return self._emit(case, Outcome.PASS, risk, (Reason(code=code, detail=detail),))

    def escalated(self, case: CaseFile, reasons: Sequence[Reason]) -> Emit:
        """People must look."""
        return self._emit(case, Outcome.ESCALATE, None, tuple(reasons))

    def decided(self, case: CaseFile, outcome: Outcome, reasons: Sequence[Reason]) -> Emit:
        """What stage 3 concluded; its pass is `cleared`."""
        risk = Risk.CLEARED if outcome is Outcome.PASS else None
        return self._emit(case, outcome, risk, tuple(reasons))

    def _emit(self, case: CaseFile, outcome: Outcome, risk: Risk | None, reasons: tuple[Reason, ...]) -> Emit:
        decision = Decision(
            decision_uid=case.admission.decision_uid,
            outcome=outcome,
            risk=risk,
            stage_exited=self.stage,
            final_score=case.final_score,
            admission=case.admission,
            facts=case.facts,
            scores=case.scores,
            mode=self.policy.mode,
            thresholds=self.policy.thresholds,
            evidence=case.evidence,
            reasons=reasons,
            timings=case.timings,
            decided_at=now(),
        )
        return Emit((Output(DECISION_TOPICS[outcome], case.key, decision),))


def reason(code: ReasonCode, detail: str = "") -> Reason:
    """A reason with its detail cut to what the record holds."""
    return Reason(code=code, detail=detail[:1024])


def below_t2(policy: Policy, stage2: float | None) -> str:
    """Why stage 2 released it: the score that counts in the policy's mode."""
    name = "fused" if policy.mode is Mode.FUSED else "spectral"
    return f"{name} {stage2:.3f} < T2 {policy.thresholds.t2}"


def classifier_score(scores: Sequence[StageScore]) -> float | None:
    """What the classifier said of the item; None when it said nothing."""
    return next((s.score for s in scores if s.stage is StageName.CLASSIFIER), None)


def now() -> datetime:
    """The time that is written into records."""
    return datetime.now(UTC)


def expired(admission: Admission) -> bool:
    """True when the producer no longer waits for an answer."""
    return admission.expires_at is not None and admission.expires_at <= now()


@dataclass(slots=True)
class Stopwatch:
    """The time an item waited for its stage and was worked on."""

    stage: StageName
    item: Item[Any]
    _wall_s: float = field(default_factory=time.time)
    _started_s: float = field(default_factory=time.monotonic)

    def stop(self) -> StageTiming:
        """The timing up to now. A timestamp that the topic's retention cannot explain is a producer's mistake: 0."""
        waited_s = self._wall_s - self.item.queued_at_s
        return StageTiming(
            stage=self.stage,
            waited_ms=waited_s * 1000.0 if 0.0 <= waited_s <= MAX_WAITED_S else 0.0,
            worked_ms=(time.monotonic() - self._started_s) * 1000.0,
        )
