"""Scores against thresholds, and the numbers between the stages that a decision leaves out."""

from __future__ import annotations

import pytest

from pipeline.detection.policy import Fusion, Policy
from schemas.decision import Mode, Outcome, Reason, ReasonCode, Risk
from schemas.types import StageName
from tests.support.explaining import NO_PROVER, POLICY, THRESHOLDS, Case, explained, found
from workers.explain.collect import explain
from workers.explain.evidence import EvidenceReader


def policy(version: str = POLICY, mode: Mode = Mode.STRICT) -> Policy:
    return Policy(version=version, mode=mode, thresholds=THRESHOLDS, fusion=Fusion(w1=1.0, w2=1.0, bias=0.0))


def test_numbers_between_the_stages_are_computed_by_the_policy_that_decided() -> None:
    case = Case()
    verdict = explain(found(case.blocked()), EvidenceReader(case.store), NO_PROVER, policy()).story.verdict
    assert verdict is not None
    assert verdict.stages[1].gauges[1].value == pytest.approx(0.91)
    assert verdict.final[0].value == policy().fuse12(0.83, 0.91)
    assert verdict.stages[1].said == "0.910, after calibration 0.910, is not below T2 0.55: went on."


def test_a_policy_of_another_version_computes_nothing() -> None:
    case = Case()
    verdict = explain(found(case.blocked()), EvidenceReader(case.store), NO_PROVER, policy("policy-8")).story.verdict
    assert verdict is not None
    assert verdict.stages[1].gauges[1].value is None
    assert verdict.final[0].value is None
    assert "policy-7" in verdict.final[0].note


def test_a_low_risk_pass_needs_no_policy() -> None:
    case = Case()
    verdict = explained(case, case.low_risk()).story.verdict
    assert verdict is not None
    assert verdict.stages[1].said == "0.380, after calibration 0.410, is below T2 0.55: passed here."
    assert [stage.asked for stage in verdict.stages] == [True, True, False]
    assert verdict.final == ()


def test_fused_mode_names_the_fused_score() -> None:
    case = Case()
    decision = case.escalated().model_copy(
        update={"mode": Mode.FUSED, "thresholds": THRESHOLDS.model_copy(update={"t1_alone": 0.25})}
    )
    verdict = explain(found(decision), EvidenceReader(case.store), NO_PROVER, policy(mode=Mode.FUSED)).story.verdict
    assert verdict is not None
    assert [mark.name for mark in verdict.stages[0].gauges[0].marks] == ["t1_alone", "t1", "priority"]
    assert verdict.stages[1].gauges[1].label == "with the classifier"
    assert verdict.stages[1].gauges[1].value == verdict.final[0].value


@pytest.mark.parametrize("risk", [Risk.LOW_RISK, None])
def test_a_spectrum_that_says_nothing_gives_no_number_for_t2(risk: Risk | None) -> None:
    case = Case()
    decision = case.low_risk()
    classifier, spectral = decision.scores
    silent = decision.model_copy(
        update={
            "outcome": Outcome.PASS if risk else Outcome.ESCALATE,
            "risk": risk,
            "scores": (classifier, spectral.model_copy(update={"score": None, "note": "too small"})),
            "reasons": (Reason(code=ReasonCode.SPECTRAL_NOT_APPLICABLE, detail="too small"),),
        }
    )
    verdict = explain(found(silent), EvidenceReader(case.store), NO_PROVER, policy()).story.verdict
    assert verdict is not None
    stage = verdict.stages[1]
    assert stage.stage is StageName.SPECTRAL
    assert stage.said == "It was asked and had nothing to say: too small."
    assert [(g.label, g.value) for g in stage.gauges] == [("own score", None)]


def test_a_decision_before_any_score_says_so() -> None:
    case = Case()
    verdict = explained(case, case.undecodable()).story.verdict
    assert verdict is not None
    assert verdict.stages[0].said == "It measured nothing: the item left the stage by media_truncated."
