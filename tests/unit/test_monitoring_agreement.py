"""Two sets of rules on the same media: matrix, cost, examples."""

from __future__ import annotations

import io
from datetime import timedelta

import pytest
from rich.console import Console

from pipeline.detection.policy import DEFAULT_THRESHOLDS, Policy
from pipeline.evaluation.monitoring.agreement import EXAMPLES_A_CELL, Agreement, Tally
from schemas.decision import Outcome, Risk
from schemas.media import ShadowTrail, StageTiming
from schemas.shadow import ShadowResult
from schemas.types import StageName
from tests.support.monitoring import NOW, decided, released, sampled
from workers.cli.agreement_text import tables

LOWER = Policy(version="lower", thresholds=DEFAULT_THRESHOLDS.model_copy(update={"t1": 0.2}))


def report(tally: Tally) -> Agreement:
    return tally.report(NOW, NOW + timedelta(days=1))


def test_a_replay_counts_what_is_told_and_what_is_not() -> None:
    tally = Tally()
    for n in range(4):
        tally.replayed(LOWER, released(f"same{n}", 0.1))
    for n in range(EXAMPLES_A_CELL + 2):
        tally.replayed(LOWER, released(f"more{n}", 0.25))
    found = report(tally)
    assert (found.total, found.agree, found.differ, found.unknown) == (11, 4, 0, 7)
    assert [(c.live, c.other, c.count) for c in found.cells] == [
        ("pass.released", "not_reproducible", 7),
        ("pass.released", "pass.released", 4),
    ]
    assert len(found.examples) == EXAMPLES_A_CELL
    assert found.examples[0].why.startswith("decided at the classifier stage")
    assert found.live_rules == ("b1/p1",)
    reached = {r.stage: (r.live, r.other, r.most) for r in found.reached}
    assert reached == {
        StageName.CLASSIFIER: (11, 11, 11),
        StageName.SPECTRAL: (0, 7, 7),
        StageName.MLLM: (0, 0, 7),
    }


def test_a_sample_tells_what_a_pass_cannot() -> None:
    tally = Tally()
    passed = released("a", 0.25)
    tally.replayed(LOWER, passed, sampled("a", Outcome.PASS, 0.25, 0.3))
    tally.replayed(LOWER, released("b", 0.25), sampled("b", Outcome.BLOCK, 0.25, 0.99, 0.99))
    found = report(tally)
    assert {(c.live, c.other) for c in found.cells} == {("pass.released", "pass.low_risk"), ("pass.released", "block")}
    assert found.unknown == 0


def test_a_sample_that_failed_on_its_way_tells_nothing() -> None:
    tally = Tally()
    failed = sampled("a", Outcome.ESCALATE, 0.25)
    failed = failed.model_copy(
        update={"decision": failed.decision.model_copy(update={"stage_exited": StageName.SPECTRAL})}
    )
    tally.replayed(LOWER, released("a", 0.25), failed)
    assert report(tally).unknown == 1


def test_a_shadow_is_told_with_its_cost() -> None:
    live = decided("a", Outcome.BLOCK, 0.9, 0.9, 0.9)
    timing = StageTiming(stage=StageName.CLASSIFIER, waited_ms=0, worked_ms=30)
    result = ShadowResult(
        admission=live.admission,
        outcome=live.outcome,
        stage_exited=live.stage_exited,
        scores=live.scores,
        timings=(timing.model_copy(update={"worked_ms": 10.0}),),
        shadow=ShadowTrail(bundle_version="b2", policy_version="p2", scores=live.scores[:1], timings=(timing,)),
        shadow_outcome=Outcome.PASS,
        shadow_risk=Risk.RELEASED,
        shadow_stage=StageName.CLASSIFIER,
        decided_at=NOW,
    )
    tally = Tally()
    tally.watched(result)
    tally.watched(result.model_copy(update={"shadow_outcome": None, "shadow_risk": None, "why": "no score"}))
    found = report(tally)
    assert (found.differ, found.unknown) == (1, 1)
    assert found.other_rules == ("b2/p2",)
    assert (found.live_ms, found.other_ms) == ({StageName.CLASSIFIER: 10.0}, {StageName.CLASSIFIER: 30.0})
    assert sorted(e.why for e in found.examples) == ["", "no score"]
    text = io.StringIO()
    for part in tables(found, "shadow"):
        Console(file=text, width=200).print(part)
    assert "differ 1 (50.0%)" in text.getvalue()
    assert "pass.released" in text.getvalue()


@pytest.mark.parametrize("other", ["shadow", "replayed"])
def test_nothing_to_compare_is_said(other: str) -> None:
    assert list(tables(report(Tally()), other))[1] == "nothing to compare"
