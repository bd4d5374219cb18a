"""A walk over the scores of a decision never says anything that the stages would not have decided."""

from __future__ import annotations

from dataclasses import dataclass

from hypothesis import example, given
from hypothesis import strategies as st

from pipeline.detection.policy import DEFAULT_THRESHOLDS, Fusion, Policy
from pipeline.detection.walk import Known, Seen, Unknown, walk
from schemas.decision import Mode, Outcome, Risk
from schemas.media import StageScore
from schemas.types import StageName

probabilities = st.integers(0, 40).map(lambda n: n / 40)


@dataclass(frozen=True)
class World:
    """Everything about one media item, the stages' failures included; `authentic` is the model's verdict."""

    s1: float
    s2: float | None
    opinion: float | None
    authentic: bool | None
    calibrated: bool
    fails_at: StageName | None


@st.composite
def worlds(draw: st.DrawFn) -> World:
    authentic = draw(st.sampled_from([None, True, False]))
    opinion = None if authentic is None else draw(probabilities)
    return World(
        s1=draw(probabilities),
        s2=draw(st.none() | probabilities),
        opinion=opinion,
        authentic=authentic,
        calibrated=draw(st.booleans()),
        fails_at=draw(st.sampled_from([None, None, None, *StageName])),
    )


@st.composite
def policies(draw: st.DrawFn) -> Policy:
    mode = draw(st.sampled_from(Mode))
    t1, priority = sorted(draw(st.tuples(probabilities, probabilities)))
    clear, uncertain, p12, block = sorted(draw(st.tuples(*[probabilities] * 4)))
    if clear == block:
        clear, uncertain, p12, block = 0.2, 0.5, 0.6, 0.8
    thresholds = DEFAULT_THRESHOLDS.model_copy(
        update={
            "t1": t1,
            "priority": priority,
            "t2": draw(probabilities),
            "t1_alone": draw(st.none() | probabilities) if mode is Mode.FUSED else None,
            "t3_clear": clear,
            "uncertain": uncertain,
            "p12_block": p12,
            "t3_block": block,
        }
    )
    fusion = Fusion(w1=draw(st.sampled_from([0.0, 0.5, 1.0])), mllm_weight=draw(st.sampled_from([0.0, 0.5, 2.0])))
    return Policy(version="test", mode=mode, thresholds=thresholds, fusion=fusion)


def through_the_stages(policy: Policy, world: World) -> tuple[Known, tuple[StageScore, ...]]:  # noqa: PLR0911 - a cascade
    """As the three stages decide, one after the other, and the scores that the decision would hold."""
    scores: tuple[StageScore, ...] = ()
    if world.fails_at is StageName.CLASSIFIER:
        return Known(Outcome.ESCALATE, StageName.CLASSIFIER), scores
    scores = (score(StageName.CLASSIFIER, world.s1),)
    if policy.stage1_exit(world.s1):
        return Known(Outcome.PASS, StageName.CLASSIFIER, Risk.RELEASED), scores
    if world.fails_at is StageName.SPECTRAL:
        return Known(Outcome.ESCALATE, StageName.SPECTRAL), scores
    scores = (*scores, score(StageName.SPECTRAL, world.s2, "png/384_767"))
    if policy.stage2_exit(policy.stage2_score(world.s1, world.s2, "png")):
        return Known(Outcome.PASS, StageName.SPECTRAL, Risk.LOW_RISK), scores
    if world.s2 is None:
        if policy.alone_exit(world.s1):
            return Known(Outcome.PASS, StageName.SPECTRAL, Risk.LOW_RISK), scores
        return Known(Outcome.ESCALATE, StageName.SPECTRAL), scores
    if world.fails_at is StageName.MLLM:
        return Known(Outcome.ESCALATE, StageName.MLLM), scores
    p12 = policy.fuse12(world.s1, world.s2, "png")
    final = policy.final_score(p12, world.opinion if world.calibrated else None)
    outcome = policy.stage3_outcome(p12, final, world.authentic)
    risk = Risk.CLEARED if outcome is Outcome.PASS else None
    return Known(outcome, StageName.MLLM, risk), (*scores, score(StageName.MLLM, world.opinion))


def score(stage: StageName, value: float | None, note: str | None = None) -> StageScore:
    return StageScore(stage=stage, score=value, bundle_version="b", model="m", note=note)


SURE = World(0.9, 0.9, 0.9, False, True, None)


@given(worlds(), policies(), policies())
@example(SURE, Policy(version="a"), Policy(version="b"))
def test_what_a_walk_says_is_what_the_other_policy_decides(world: World, live: Policy, other: Policy) -> None:
    decided, scores = through_the_stages(live, world)
    found = walk(other, Seen(decided.outcome, decided.stage, decided.risk, scores))
    truth, needed = through_the_stages(other, world)
    if isinstance(found, Known):
        assert found == truth
    else:
        assert truth.stage is found.stage or found.stage in {s.stage for s in needed}
        assert found.why


@given(worlds(), policies())
def test_a_policy_that_was_not_changed_is_told_unless_the_model_must_be_asked(world: World, live: Policy) -> None:
    decided, scores = through_the_stages(live, world)
    found = walk(live, Seen(decided.outcome, decided.stage, decided.risk, scores))
    if isinstance(found, Unknown):
        assert decided.stage is StageName.MLLM
        assert world.opinion is not None
    else:
        assert found == decided
