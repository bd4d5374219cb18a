"""Decisions, made the same way by all three stages."""

from __future__ import annotations

import math
import time
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from typing import Any

from pipeline.detection.policy import Policy
from pipeline.detection.shadow import Shadow
from pipeline.evidence.archive import media_digest
from pipeline.evidence.manifest import SpectralGrounds, with_manifest
from pipeline.evidence.payload import Payload, payloads_of
from pipeline.evidence.sampled import SampledPayloads
from pipeline.media.content_store import ContentStore
from pipeline.media.errors import StoreUnavailable
from pipeline.streaming.stage import Defer, DeferScope, Emit, Item, Output
from schemas.decision import Decision, Mode, Reason, ReasonCode, Risk
from schemas.decision import Outcome as Verdict
from schemas.media import Admission, AuditDraw, EvidenceRef, MediaFacts, ShadowTrail, StageScore, StageTiming
from schemas.shadow import AuditSample
from schemas.topics import DECISION_TOPICS, Topic
from schemas.types import StageName

MAX_WAITED_S = 30 * 86_400.0
_PAUSE_S = 10.0


@dataclass(frozen=True, slots=True)
class CaseFile:
    """What is known of an item when a stage decides on it.

    `spectral` and `dialogue_sha256` go into the manifest alone. With `audit` the item was passed long ago, and what is
    decided here is a measurement. `shadow` is what a shadow has measured so far.
    """

    admission: Admission
    facts: MediaFacts | None = None
    scores: tuple[StageScore, ...] = ()
    timings: tuple[StageTiming, ...] = ()
    evidence: tuple[EvidenceRef, ...] = ()
    final_score: float | None = None
    spectral: SpectralGrounds | None = None
    dialogue_sha256: str | None = None
    audit: AuditDraw | None = None
    shadow: ShadowTrail | None = None

    def timed(self, timing: StageTiming) -> CaseFile:
        """The same, with the deciding stage's time."""
        return replace(self, timings=(*self.timings, timing))

    @property
    def key(self) -> str:
        """The key on every internal topic."""
        return f"{self.admission.tenant}/{self.admission.media_id}"


@dataclass(slots=True)
class _Outage:
    """When the store last failed, on the monotonic clock."""

    failed_s: float = -math.inf

    def is_recent(self) -> bool:
        return time.monotonic() - self.failed_s < _PAUSE_S


@dataclass(frozen=True, slots=True)
class Verdicts:
    """One stage's verdicts under one policy.

    A decision's manifest is stored before the decision is handed on: without a store there is no decision but a
    `Defer`. A pass by the first stage rests on no evidence, so nothing is stored for it.
    """

    stage: StageName
    policy: Policy
    store: ContentStore
    shadow: Shadow | None = None
    _outage: _Outage = field(default_factory=_Outage, compare=False)

    def released(self, case: CaseFile, risk: Risk, code: ReasonCode, detail: str) -> Emit | Defer:
        """A pass; the caller has checked the threshold that allows it."""
        return self._made(case, Verdict.PASS, risk, (Reason(code=code, detail=detail),))

    def escalated(self, case: CaseFile, reasons: Sequence[Reason]) -> Emit | Defer:
        """People must look."""
        return self._made(case, Verdict.ESCALATE, None, tuple(reasons))

    def decided(self, case: CaseFile, outcome: Verdict, reasons: Sequence[Reason]) -> Emit | Defer:
        """What stage 3 concluded; its pass is `cleared`."""
        risk = Risk.CLEARED if outcome is Verdict.PASS else None
        return self._made(case, outcome, risk, tuple(reasons))

    def given_up(self, case: CaseFile, reasons: Sequence[Reason]) -> Emit | Defer:
        """As `escalated`, for a `Fallback`.

        It runs in the thread that polls the broker, so a store that failed a moment ago is not asked again for each
        of the items that wait.
        """
        if self._outage.is_recent():
            return _without_store("it failed a moment ago")
        return self.escalated(case, reasons)

    def note_sample(self, case: CaseFile) -> None:
        """That bytes will be kept of a pass that was drawn, so that an erasure finds them. Raises StoreUnavailable."""
        if case.facts is not None:
            self._note_sampled(case.admission, [Payload.original(case.admission.tenant, case.facts.sha256)])

    def _note_sampled(self, admission: Admission, payloads: Iterable[Payload]) -> None:
        media = media_digest(admission.media_id)
        SampledPayloads(self.store.objects).note(admission.tenant, media, payloads)

    def _made(self, case: CaseFile, outcome: Verdict, risk: Risk | None, reasons: tuple[Reason, ...]) -> Emit | Defer:
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
        if risk is not Risk.RELEASED:
            try:
                decision = with_manifest(decision, self.store, case.spectral, case.dialogue_sha256)
                if case.audit is not None:
                    self._note_sampled(case.admission, payloads_of(decision))
            except StoreUnavailable as error:
                self._outage.failed_s = time.monotonic()
                return _without_store(str(error))
        return Emit(self._outputs(case, decision))

    def _outputs(self, case: CaseFile, decision: Decision) -> tuple[Output, ...]:
        """The one place where a decision gets its topic: what stage 1 has passed is never decided a second time."""
        if case.audit is not None:
            sample = AuditSample(probability=case.audit.probability, decision=decision)
            return (Output(Topic.AUDIT_SAMPLES, case.key, sample),)
        published = Output(DECISION_TOPICS[decision.outcome], case.key, decision)
        watched = None if self.shadow is None else self.shadow.result(decision, case.shadow)
        return (published,) if watched is None else (published, Output(Topic.SHADOW_RESULTS, case.key, watched))


def _without_store(why: str) -> Defer:
    return Defer(DeferScope.DEPENDENCY, f"content store: {why}")


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
