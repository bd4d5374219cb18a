from __future__ import annotations

import random

import numpy as np
import pytest

from pipeline.evaluation.bias import BIAS_AUC, metadata_bias
from pipeline.evaluation.score_row import ScoreRow, Status


def row(number: int, synthetic: bool, **facts: object) -> ScoreRow:
    base = {"format": "jpeg", "jpeg_quality": 90, "width": 640, "height": 480, "size_bytes": 90_000}
    return ScoreRow.model_validate(
        {
            "key": f"{'ai' if synthetic else 'real'}/{number}",
            "synthetic": synthetic,
            "source": "s",
            "group": "s",
            "generator": "unknown",
            "base": "unknown",
            **base,
            **facts,
        }
    )


def alike(count: int, seed: int = 0) -> list[ScoreRow]:
    """Both classes drawn from the same formats, sizes and qualities."""
    rng = np.random.default_rng(seed)
    return [
        row(
            number,
            synthetic,
            jpeg_quality=int(rng.integers(60, 98)),
            width=int(rng.integers(300, 1200)),
            height=int(rng.integers(300, 1200)),
            size_bytes=int(rng.integers(20_000, 400_000)),
        )
        for synthetic in (False, True)
        for number in range(count)
    ]


def test_alike_classes_are_not_flagged() -> None:
    report = metadata_bias(alike(400))
    assert report.auc is not None
    assert report.auc == pytest.approx(0.5, abs=0.06)
    assert not report.flagged


@pytest.mark.parametrize(
    ("fact", "changes"),
    [
        ("format", {"format": "png", "jpeg_quality": None}),
        ("jpeg_quality", {"jpeg_quality": 75}),
        ("bytes_per_pixel", {"size_bytes": 2_000_000}),
        ("width", {"width": 1024}),
    ],
)
def test_each_fact_alone_can_give_the_class_away(fact: str, changes: dict[str, object]) -> None:
    rows = [r.model_copy(update=changes) if r.synthetic else r for r in alike(100)]
    report = metadata_bias(rows)
    assert report.flagged
    assert report.auc is not None
    assert report.auc > 0.9
    assert report.auc_by_fact[fact] > 0.9


def test_a_size_in_the_middle_of_the_others_is_seen() -> None:
    """A straight line in width would not: the generated images lie between narrow and wide photographs."""
    widths = {False: [500, 1500], True: [1024, 1024]}
    rows = [
        row(n, s, width=widths[s][n % 2], height=700, size_bytes=widths[s][n % 2] * 140)
        for s in widths
        for n in range(60)
    ]
    report = metadata_bias(rows)
    assert report.auc_by_fact["width"] > 0.95


def test_the_order_of_rows_changes_nothing() -> None:
    rows = alike(60)
    shuffled = random.Random(1).sample(rows, len(rows))
    assert metadata_bias(iter(shuffled)) == metadata_bias(rows)


def test_histograms_count_every_decoded_row_per_class() -> None:
    rows = [*alike(30), row(99, False, status=Status.FAILED, format="", width=0, height=0)]
    report = metadata_bias(rows)
    assert (report.real, report.synthetic, report.undecoded) == (30, 30, 1)
    for histogram in report.histograms.values():
        assert sum(histogram.real) == sum(histogram.synthetic) == 30
    assert report.histograms["format"].labels == ("jpeg",)


def test_png_has_no_jpeg_quality_to_count() -> None:
    rows = [row(n, s, format="png", jpeg_quality=None) for s in (False, True) for n in range(20)]
    report = metadata_bias(rows)
    assert report.histograms["jpeg_quality"].real == ()
    assert report.auc == pytest.approx(0.5)


def test_one_class_has_nothing_to_predict() -> None:
    report = metadata_bias([row(n, False) for n in range(50)])
    assert (report.auc, report.flagged) == (None, False)
    assert "one class" in report.detail


def test_too_few_to_tell_is_flagged() -> None:
    report = metadata_bias([row(n, s) for s in (False, True) for n in range(9)])
    assert (report.auc, report.flagged) == (None, True)


def test_the_report_survives_json() -> None:
    report = metadata_bias(alike(20))
    assert type(report).model_validate_json(report.model_dump_json()) == report
    assert report.limit == BIAS_AUC
