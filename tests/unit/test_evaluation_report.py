from __future__ import annotations

import json
import re
from pathlib import Path

import numpy as np
import pytest

from pipeline.detection.bundle import Bundle
from pipeline.detection.policy import Policy
from pipeline.evaluation.cascade import cascade, in_mode, shifts
from pipeline.evaluation.columns import columns_of, read_columns
from pipeline.evaluation.report import TOY_NOTE, About, build_report, write_json
from pipeline.evaluation.score_row import ScoreRow, ScoresError, Status, write_rows
from pipeline.evaluation.tables import by_rank, figures, grouped_tables, judge
from schemas.decision import Mode

HOSTILE = "<img src=x onerror=alert(1)> $x^2$ \N{SNOWMAN}"


def row(key: str, synthetic: bool, s1: float | None, s2: float | None = 0.5, **changes: object) -> ScoreRow:
    fields: dict[str, object] = {
        "key": key,
        "synthetic": synthetic,
        "source": "s",
        "group": key,
        "generator": "g" if synthetic else "unknown",
        "base": "unknown",
        "stratum": "jpeg_85_94/128_383",
        "format": "jpeg",
        "width": 300,
        "height": 300,
        "size_bytes": 9000,
        "classifier": s1,
        "spectral": s2,
        "fused": s1,
    }
    return ScoreRow.model_validate(fields | changes)


def many(variant: str = "as delivered", shift: float = 0.3, count: int = 40) -> list[ScoreRow]:
    rng = np.random.default_rng(0)
    rows = []
    for number in range(count):
        for synthetic in (False, True):
            score = float(np.clip(rng.normal(0.35 + shift * synthetic, 0.15), 0.01, 0.99))
            rows.append(
                row(
                    f"{number}{synthetic}",
                    synthetic,
                    score,
                    float(np.clip(rng.normal(0.45 + 0.1 * synthetic, 0.15), 0.01, 0.99)),
                    source=f"{'made' if synthetic else 'cam'}{number % 4}",
                    group=f"{'made' if synthetic else 'cam'}{number % 4}",
                    generator=(HOSTILE if number % 2 else "other") if synthetic else "unknown",
                    variant=variant,
                    adapter_type="lora" if synthetic and number % 4 == 1 else "",
                )
            )
    return rows


@pytest.fixture(scope="module")
def about() -> About:
    return About(
        "set", "manifest", Bundle.load(), mean_ms={"decode": 1.0, "classifier": 20.0, "spectral": 5.0}, rounds=20
    )


def test_images_without_a_score_stay_in_every_denominator() -> None:
    rows = [
        row("a", True, 0.9),
        row("b", True, None, None, status=Status.FAILED, stratum=""),
        row("c", False, None, None, status=Status.FAILED, stratum=""),
        row("d", False, 0.1),
        row("e", True, 0.2, None, status=Status.NOT_APPLICABLE),
    ]
    columns = columns_of(rows)["as delivered"]
    everything = np.ones(5, bool)
    fused = figures(columns, judge(columns, None, "fused", 0.5), everything, 10)
    assert (fused.at_threshold.fnr.count, fused.at_threshold.fnr.total) == (2, 3)
    assert (fused.at_threshold.fpr.count, fused.at_threshold.fpr.total) == (0, 2)
    assert (fused.without_score, fused.calibration.images) == (2, 3)
    spectral = figures(columns, judge(columns, None, "spectral", 0.5), everything, 10)
    assert (spectral.at_threshold.fnr.count, spectral.without_score) == (2, 3)


@pytest.mark.parametrize("mode", list(Mode))
def test_the_cascade_multiplies_and_counts_what_no_stage_judged(mode: Mode) -> None:
    policy = Policy(version="p", mode=Mode.STRICT)
    rows = [
        row("released", True, 0.1, 0.9),
        row("low risk", True, 0.5, 0.2, fused=0.35),
        row("through", True, 0.9, 0.9),
        row("no spectrum", True, 0.9, None, status=Status.NOT_APPLICABLE),
        row("failed", True, None, None, status=Status.FAILED),
        row("photograph", False, 0.1, 0.1),
        row("flagged photograph", False, 0.8, 0.8),
    ]
    found = cascade(columns_of(rows)["as delivered"], policy, mode, 0.1, {"decode": 1, "classifier": 10, "spectral": 4})
    first, second = found.stages
    whole = 1 - (1 - first.fnr.share) * (1 - second.fnr.share)
    assert found.fnr.share == pytest.approx(whole)
    assert (first.unjudged, second.unjudged) == (1, 1)
    assert found.is_policy is (mode is Mode.STRICT)
    if mode is Mode.STRICT:
        assert (first.fnr.count, second.fnr.count, found.fnr.count) == (2, 2, 4)
        assert found.reach_mllm.share == pytest.approx(0.9 * 0.5 + 0.1 * 0.2)
        assert found.ms_per_1000["spectral"] == pytest.approx(1000 * 5 * (0.9 * 0.5 + 0.1 * 0.6))
    else:
        assert first.fnr.count == 1, "only what failed: stage 1 releases nothing"
    assert found.fewer_mllm_calls == pytest.approx(1 - found.reach_mllm.share)


def test_a_policy_turned_to_the_other_mode_and_back_keeps_its_thresholds() -> None:
    policy = Policy(version="p", mode=Mode.STRICT)
    fused = in_mode(policy, Mode.FUSED)
    assert (fused.thresholds.t1, fused.thresholds.t1_alone) == (0.0, policy.thresholds.t1)
    assert in_mode(fused, Mode.STRICT).thresholds == policy.thresholds
    assert in_mode(policy, Mode.STRICT) is policy


