from __future__ import annotations

import math

from hypothesis import given
from hypothesis import strategies as st

from pipeline.detection.calibration import Calibration, logit, sigmoid
from pipeline.detection.policy import DEFAULT_THRESHOLDS, Fusion, FusionWeights, Policy
from schemas.decision import Mode, Outcome

POLICY = Policy(version="test")
LISTENING = Policy(version="test", fusion=Fusion(mllm_weight=0.7))
probabilities = st.floats(0.0, 1.0)
anything = st.none() | st.floats()
verdicts = st.sampled_from([None, False, True])
STRICTNESS = {Outcome.PASS: 0, Outcome.ESCALATE: 1, Outcome.BLOCK: 2}


@given(probabilities, probabilities, probabilities)
def test_a_higher_score_never_fuses_lower(a, b, other):
    low, high = sorted((a, b))
    assert POLICY.fuse12(low, other) <= POLICY.fuse12(high, other)
    assert POLICY.fuse12(other, low) <= POLICY.fuse12(other, high)


weights = st.builds(FusionWeights, w1=st.floats(0.0, 4.0), w2=st.floats(0.0, 4.0), bias=st.floats(-10.0, 10.0))


@st.composite
def policies(draw: st.DrawFn) -> Policy:
    """Any mode, weights and calibration."""
    stage2 = st.builds(Calibration, temperature=st.floats(0.1, 10.0), bias=st.floats(-5.0, 5.0))
    fusion = Fusion(
        by_codec={"webp_lossy": draw(weights)}, stage2=draw(st.none() | stage2), **draw(weights).model_dump()
    )
    return Policy(version="test", mode=draw(st.sampled_from(Mode)), fusion=fusion)


@given(policies(), st.tuples(*[probabilities] * 4), st.sampled_from(["webp_lossy", "other"]))
def test_a_more_suspect_item_never_passes_stage_2_where_a_milder_one_does_not(policy, scores, codec):
    (s1, worse1), (s2, worse2) = sorted(scores[:2]), sorted(scores[2:])
    mild, worse = policy.stage2_score(s1, s2, codec), policy.stage2_score(worse1, worse2, codec)
    assert mild is not None
    assert worse is not None
    assert 0.0 <= mild <= worse <= 1.0
    assert policy.stage2_exit(mild) or not policy.stage2_exit(worse)


@given(policies(), st.none() | probabilities)
def test_no_spectrum_never_passes_by_stage_2(policy, s1):
    assert not policy.stage2_exit(policy.stage2_score(s1, None))


@given(probabilities, probabilities)
def test_default_fusion_stays_between_its_scores(a, b):
    low, high = sorted((a, b))
    assert low - 2e-6 <= POLICY.fuse12(a, b) <= high + 2e-6


@given(probabilities, probabilities, probabilities)
def test_a_more_suspicious_mllm_never_lowers_the_score(p12, a, b):
    low, high = sorted((a, b))
    assert LISTENING.final_score(p12, low) <= LISTENING.final_score(p12, high)


@given(probabilities, probabilities)
def test_the_mllm_moves_the_logit_within_its_clip(p12, opinion):
    moved = logit(LISTENING.final_score(p12, opinion)) - logit(p12)
    low, high = LISTENING.fusion.mllm_clip
    assert low - 1e-3 <= moved <= high + 1e-3


@given(probabilities, probabilities, probabilities, verdicts)
def test_a_higher_final_score_is_never_treated_more_mildly(p12, a, b, verdict):
    low, high = sorted((a, b))
    mild = POLICY.stage3_outcome(p12, low, verdict)
    strict = POLICY.stage3_outcome(p12, high, verdict)
    assert STRICTNESS[mild] <= STRICTNESS[strict]


@given(anything, anything, verdicts)
def test_nothing_passes_or_blocks_without_numbers_and_a_verdict(p12, final, verdict):
    outcome = POLICY.stage3_outcome(p12, final, verdict)
    if outcome is Outcome.PASS:
        assert verdict is True
        assert p12 is not None
        assert not math.isnan(p12)
        assert final is not None
        assert final <= DEFAULT_THRESHOLDS.t3_clear
    if outcome is Outcome.BLOCK:
        assert verdict is False
        assert p12 is not None
        assert p12 >= DEFAULT_THRESHOLDS.p12_block


@given(st.none() | st.just(math.nan) | st.floats(min_value=0.30))
def test_stage_1_passes_nothing_that_is_not_below_t1(score):
    assert not POLICY.stage1_exit(score)


@given(st.floats(0.000_002, 0.999_998))
def test_logit_and_sigmoid_are_inverse(p):
    assert math.isclose(sigmoid(logit(p)), p, rel_tol=1e-9)
