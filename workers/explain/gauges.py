"""Each stage's number beside the thresholds that it met, and the sentence that follows from it.

A decision carries the scores of the stages. Two numbers that thresholds are compared with are derived from them by
the policy's fusion: what T2 meets, and P(synthetic) before the MLLM. They are computed again from a policy of the
very version that decided; without one they are said to be unknown.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from pipeline.detection.policy import Policy, codec_of
from schemas.decision import Decision, Mode, Outcome, ReasonCode, Thresholds
from schemas.media import StageScore
from schemas.types import StageName
from workers.explain.story import Gauge, Mark, StageStory

_ORDER = tuple(StageName)
_BEGAN_BY = {
    StageName.CLASSIFIER: "it looks at every image",
    StageName.SPECTRAL: "it looks at what the classifier did not release",
    StageName.MLLM: "it looks at what the spectral stage did not release",
}


@dataclass(frozen=True, slots=True)
class Derived:
    """Numbers between the stages; None where they are not known. `why` says why not."""

    stage2: float | None = None
    p12: float | None = None
    why: str = ""


def derive(decision: Decision, stratum: str | None, policy: Policy | None) -> Derived:
    """From the decision where it holds them, else by the fusion of `policy`, which must be of the same version."""
    s1, s2 = score_of(decision, StageName.CLASSIFIER), score_of(decision, StageName.SPECTRAL)
    if s2 is None:
        return Derived(why="the spectral stage gave no score")
    if decision.stage_exited is StageName.SPECTRAL and decision.outcome is Outcome.PASS:
        return Derived(stage2=decision.final_score)
    if policy is None or policy.version != decision.admission.policy_version:
        wanted = decision.admission.policy_version
        return Derived(why=f"it follows from the fusion of policy {wanted}, which the installed bundle does not hold")
    if stratum is None and policy.fusion.by_codec:
        return Derived(why="it depends on the image's stratum, which was not kept")
    codec = codec_of(stratum or "")
    return Derived(policy.stage2_score(s1, s2, codec), policy.fuse12(s1, s2, codec))


def stage_stories(decision: Decision, derived: Derived) -> tuple[StageStory, ...]:
    """All three stages in their order, also those that were not asked."""
    exited = _ORDER.index(decision.stage_exited)
    return tuple(_stage(decision, stage, derived, asked=_ORDER.index(stage) <= exited) for stage in _ORDER)


def final_gauges(decision: Decision, derived: Derived) -> tuple[Gauge, ...]:
    """What the last stage weighed; empty when an earlier stage decided."""
    if decision.stage_exited is not StageName.MLLM:
        return ()
    t = decision.thresholds
    before = Mark(name="p12_block", value=t.p12_block, meaning="a block needs at least this before the MLLM")
    marks = (
        Mark(name="t3_clear", value=t.t3_clear, meaning="a pass needs at most this, and the verdict authentic"),
        Mark(name="uncertain", value=t.uncertain, meaning="people see what lies above it as likely synthetic"),
        Mark(name="t3_block", value=t.t3_block, meaning="a block needs at least this, and a verdict of synthetic"),
    )
    unknown = "" if decision.final_score is not None else "the decision carries no final score"
    return (
        Gauge(label="before the MLLM", value=derived.p12, marks=(before,), note=derived.why),
        Gauge(label="final score", value=decision.final_score, marks=marks, note=unknown),
    )


def score_of(decision: Decision, stage: StageName) -> float | None:
    """What the stage measured; None when it was not asked or had nothing to say."""
    found = _entry(decision, stage)
    return found.score if found else None


def _entry(decision: Decision, stage: StageName) -> StageScore | None:
    return next((s for s in decision.scores if s.stage is stage), None)


def _stage(decision: Decision, stage: StageName, derived: Derived, *, asked: bool) -> StageStory:
    entry = _entry(decision, stage)
    timing = next((t for t in decision.timings if t.stage is stage), None)
    return StageStory(
        stage=stage,
        asked=asked,
        said=_said(decision, stage, entry, derived) if asked else f"Not asked: {_BEGAN_BY[stage]}.",
        gauges=tuple(_gauges(decision, stage, entry, derived)) if asked else (),
        p_value=entry.p_value if entry else None,
        model=entry.model if entry else None,
        note=entry.note if entry else None,
        bundle_version=entry.bundle_version if entry else None,
        waited_ms=timing.waited_ms if timing else None,
        worked_ms=timing.worked_ms if timing else None,
    )


def _gauges(decision: Decision, stage: StageName, entry: StageScore | None, derived: Derived) -> Iterator[Gauge]:
    value = entry.score if entry else None
    nothing = "" if value is not None else "no score"
    t = decision.thresholds
    match stage:
        case StageName.CLASSIFIER:
            yield Gauge(label="score", value=value, marks=_classifier_marks(t), note=nothing)
        case StageName.SPECTRAL:
            yield Gauge(label="own score", value=value, note=nothing)
            if value is not None:
                label = "with the classifier" if decision.mode is Mode.FUSED else "calibrated"
                mark = Mark(name="t2", value=t.t2, meaning="below it the second stage passes the image")
                yield Gauge(label=label, value=derived.stage2, marks=(mark,), note=derived.why)
        case StageName.MLLM:
            yield Gauge(label="score of its report", value=value, note=nothing)


def _classifier_marks(t: Thresholds) -> tuple[Mark, ...]:
    marks = [
        Mark(name="t1", value=t.t1, meaning="below it the classifier passes the image"),
        Mark(name="priority", value=t.priority, meaning="from here on it goes first"),
    ]
    if t.t1_alone is not None:
        marks.append(Mark(name="t1_alone", value=t.t1_alone, meaning="below it an image without a spectrum passes"))
    return tuple(sorted(marks, key=lambda mark: mark.value))


def _said(decision: Decision, stage: StageName, entry: StageScore | None, derived: Derived) -> str:
    t, score = decision.thresholds, entry.score if entry else None
    if entry is None:
        return f"It measured nothing: the item left the stage by {decision.reasons[0].code.value}."
    match stage:
        case StageName.CLASSIFIER if score is not None:
            return f"{score:.3f} is {_side(score, t.t1)} T1 {t.t1:g}: {'passed here' if score < t.t1 else 'went on'}."
        case StageName.SPECTRAL if score is not None:
            return _spectral_said(decision, score, derived)
        case StageName.MLLM if score is not None:
            return f"The model's report amounts to P(synthetic) {score:.3f} ({entry.note or 'no note'})."
        case _:
            return f"It was asked and had nothing to say{f': {entry.note}' if entry.note else ''}."


def _spectral_said(decision: Decision, score: float, derived: Derived) -> str:
    t2 = decision.thresholds.t2
    passed = decision.reasons[0].code is ReasonCode.ANOMALY_BELOW_T2
    end = "passed here" if passed else "went on"
    if derived.stage2 is None:
        return f"Its own score is {score:.3f}; what it comes to at T2 {t2:g} is not known here. The item {end}."
    how = "with the classifier's" if decision.mode is Mode.FUSED else "after calibration"
    return f"{score:.3f}, {how} {derived.stage2:.3f}, is {_side(derived.stage2, t2)} T2 {t2:g}: {end}."


def _side(score: float, threshold: float) -> str:
    return "below" if score < threshold else "not below"