def bench_rows() -> list[ScoreRow]:
    rows = [row(f"photo{i}", False, 0.1 + 0.02 * i, group=f"prompt {i}", source="photographs") for i in range(10)]
    for prompt in range(10):
        base = {"base": "B", "generator": "B", "source": "B"}
        rows.append(row(f"base{prompt}", True, 0.9, group=f"prompt {prompt}", **base))
        for rank in (4, 64):
            adapter = {"adapter_type": "lora", "rank": rank, "paired_with": f"base{prompt}"}
            score = 0.2 if rank == 64 and prompt < 3 else 0.9
            rows.append(row(f"r{rank}-{prompt}", True, score, group=f"adapter {rank}-{prompt // 2}", **base, **adapter))
    return rows


def test_the_adapter_shift_is_against_the_paired_base_images() -> None:
    columns = columns_of(bench_rows())["as delivered"]
    low, high = shifts(columns, judge(columns, None, "fused", 0.5))
    assert (low.rank, low.adapter_shift, low.images, low.adapters) == (4, 0.0, 10, 5)
    assert (high.rank, high.fnr.count, high.adapter_shift) == (64, 3, pytest.approx(0.3))
    assert high.adapter_shift_interval is not None
    assert high.adapter_shift_interval.low <= 0.3 <= high.adapter_shift_interval.high
    assert high.base_shift is None, "one base has no other to be compared with"
    assert [name for name, _ in by_rank(columns)] == ["base model", "rank 4", "rank 64"]


def test_the_rank_sweep_of_the_bench_is_never_set_beside_hypotheses(tmp_path: Path, about: About) -> None:
    write_rows(tmp_path / "scores.jsonl", bench_rows())
    bench = About("bench", "adapter_bench", about.bundle, rounds=20)
    report, _ = build_report(tmp_path / "scores.jsonl", bench)
    assert report.title_note == TOY_NOTE
    assert not any(r.hypothesis_fnr_adapter or r.hypothesis_auc_adapter for v in report.variants for r in v.ablation)
    assert {table.title for table in report.variants[0].tables} >= {"By LoRA rank", "By adapter type"}
    assert "35-45" not in report.model_dump_json()


def test_the_control_stands_beside_every_auc(tmp_path: Path, about: About) -> None:
    write_rows(tmp_path / "scores.jsonl", [*many(), *many("trace-free 48 px", shift=0.0)])
    report, _ = build_report(tmp_path / "scores.jsonl", about)
    delivered, control = report.variants
    for found in delivered.pooled:
        assert found.control_auc == next(f.auc for f in control.pooled if f.detector == found.detector)
    assert all(r.fused.control_auc is not None for table in delivered.tables for r in table.rows)
    assert all(f.control_auc is None for f in control.pooled)
    assert all(r.hypothesis_fnr_adapter for r in delivered.ablation)


def test_the_page_is_whole_in_itself_and_takes_no_code_from_names(tmp_path: Path, about: About) -> None:
    pytest.importorskip("matplotlib")
    pytest.importorskip("jinja2")
    from pipeline.evaluation.report_html import render

    write_rows(tmp_path / "scores.jsonl", [*many(), *many("trace-free 48 px", shift=0.0)])
    report, columns = build_report(tmp_path / "scores.jsonl", about)
    page = render(report, columns)
    assert HOSTILE not in page
    assert page.count("&lt;img src=x onerror=alert(1)&gt;") > 1, "in tables and in the plots"
    assert "<script" not in page
    assert page.count("<svg ") == page.count("</svg>") == 2 * 5
    assert not re.search(r"""\b(?:src|href)\s*=\s*["'](?!#)|url\(\s*["']?(?!#)|@import""", page)
    assert "#0000f" not in page, "every plot colour follows the page"
    write_json(report, tmp_path / "report.json")
    assert json.loads((tmp_path / "report.json").read_text())["variants"][0]["pooled"][0]["detector"] == "classifier"


def test_two_bundles_are_compared_on_the_same_images_only(tmp_path: Path, about: About) -> None:
    mine, theirs = tmp_path / "mine.jsonl", tmp_path / "theirs.jsonl"
    write_rows(mine, many())
    write_rows(theirs, many(shift=0.1))
    beside = About("set", "manifest", about.bundle, compare=theirs, rounds=20)
    report, _ = build_report(mine, beside)
    assert [c.difference > 0 for c in report.bundle_comparison] == [True, False, True]
    write_rows(theirs, many(count=30))
    with pytest.raises(ScoresError, match="same dataset with both bundles"):
        build_report(mine, beside)


def test_scores_of_one_class_or_of_unlike_variants_are_refused(tmp_path: Path, about: About) -> None:
    path = tmp_path / "scores.jsonl"
    write_rows(path, [r for r in many() if r.synthetic])
    with pytest.raises(ScoresError, match="generated images only"):
        build_report(path, about)
    write_rows(path, [*many(), *many("other", count=39)])
    with pytest.raises(ScoresError, match="other images"):
        read_columns(path)
    write_rows(path, [])
    with pytest.raises(ScoresError, match="no score row"):
        read_columns(path)


def test_a_stratum_with_one_class_has_no_auc_and_is_still_counted() -> None:
    rows = [*many(), row("x", False, 0.1, stratum="png/128_383")]
    columns = columns_of(rows)["as delivered"]
    detectors = {d: judge(columns, None, d, 0.5) for d in ("classifier", "spectral", "fused")}
    strata = next(table for table in grouped_tables(columns, detectors) if table.title == "By stratum")
    lone = next(r for r in strata.rows if r.name == "png/128_383")
    assert (lone.fused.real, lone.fused.synthetic) == (1, 0)
    assert np.isnan(lone.fused.auc)
