from __future__ import annotations

import json
import math

import pytest
from pydantic import ValidationError

from pipeline.detection.calibration import Calibration
from pipeline.detection.policy import DEFAULT_THRESHOLDS, Fusion, FusionWeights, Policy, PolicyError, codec_of
from schemas.decision import Mode, Outcome

POLICY = Policy(version="test")
FUSED = Policy(
    version="test",
    mode=Mode.FUSED,
    thresholds=DEFAULT_THRESHOLDS.model_copy(update={"t1": 0.0, "t1_alone": 0.25}),
)


def with_thresholds(**changes):
    return Policy(version="test", thresholds={**DEFAULT_THRESHOLDS.model_dump(), **changes})


def test_stage_1_passes_below_t1_and_not_at_it():
    assert POLICY.stage1_exit(math.nextafter(0.30, 0.0))
    assert not POLICY.stage1_exit(0.30)


def test_stage_2_passes_below_t2_and_not_at_it():
    assert POLICY.stage2_exit(math.nextafter(0.55, 0.0))
    assert not POLICY.stage2_exit(0.55)


def test_the_priority_lane_begins_at_its_threshold():
    assert POLICY.priority_lane(0.75)
    assert not POLICY.priority_lane(math.nextafter(0.75, 0.0))


@pytest.mark.parametrize("score", [None, math.nan])
def test_no_score_never_passes(score):
    assert not POLICY.stage1_exit(score)
    assert not POLICY.stage2_exit(score)
    assert not POLICY.priority_lane(score)
    assert POLICY.stage3_outcome(0.1, score, True) is Outcome.ESCALATE
    assert POLICY.stage3_outcome(score, 0.1, True) is Outcome.ESCALATE


@pytest.mark.parametrize(
    ("p12", "final", "authentic", "outcome"),
    [
        (0.60, 0.80, False, Outcome.BLOCK),
        (math.nextafter(0.60, 0.0), 0.80, False, Outcome.ESCALATE),
        (0.60, math.nextafter(0.80, 0.0), False, Outcome.ESCALATE),
        (0.99, 0.99, True, Outcome.ESCALATE),
        (0.99, 0.99, None, Outcome.ESCALATE),
        (0.20, 0.20, True, Outcome.PASS),
        (0.20, math.nextafter(0.20, 1.0), True, Outcome.ESCALATE),
        (0.01, 0.01, False, Outcome.ESCALATE),
        (0.01, 0.01, None, Outcome.ESCALATE),
        (0.55, 0.65, False, Outcome.ESCALATE),
        (0.55, 0.65, True, Outcome.ESCALATE),
    ],
)
def test_stage_3_at_its_borders(p12, final, authentic, outcome):
    assert POLICY.stage3_outcome(p12, final, authentic) is outcome


def test_one_missing_score_leaves_the_other_untouched():
    assert POLICY.fuse12(0.37, None) == 0.37
    assert POLICY.fuse12(None, 0.91) == 0.91
    assert POLICY.fuse12(None, None) == 0.5


def test_fusion_adds_weighted_logits():
    policy = Policy(version="test", fusion=Fusion(w1=1.0, w2=2.0, bias=0.5))
    wanted = 1 / (1 + math.exp(-(math.log(0.8 / 0.2) + 2 * math.log(0.4 / 0.6) + 0.5)))
    assert policy.fuse12(0.8, 0.4) == pytest.approx(wanted)


@pytest.mark.parametrize("scores", [(math.nan, None), (0.5, math.nan), (1.5, 0.5)])
def test_fusion_refuses_what_is_no_probability(scores):
    with pytest.raises(ValueError, match="probability"):
        POLICY.fuse12(*scores)


def test_a_codec_with_weights_of_its_own_uses_them():
    policy = Policy(version="test", fusion=Fusion(by_codec={"webp_lossy": FusionWeights(w1=1.0, w2=0.0)}))
    assert policy.fuse12(0.8, 0.4, "webp_lossy") == pytest.approx(0.8)
    assert policy.fuse12(0.8, 0.4, "lossless") == policy.fuse12(0.8, 0.4) != pytest.approx(0.8)


@pytest.mark.parametrize(
    ("stratum", "codec"), [("jpeg_85_94/384_767", "jpeg_85_94"), ("lossless/any", "lossless"), ("png", "png")]
)
def test_the_codec_is_the_first_part_of_a_stratum(stratum, codec):
    assert codec_of(stratum) == codec


