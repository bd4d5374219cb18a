"""What degradations, deliveries, hard photographs and attacks do to the fused score at the one threshold."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Annotated

import numpy as np
from pydantic import Field

from pipeline.detection.calibration import Bools
from pipeline.evaluation.columns import Columns
from pipeline.evaluation.comparison import mcnemar
from pipeline.evaluation.intervals import Rate
from pipeline.evaluation.metrics import roc_auc
from pipeline.evaluation.robustness.degradations import DELIVERY, verdict_flips
from pipeline.evaluation.robustness.suites import SUITES
from pipeline.evaluation.score_row import ScoreRow, read_rows
from pipeline.evaluation.tables import Figure, Share

SUITE_OF = {variant.name: suite for suite, variants in SUITES.items() for variant in variants}


class SuiteRow(Figure):
    """One variant and one class. `wrong`: a real image flagged, or a generated one not flagged."""

    suite: str
    variant: str
    synthetic: bool
    wrong: Share
    wrong_as_delivered: Annotated[Share, Field(description="the same images as the dataset has them")]
    p_value: Annotated[float, Field(description="exact McNemar against as delivered")]
    auc: Annotated[float, Field(description="against the other class, treated alike or else as delivered")]


class FlipFigures(Figure):
    """Verdicts that change over the deliveries of one image."""

    synthetic: bool
    flipped: Share
    by_variant: dict[str, int]


def suite_rows(variants: Mapping[str, Columns], first: Columns, threshold: float) -> tuple[SuiteRow, ...]:
    """A row for every suite variant and class in it."""
    rows = []
    for name, columns in variants.items():
        if name in SUITE_OF:
            rows += [
                _row(name, columns, first, synthetic, threshold) for synthetic in np.unique(columns.synthetic).tolist()
            ]
    return tuple(rows)


def delivery_flips(scores: Path, first: str, threshold: float) -> tuple[FlipFigures, ...]:
    """How often the verdict on one image depends on its delivery; empty when the suite was not run."""

    def flagged(row: ScoreRow) -> bool | None:
        return None if row.fused is None else row.fused >= threshold

    names = {first, *(variant.name for variant in DELIVERY)}
    found = []
    for synthetic in (False, True):
        rows = (row for row in read_rows(scores) if row.synthetic is synthetic and row.variant in names)
        flips = verdict_flips(rows, flagged, first)
        if flips.images:
            share = Share.of(Rate(flips.flipped, flips.images))
            found.append(FlipFigures(synthetic=synthetic, flipped=share, by_variant=flips.by_variant))
    return tuple(found)


def _row(name: str, columns: Columns, first: Columns, synthetic: bool, threshold: float) -> SuiteRow:
    here = columns.scores["fused"][columns.synthetic == synthetic]
    before = first.scores["fused"][first.synthetic == synthetic]
    both = len(np.unique(columns.synthetic)) > 1
    other = (columns if both else first).scores["fused"]
    others = other[(columns if both else first).synthetic != synthetic]
    wrong, wrong_before = _wrong(here, synthetic, threshold), _wrong(before, synthetic, threshold)
    return SuiteRow(
        suite=SUITE_OF[name],
        variant=name,
        synthetic=synthetic,
        wrong=Share.of(Rate(int(wrong.sum()), wrong.size)),
        wrong_as_delivered=Share.of(Rate(int(wrong_before.sum()), wrong_before.size)),
        p_value=mcnemar(wrong_before, wrong).p_value,
        auc=roc_auc(others, here) if synthetic else roc_auc(here, others),
    )


def _wrong(scores: np.ndarray[tuple[int], np.dtype[np.float64]], synthetic: bool, threshold: float) -> Bools:
    flagged: Bools = scores >= threshold
    return ~flagged if synthetic else flagged
