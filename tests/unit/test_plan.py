"""A policy from labelled scores and budgets."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from typer.testing import CliRunner

from pipeline.detection.policy import Fusion, Policy
from pipeline.detection.reach import reach
from pipeline.evaluation.cascade_load import Exit, Table
from pipeline.evaluation.intervals import Rate
from pipeline.evaluation.plan import Blocks, Budgets, PlanError, make_plan
from pipeline.evaluation.score_row import ScoreRow, write_rows
from schemas.decision import Mode
from tests.support.score_rows import row, rows
from workers.cli.main import app

BASE = Policy(version="base")
MANY = rows(700, 200)
BUDGETS = Budgets()


@pytest.mark.parametrize("mode", Mode)
@pytest.mark.parametrize("stacked", [False, True])
def test_a_large_sample_supports_the_budgets(mode: Mode, stacked: bool) -> None:
    plan = make_plan(MANY, BUDGETS, mode, BASE, stacked=stacked)
    assert plan.policy.provisional is None
    assert plan.policy.mode is mode
    for cut in (plan.t1, plan.t2, plan.t3):
        assert cut.budget.errors.upper_limit <= cut.budget.allowed
    t = plan.policy.thresholds
    assert t.p12_block == t.t3_block == plan.t3.value
    assert (t.t2, t.t1_alone if mode is Mode.FUSED else t.t1) == (plan.t2.value, plan.t1.value)


def test_fused_mode_shows_all_to_stage_2() -> None:
    plan = make_plan(MANY, BUDGETS, Mode.FUSED, BASE)
    assert plan.policy.thresholds.t1 == 0.0
    assert plan.leaving(Exit.RELEASED, synthetic=False).count == 0
    assert plan.policy.fusion.stage2 is None


def test_strict_mode_calibrates_stage_2_on_what_reaches_it() -> None:
    """Beyond T1 the spectrum turns: a calibration on all images would see it separate them well."""
    made = [
        row(
            f"{i}",
            synthetic=i % 2 == 1,
            s1=0.1 if i % 2 == 0 and i < 600 else 0.9,
            s2=0.01 + 0.02 * (i % 40),
            source=f"s{i % 6}",
        )
        for i in range(1000)
    ]
    plan = make_plan(made, BUDGETS, Mode.STRICT, BASE)
    assert plan.notes[0].startswith("stage 2")
    assert "500 generated and 200 real" in plan.notes[0]


def test_a_spectrum_that_misleads_is_left_uncalibrated_and_said_so() -> None:
    made = rows(300, 100, strength=(2.0, -1.0))
    plan = make_plan(made, BUDGETS, Mode.STRICT, BASE)
    assert plan.policy.fusion.stage2 is None
    assert "no calibration" in plan.notes[0]


def test_a_small_sample_gives_a_provisional_policy_and_the_number_that_would_do() -> None:
    plan = make_plan(rows(110, 30), BUDGETS, Mode.FUSED, BASE)
    why = plan.policy.provisional
    assert why is not None
    assert "FNR of stage 1 5.00%: 0 of 30 images wrong, which supports 9.50% at best; 59 would do" in why
    assert "FPR of blocks 0.50%: 0 of 110 images wrong, which supports 2.69% at best; 598 would do" in why
    assert "FPR of stage 2" not in why
    assert plan.blocks().false.count == 0


def test_a_generated_image_without_a_classifier_score_is_a_miss() -> None:
    plan = make_plan([*MANY, row("x", synthetic=True, s1=None, s2=None)], BUDGETS, Mode.STRICT, BASE)
    without = make_plan(MANY, BUDGETS, Mode.STRICT, BASE)
    assert plan.t1.budget.errors == Rate(without.t1.budget.errors.count, 201)
    assert plan.t1.value <= without.t1.value


def test_every_image_leaves_one_way_and_failures_escalate() -> None:
    plan = make_plan(MANY, BUDGETS, Mode.STRICT, BASE)
    by_class = [sum(plan.leaving(way, synthetic=kind).count for way in Exit) for kind in (False, True)]
    assert by_class == [700, 200]
    table = Table.of(MANY)
    assert {plan.exits[i] for i in np.flatnonzero(np.isnan(table.s1))} == {Exit.FAILED}
    blank = np.isnan(table.s2) & ~np.isnan(table.s1)
    assert {plan.exits[i] for i in np.flatnonzero(blank)} <= {Exit.RELEASED, Exit.NOT_APPLICABLE}


def test_in_fused_mode_the_classifier_alone_releases_some_without_a_spectrum() -> None:
    plan = make_plan(MANY, BUDGETS, Mode.FUSED, BASE)
    assert plan.leaving(Exit.ALONE, synthetic=False).count > 0
    assert plan.leaving(Exit.NOT_APPLICABLE, synthetic=True).count > 0


def test_the_load_is_the_mixture_of_both_classes() -> None:
    plan = make_plan(MANY, BUDGETS, Mode.FUSED, BASE)
    third = [plan.leaving(Exit.STAGE_3, synthetic=kind).share for kind in (False, True)]
    load = plan.load(0.1)
    assert load.stage3.value == pytest.approx(0.9 * third[0] + 0.1 * third[1])
    assert load.stage3.interval is not None
    assert load.stage3.interval.low < load.stage3.value < load.stage3.interval.high
    assert load.escalated_least.value == pytest.approx(load.escalated_most.value - load.blocked_most.value)
    assert plan.load(0.5).stage3.value > load.stage3.value


def test_one_source_gives_no_interval() -> None:
    plan = make_plan(rows(100, 100, sources=1), BUDGETS, Mode.FUSED, BASE)
    assert plan.load(0.1).stage2.interval is None


def test_no_block_below_even_odds() -> None:
    made = [row(f"{i}", synthetic=i < 100, s1=0.3 if i < 100 else 0.05, s2=0.3) for i in range(800)]
    plan = make_plan(made, BUDGETS, Mode.FUSED, BASE)
    assert plan.policy.thresholds.t3_block == 0.5
    assert plan.blocks().true.count == 0


def test_the_classifier_releases_nothing_that_is_more_likely_generated() -> None:
    made = [row(f"{i}", synthetic=i < 200, s1=0.9 if i < 200 else 0.2 + i / 2000, s2=0.5) for i in range(800)]
    plan = make_plan(made, BUDGETS, Mode.STRICT, BASE)
    assert plan.policy.thresholds.t1 == 0.5
    assert plan.t1.interval.high == 0.5
    assert plan.released(synthetic=True).count == plan.leaving(Exit.LOW_RISK, synthetic=True).count
    assert plan.t1.budget.errors == Rate(0, 200)


def test_a_mllm_with_weight_cannot_widen_the_false_blocks() -> None:
    listening = Policy(version="base", fusion=Fusion(mllm_weight=1.0))
    plan = make_plan(MANY, BUDGETS, Mode.FUSED, listening)
    assert plan.blocks().false == plan.t3.budget.errors


def test_a_real_image_that_every_threshold_blocks_is_an_error() -> None:
    sure = Policy(version="base", fusion=Fusion(w1=4.0, w2=4.0))
    with pytest.raises(PlanError, match="1 real images have the highest fused score"):
        make_plan([*MANY, row("x", synthetic=False, s1=1.0, s2=1.0)], BUDGETS, Mode.FUSED, sure)


@pytest.mark.parametrize(
    ("made", "what"),
    [
        ([], "no rows"),
        ([row("a", synthetic=True, s1=0.5, s2=0.5, variant="q90")], "the file has q90"),
        ([row("a", synthetic=True, s1=0.5, s2=0.5)], "real images: 0"),
        ([MANY[0], MANY[0]], "twice"),
    ],
)
def test_rows_that_allow_no_plan_are_refused(made: list[ScoreRow], what: str) -> None:
    with pytest.raises(PlanError, match=what):
        make_plan(made, BUDGETS, Mode.STRICT, BASE)


def test_weights_need_two_sources_of_each_class() -> None:
    with pytest.raises(PlanError, match="real images of 1 source"):
        make_plan(rows(100, 100, sources=1), BUDGETS, Mode.FUSED, BASE, stacked=True)


def test_the_version_is_of_the_content() -> None:
    first, again = (make_plan(MANY, BUDGETS, Mode.FUSED, BASE, stacked=True).policy for _ in range(2))
    assert first == again
    assert first.version.startswith("plan-fused-")
    assert make_plan(MANY, Budgets(fpr2=0.05), Mode.FUSED, BASE).policy.version != first.version


def test_the_value_of_a_block_falls_with_prevalence_and_at_worst() -> None:
    blocks = Blocks(false=Rate(1, 1000), true=Rate(90, 100))
    assert blocks.ppv(0.5) == pytest.approx(0.9 / 0.901)
    common, rare, worst = blocks.ppv(0.5), blocks.ppv(0.01), blocks.ppv(0.01, worst=True)
    assert common is not None
    assert rare is not None
    assert worst is not None
    assert worst < rare < common
    assert Blocks(Rate(0, 10), Rate(0, 10)).ppv(0.5) is None


def test_the_command_writes_a_policy_that_loads(tmp_path: Path) -> None:
    scores, out = tmp_path / "scores.jsonl", tmp_path / "policy.json"
    write_rows(scores, MANY)
    done = CliRunner().invoke(app, ["plan", str(scores), "--mode", "strict", "--out", str(out), "--json"])
    assert done.exit_code == 0, done.output
    found = json.loads(done.stdout)
    assert Policy.load(out) == Policy.model_validate(found["policy"])
    assert found["cuts"]["t2"]["supported"] is True
    assert found["load"]["stage2"]["by_source"][0] <= found["load"]["stage2"]["share"]
    low, high = found["reviews_per_million"]
    assert 0 < low <= high


def test_the_command_says_what_is_provisional(tmp_path: Path) -> None:
    scores = tmp_path / "scores.jsonl"
    write_rows(scores, rows(100, 30))
    done = CliRunner().invoke(
        app, ["plan", str(scores), "--mode", "fused", "--block-fpr", "0.005", "--prevalence", "5%"]
    )
    assert done.exit_code == 0, done.output
    assert "PROVISIONAL: " in done.stdout
    assert "598 would do" in done.stdout
    assert "PPV of a block" in done.stdout
    assert "load at 5.00% generated" in done.stdout


@pytest.mark.parametrize("text", ["7", "0", "five", "100%"])
def test_a_share_that_is_none_is_refused(text: str, tmp_path: Path) -> None:
    scores = tmp_path / "scores.jsonl"
    write_rows(scores, MANY[:1])
    done = CliRunner().invoke(app, ["plan", str(scores), "--mode", "fused", "--fnr1", text])
    assert done.exit_code == 2


@pytest.mark.parametrize("mode", list(Mode))
def test_stage_3_can_clear_something_and_not_block_everything(mode):
    for seed in range(4):
        policy = make_plan(rows(300, 150, seed), BUDGETS, mode, BASE).policy
        assert not list(reach(policy).faults())
