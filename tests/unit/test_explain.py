"""Every outcome that was not taken is explained."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.detection.explain import is_authentic, rejected
from pipeline.detection.policy import Policy
from schemas.decision import Outcome, ReasonCode
from schemas.forensics import Hypothesis

POLICY = Policy(version="test")
probabilities = st.floats(0.0, 1.0)
hypotheses = st.none() | st.sampled_from(Hypothesis)


def explained(p12: float, final: float, hypothesis: Hypothesis | None) -> dict[ReasonCode, str]:
    return {reason.code: reason.detail for reason in rejected(POLICY, p12, final, hypothesis)}


def test_each_condition_that_failed_is_named_with_both_numbers() -> None:
    found = explained(0.55, 0.7, Hypothesis.AUTHENTIC)
    assert found == {
        ReasonCode.NOT_BLOCKED: "final 0.700 < t3_block 0.8; before the MLLM 0.550 < p12_block 0.6; "
        "verdict authentic names no generator",
        ReasonCode.NOT_CLEARED: "final 0.700 > t3_clear 0.2",
        ReasonCode.UNCERTAIN: "review ranks it as likely synthetic: final 0.700 >= 0.5",
    }


@pytest.mark.parametrize(("hypothesis", "word"), [(None, "missing"), (Hypothesis.UNDETERMINED, "undetermined")])
def test_no_verdict_is_a_reason_against_both(hypothesis: Hypothesis | None, word: str) -> None:
    found = explained(0.9, 0.1, hypothesis)
    assert word in found[ReasonCode.NOT_BLOCKED]
    assert word in found[ReasonCode.NOT_CLEARED]
    assert "likely real" in found[ReasonCode.UNCERTAIN]


def test_a_block_explains_only_why_it_is_no_pass() -> None:
    assert explained(0.9, 0.95, Hypothesis.GAN).keys() == {ReasonCode.NOT_CLEARED}


def test_a_pass_explains_only_why_it_is_no_block() -> None:
    assert explained(0.1, 0.1, Hypothesis.AUTHENTIC).keys() == {ReasonCode.NOT_BLOCKED}


@given(probabilities, probabilities, hypotheses)
def test_the_outcome_is_the_one_without_an_objection(p12: float, final: float, hypothesis: Hypothesis | None) -> None:
    outcome = POLICY.stage3_outcome(p12, final, is_authentic(hypothesis))
    found = explained(p12, final, hypothesis)
    assert (ReasonCode.NOT_BLOCKED in found) == (outcome is not Outcome.BLOCK)
    assert (ReasonCode.NOT_CLEARED in found) == (outcome is not Outcome.PASS)
    assert all(found.values()), "an objection names its condition"
