"""What a policy would decide on the scores of a decision, and where that cannot be told."""

from __future__ import annotations

import pytest

from pipeline.detection.policy import DEFAULT_THRESHOLDS, Policy
from pipeline.detection.walk import Known, Seen, Unknown, walk
from schemas.decision import Mode, Outcome, Risk
from schemas.types import StageName
from tests.support.cases import decision, score

C, S, M = StageName


def policy(mode: Mode = Mode.STRICT, **thresholds: float) -> Policy:
    return Policy(version="new", mode=mode, thresholds=DEFAULT_THRESHOLDS.model_copy(update=thresholds))


def seen(outcome: Outcome, exited: StageName, *values: float | None, risk: Risk | None = None) -> Seen:
    return Seen(outcome, exited, risk, tuple(score(s, v) for s, v in zip(StageName, values, strict=False)))


RELEASED = seen(Outcome.PASS, C, 0.25, risk=Risk.RELEASED)
LOW_RISK = seen(Outcome.PASS, S, 0.4, 0.5, risk=Risk.LOW_RISK)
HELD = seen(Outcome.ESCALATE, M, 0.7, 0.7, 0.9)


def test_a_pass_stays_a_pass_above_its_score() -> None:
    assert walk(policy(t1=0.26), RELEASED) == RELEASED.verdict


def test_a_lower_t1_needs_a_spectrum_that_nobody_took() -> None:
    found = walk(policy(t1=0.25), RELEASED)
    assert isinstance(found, Unknown)
    assert (found.stage, found.name) == (S, "not_reproducible")
    assert "spectral" in found.why


def test_a_higher_t1_lets_what_went_on_pass() -> None:
    assert walk(policy(t1=0.41), LOW_RISK) == Known(Outcome.PASS, C, Risk.RELEASED)


def test_a_lower_t2_needs_the_model() -> None:
    found = walk(policy(t2=0.5), LOW_RISK)
    assert isinstance(found, Unknown)
    assert found.stage is M


def test_an_escalation_is_told_where_every_answer_leads_to_it() -> None:
    assert walk(policy(t3_block=0.95, p12_block=0.9, t3_clear=0.1), HELD) == HELD.verdict


def test_an_escalation_that_could_have_become_a_block_is_not_guessed() -> None:
    found = walk(policy(p12_block=0.6, t3_block=0.65), HELD)
    assert isinstance(found, Unknown)
    assert found.why.endswith("block, escalate")


def test_a_block_that_no_longer_reaches_its_threshold_escalates() -> None:
    blocked = seen(Outcome.BLOCK, M, 0.85, 0.85, 0.9)
    assert walk(policy(), blocked) == blocked.verdict
    assert walk(policy(t3_block=0.9), blocked) == Known(Outcome.ESCALATE, M)


def test_without_an_opinion_it_escalates_under_any_threshold() -> None:
    silent = seen(Outcome.ESCALATE, M, 0.9, 0.9, None)
    assert walk(policy(t3_block=0.6), silent) == silent.verdict


@pytest.mark.parametrize("stage", StageName)
def test_a_failure_stays_one_unless_the_policy_stops_before_it(stage: StageName) -> None:
    failed = seen(Outcome.ESCALATE, stage, *(0.6, 0.7)[: list(StageName).index(stage)])
    assert walk(policy(), failed) == failed.verdict
    if stage is not C:
        assert walk(policy(t1=0.61), failed) == Known(Outcome.PASS, C, Risk.RELEASED)


def test_without_a_spectrum_the_classifier_decides_alone() -> None:
    silent = seen(Outcome.ESCALATE, S, 0.6, None)
    assert walk(policy(), silent) == silent.verdict
    fused = policy(Mode.FUSED, t1=0.0, t1_alone=0.61)
    assert walk(fused, silent) == Known(Outcome.PASS, S, Risk.LOW_RISK)


def test_names_are_those_of_events() -> None:
    assert [RELEASED.verdict.name, HELD.verdict.name] == ["pass.released", "escalate"]


def test_a_decision_is_seen_with_its_scores() -> None:
    made = decision().model_copy(update={"scores": (score(C, 0.1),)})
    assert Seen.of(made) == seen(Outcome.PASS, C, 0.1, risk=Risk.RELEASED)
