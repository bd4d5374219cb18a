from __future__ import annotations

import math

import pytest
from pydantic import ValidationError

from pipeline.detection.policy import DEFAULT_THRESHOLDS, Fusion, Policy, PolicyError
from schemas.decision import Outcome

POLICY = Policy(version="test")


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