def test_in_strict_mode_stage_2_decides_by_its_own_score():
    assert POLICY.stage2_score(0.99, 0.4) == 0.4
    assert POLICY.stage2_score(None, 0.4) == 0.4
    assert POLICY.stage2_score(0.99, None) is None
    calibrated = Policy(version="test", fusion=Fusion(stage2=Calibration(temperature=2.0, bias=1.0)))
    assert calibrated.stage2_score(0.99, 0.5) == pytest.approx(1 / (1 + math.exp(-1.0)))


def test_in_fused_mode_stage_2_decides_by_both_scores_and_never_by_one():
    assert FUSED.stage2_score(0.8, 0.4, "x") == FUSED.fuse12(0.8, 0.4, "x")
    assert FUSED.stage2_score(0.1, None) is None
    assert FUSED.stage2_score(None, 0.1) is None


@pytest.mark.parametrize("policy", [POLICY, FUSED], ids=["strict", "fused"])
def test_stage_2_refuses_what_is_no_probability(policy):
    with pytest.raises(ValueError, match="probability"):
        policy.stage2_score(0.5, math.nan)


def test_the_classifier_alone_releases_nothing_that_reached_stage_2_in_strict_mode():
    assert not POLICY.alone_exit(POLICY.thresholds.t1)
    assert FUSED.alone_exit(math.nextafter(0.25, 0.0))
    assert not FUSED.alone_exit(0.25)
    assert not FUSED.alone_exit(None)
    assert not FUSED.alone_exit(math.nan)


def test_a_threshold_for_the_classifier_alone_belongs_to_fused_mode():
    with pytest.raises(ValidationError, match="t1_alone"):
        with_thresholds(t1_alone=0.2)


@pytest.mark.parametrize(("p12", "weight", "blocks"), [(0.79, 0.0, False), (0.80, 0.0, True), (0.79, 1.0, True)])
def test_the_worst_case_is_an_mllm_that_is_sure(p12, weight, blocks):
    assert Policy(version="test", fusion=Fusion(mllm_weight=weight)).may_block(p12) is blocks
    assert not POLICY.may_block(None)


def test_a_policy_of_the_first_release_still_loads(tmp_path):
    thresholds = DEFAULT_THRESHOLDS.model_dump(exclude={"t1_alone"})
    fusion = {"w1": 0.5, "w2": 0.5, "bias": 0.0, "prior": 0.5, "mllm_weight": 0.0, "mllm_clip": [-1.75, 1.0]}
    path = tmp_path / "policy.json"
    path.write_text(json.dumps({"version": "test", "thresholds": thresholds, "fusion": fusion}))
    assert Policy.load(path) == POLICY


def test_the_mllm_is_silent_by_default():
    assert POLICY.final_score(0.62, 0.999) == 0.62
    assert POLICY.final_score(0.62, None) == 0.62


def test_the_mllm_moves_the_logit_by_no_more_than_its_bounds():
    policy = Policy(version="test", fusion=Fusion(mllm_weight=1.0))
    assert policy.final_score(0.5, 0.0) == pytest.approx(1 / (1 + math.exp(1.75)))
    assert policy.final_score(0.5, 1.0) == pytest.approx(1 / (1 + math.exp(-1.0)))
    assert policy.final_score(0.5, 0.6) == pytest.approx(0.6)


@pytest.mark.parametrize(
    "changes",
    [{"t1": 0.8}, {"t3_clear": 0.6}, {"uncertain": 0.9}, {"p12_block": 0.81}, {"t1": -0.1}, {"t2": math.nan}],
)
def test_thresholds_out_of_order_are_refused(changes):
    with pytest.raises(ValidationError, match="thresholds"):
        with_thresholds(**changes)


def test_thresholds_that_let_nothing_escalate_are_refused():
    with pytest.raises(ValidationError, match="nothing could escalate"):
        with_thresholds(t3_clear=0.5, uncertain=0.5, t3_block=0.5, p12_block=0.5)


def test_a_bad_policy_file_is_named_with_its_field(tmp_path):
    path = tmp_path / "policy.json"
    path.write_text('{"version": "x", "fusion": {"w1": -1}}')
    with pytest.raises(PolicyError, match=r"(?s)policy\.json.*fusion\.w1"):
        Policy.load(path)
    with pytest.raises(PolicyError, match=r"absent\.json"):
        Policy.load(tmp_path / "absent.json")


def test_a_policy_survives_its_file(tmp_path):
    path = tmp_path / "policy.json"
    path.write_text(POLICY.model_dump_json())
    assert Policy.load(path) == POLICY
