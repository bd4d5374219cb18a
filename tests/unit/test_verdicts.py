"""Decisions, made the same way by all three stages."""

from __future__ import annotations

import time
from datetime import UTC, datetime, timedelta

import pytest

from pipeline.detection.policy import Policy
from pipeline.evidence.manifest import read_manifest
from pipeline.streaming.stage import Defer, DeferScope
from schemas.decision import Outcome, Reason, ReasonCode, Risk
from schemas.media import StageTiming
from schemas.types import StageName
from tests.support.cases import admission, facts, score
from tests.support.entries import item
from tests.support.worker_stages import BreakableStore, decided
from workers.verdicts import CaseFile, Stopwatch, Verdicts, expired, reason

POLICY = Policy(version="p7")
DOWN = Defer(DeferScope.DEPENDENCY, "content store: disk full")
VERDICTS = Verdicts(StageName.SPECTRAL, POLICY, BreakableStore())
CASE = CaseFile(
    admission(),
    facts(),
    (score(StageName.CLASSIFIER, 0.4),),
    (StageTiming(stage=StageName.CLASSIFIER, waited_ms=1.0, worked_ms=2.0),),
    final_score=0.4,
)


def test_a_decision_carries_all_that_is_known_of_the_item() -> None:
    decision = decided(VERDICTS.escalated(CASE, [reason(ReasonCode.EXPIRED)]), Outcome.ESCALATE)
    assert decision.decision_uid == CASE.admission.decision_uid
    assert decision.stage_exited is StageName.SPECTRAL
    assert (decision.mode, decision.thresholds) == (POLICY.mode, POLICY.thresholds)
    assert (decision.facts, decision.scores, decision.timings) == (CASE.facts, CASE.scores, CASE.timings)
    assert decision.final_score == 0.4
    assert decision.decided_at.tzinfo is UTC


@pytest.mark.parametrize("risk", Risk)
def test_a_release_says_how(risk: Risk) -> None:
    decision = decided(VERDICTS.released(CASE, risk, ReasonCode.SCORE_BELOW_T1, "why"), Outcome.PASS)
    assert decision.risk is risk
    assert decision.reasons == (Reason(code=ReasonCode.SCORE_BELOW_T1, detail="why"),)


@pytest.mark.parametrize("outcome", Outcome)
def test_each_outcome_goes_to_its_own_topic(outcome: Outcome) -> None:
    decision = decided(VERDICTS.decided(CASE, outcome, [reason(ReasonCode.UNCERTAIN)]), outcome)
    assert decision.risk is (Risk.CLEARED if outcome is Outcome.PASS else None)


def test_every_decision_but_a_first_pass_is_stored_with_its_manifest() -> None:
    store = BreakableStore()
    verdicts = Verdicts(StageName.CLASSIFIER, POLICY, store)
    first = decided(verdicts.released(CASE, Risk.RELEASED, ReasonCode.SCORE_BELOW_T1, "why"), Outcome.PASS)
    assert (first.evidence, store.names()) == ((), [])
    for made, outcome in (
        (verdicts.released(CASE, Risk.LOW_RISK, ReasonCode.ANOMALY_BELOW_T2, "why"), Outcome.PASS),
        (verdicts.decided(CASE, Outcome.BLOCK, [reason(ReasonCode.SYNTHETIC_CONFIRMED)]), Outcome.BLOCK),
        (verdicts.escalated(CASE, [reason(ReasonCode.EXPIRED)]), Outcome.ESCALATE),
        (verdicts.given_up(CASE, [reason(ReasonCode.ANALYSIS_CRASH)]), Outcome.ESCALATE),
    ):
        manifest = read_manifest(decided(made, outcome), store)
        assert manifest is not None
        assert manifest.outcome is outcome


def test_without_a_store_there_is_no_decision() -> None:
    store = BreakableStore()
    verdicts = Verdicts(StageName.CLASSIFIER, POLICY, store)
    store.down = True
    assert verdicts.escalated(CASE, [reason(ReasonCode.EXPIRED)]) == DOWN
    store.down = False
    decided(verdicts.escalated(CASE, [reason(ReasonCode.EXPIRED)]), Outcome.ESCALATE)


def test_giving_up_does_not_ask_a_store_that_failed_a_moment_ago(monkeypatch: pytest.MonkeyPatch) -> None:
    """A fallback runs in the thread that polls the broker: one time-out, not one for each item."""
    store, now_s = BreakableStore(), [1000.0]
    monkeypatch.setattr(time, "monotonic", lambda: now_s[0])
    verdicts = Verdicts(StageName.CLASSIFIER, POLICY, store)
    why = [reason(ReasonCode.DEPENDENCY_UNAVAILABLE)]
    store.down = True
    assert verdicts.given_up(CASE, why) == DOWN
    store.down = False
    second = verdicts.given_up(CASE, why)
    assert isinstance(second, Defer)
    assert "a moment ago" in second.cause
    assert store.names() == []
    now_s[0] += 10.0
    decided(verdicts.given_up(CASE, why), Outcome.ESCALATE)


def test_an_escalation_needs_a_reason() -> None:
    with pytest.raises(ValueError, match="reasons"):
        VERDICTS.escalated(CASE, [])


def test_a_detail_is_cut_to_what_the_record_holds() -> None:
    assert len(reason(ReasonCode.EXPIRED, "x" * 2000).detail) == 1024


@pytest.mark.parametrize(("after_s", "over"), [(-1, True), (3600, False)])
def test_an_item_expires_at_its_time(after_s: float, over: bool) -> None:
    assert expired(admission(expires_at=datetime.now(UTC) + timedelta(seconds=after_s))) is over
    assert not expired(admission())


def test_the_stopwatch_tells_waiting_from_work(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(time, "time", lambda: 0.0)
    watch = Stopwatch(StageName.MLLM, item(), _wall_s=1_700_000_002.5, _started_s=10.0)
    monkeypatch.setattr(time, "monotonic", lambda: 10.25)
    assert watch.stop() == StageTiming(stage=StageName.MLLM, waited_ms=2500.0, worked_ms=250.0)


def test_a_clock_behind_the_brokers_gives_no_negative_wait() -> None:
    assert Stopwatch(StageName.MLLM, item(), _wall_s=0.0).stop().waited_ms == 0.0
