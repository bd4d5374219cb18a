"""Error rates by generator, stratum, rank, adapter type and in all, at ONE threshold.

Every row compares some generated images with some real ones. `oracle` cuts are read off the row's own real images;
`frozen` cuts off the real images of other sources of the whole set, so that their false positive rate is a result.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Annotated, Self

import numpy as np
from pydantic import BaseModel, ConfigDict, Field

from pipeline.detection.calibration import Bools, Floats
from pipeline.evaluation.columns import NO_RANK, Columns
from pipeline.evaluation.intervals import BOOTSTRAP_ROUNDS, Interval, Rate, cluster_bootstrap
from pipeline.evaluation.metrics import (
    OperatingPoint,
    ReliabilityBin,
    WeightedAuc,
    at_threshold,
    auc_interval,
    average_precision,
    brier,
    confusion,
    ece,
    fnr_at_fpr,
    folds_by_source,
    frozen_cuts,
    nll,
    reliability,
    roc_auc,
    weighted_fnr,
)
from pipeline.evaluation.sample import UNKNOWN

FPRS = (0.01, 0.05, 0.10)
FOLDS = 5
ROW_ROUNDS = 400
"""Bootstrap rounds of a row of one group; the pooled rows have `BOOTSTRAP_ROUNDS`."""

NO_STRATUM = "not decoded"
BASE_MODEL = "base model"


class Figure(BaseModel):
    """Part of the machine-readable report; NaN is written as null."""

    model_config = ConfigDict(frozen=True, extra="forbid", ser_json_inf_nan="null")


class Share(Figure):
    """`count` of `total` with the exact 95 % Clopper-Pearson interval (images taken as independent)."""

    count: int
    total: int
    share: float
    low: float
    high: float

    @classmethod
    def of(cls, rate: Rate) -> Self:
        """From a rate."""
        low, high = rate.interval
        return cls(count=rate.count, total=rate.total, share=rate.share, low=low, high=high)


class Point(Figure):
    """Error rates at one cut; `threshold` is None where every fold has its own."""

    target_fpr: float | None
    threshold: float | None
    fnr: Share
    fpr: Share

    @classmethod
    def of(cls, point: OperatingPoint, target_fpr: float | None = None) -> Self:
        """From an operating point."""
        return cls(target_fpr=target_fpr, threshold=point.threshold, fnr=Share.of(point.fnr), fpr=Share.of(point.fpr))


class Calibration(Figure):
    """Of the images that have a probability; at the share of classes in the data, not at the bundle's prior."""

    images: int
    ece: float
    brier: float
    nll: float
    bins: tuple[ReliabilityBin, ...]


class Confusion(Figure):
    """Counts and accuracies at the threshold."""

    true_positives: int
    false_negatives: int
    false_positives: int
    true_negatives: int
    accuracy: Share
    real_accuracy: Annotated[Share, Field(description="R.Acc: real images that are not flagged")]
    synthetic_accuracy: Annotated[Share, Field(description="F.Acc: generated images that are flagged")]
    balanced_accuracy: float


class Figures(Figure):
    """One detector on one group of images. `control_auc`: the same on copies without traces (shrunk to 48 px)."""

    detector: str
    real: int
    synthetic: int
    without_score: Annotated[int, Field(description="images without a score: counted as not flagged")]
    auc: float
    auc_interval: Annotated[Interval, Field(description="DeLong, images independent")]
    auc_clustered: Annotated[Interval | None, Field(description="bootstrap over whole clusters")]
    control_auc: float | None
    average_precision: float
    at_threshold: Point
    fnr_clustered: Annotated[Interval | None, Field(description="of the FNR at the threshold")]
    oracle: tuple[Point, ...]
    frozen: tuple[Point, ...]
    confusion: Confusion
    calibration: Calibration


class Row(Figure):
    """A group of images: the fused score in full, the other detectors by their AUC."""

    name: str
    fused: Figures
    other_auc: dict[str, float]


class Table(Figure):
    """Rows of one grouping."""

    title: str
    note: str = ""
    rows: tuple[Row, ...]


@dataclass(frozen=True, slots=True)
class Judged:
    """One detector's scores of a variant, and what is needed to judge any group of its images."""

    name: str
    scores: Floats
    control: Floats | None
    cuts: dict[float, Floats]
    threshold: float


def judge(columns: Columns, control: Columns | None, detector: str, threshold: float) -> Judged:
    """Fix the frozen cuts of one detector on the whole variant; none when the real images are of one source."""
    scores, real = columns.scores[detector], ~columns.synthetic
    fold = source_folds(columns)
    several = len(np.unique(fold[real])) > 1
    cuts = {fpr: frozen_cuts(scores[real], fold[real], fold, fpr) for fpr in FPRS} if several else {}
    return Judged(detector, scores, control.scores[detector] if control else None, cuts, threshold)


def source_folds(columns: Columns) -> np.ndarray[tuple[int], np.dtype[np.int64]]:
    """The folds of the scores file when it has them, else whole sources of each class spread over `FOLDS`."""
    if (columns.fold >= 0).any():
        return columns.fold
    fold = np.empty(columns.size, np.int64)
    for chosen in (columns.synthetic, ~columns.synthetic):
        fold[chosen] = folds_by_source(columns.source.codes[chosen], FOLDS)
    return fold


def figures(columns: Columns, judged: Judged, chosen: Bools, rounds: int = BOOTSTRAP_ROUNDS) -> Figures:
    """Everything about one detector on the chosen images.

    Args:
        columns: the variant.
        judged: the detector on it.
        chosen: bool (N,).
        rounds: of the cluster bootstrap.
    """
    made, held = chosen & columns.synthetic, chosen & ~columns.synthetic
    real, synthetic = judged.scores[held], judged.scores[made]
    clusters = columns.group.codes[held], columns.group.codes[made]
    scored = chosen & np.isfinite(judged.scores)
    both = bool(real.size and synthetic.size)
    control = roc_auc(judged.control[held], judged.control[made]) if judged.control is not None else None
    cut = judged.threshold
    return Figures(
        detector=judged.name,
        real=real.size,
        synthetic=synthetic.size,
        without_score=int((chosen & ~scored).sum()),
        auc=roc_auc(real, synthetic),
        auc_interval=auc_interval(real, synthetic),
        auc_clustered=cluster_bootstrap(WeightedAuc(real, synthetic), *clusters, rounds=rounds) if both else None,
        control_auc=control,
        average_precision=average_precision(real, synthetic),
        at_threshold=Point.of(at_threshold(real, synthetic, cut)),
        fnr_clustered=cluster_bootstrap(weighted_fnr(synthetic, cut), *clusters, rounds=rounds) if both else None,
        oracle=tuple(Point.of(fnr_at_fpr(real, synthetic, fpr), fpr) for fpr in FPRS) if real.size else (),
        frozen=tuple(_frozen(judged, held, made, fpr) for fpr in judged.cuts),
        confusion=_confusion(real, synthetic, cut),
        calibration=_calibration(judged.scores[scored], columns.synthetic[scored]),
    )


def _frozen(judged: Judged, held: Bools, made: Bools, fpr: float) -> Point:
    flagged = judged.scores >= judged.cuts[fpr]
    missed = Rate(int((~flagged[made]).sum()), int(made.sum()))
    return Point(
        target_fpr=fpr,
        threshold=None,
        fnr=Share.of(missed),
        fpr=Share.of(Rate(int(flagged[held].sum()), int(held.sum()))),
    )


def _confusion(real: Floats, synthetic: Floats, cut: float) -> Confusion:
    found = confusion(real, synthetic, cut)
    return Confusion(
        true_positives=found.true_positives,
        false_negatives=found.false_negatives,
        false_positives=found.false_positives,
        true_negatives=found.true_negatives,
        accuracy=Share.of(found.accuracy),
        real_accuracy=Share.of(found.real_accuracy),
        synthetic_accuracy=Share.of(found.synthetic_accuracy),
        balanced_accuracy=found.balanced_accuracy,
    )


def _calibration(probabilities: Floats, synthetic: Bools) -> Calibration:
    return Calibration(
        images=probabilities.size,
        ece=ece(probabilities, synthetic),
        brier=brier(probabilities, synthetic),
        nll=nll(probabilities, synthetic),
        bins=reliability(probabilities, synthetic),
    )


def grouped_tables(columns: Columns, detectors: dict[str, Judged], rounds: int = ROW_ROUNDS) -> tuple[Table, ...]:
    """The tables whose rows are groups of images; a grouping that the data do not have is left out."""
    tables = (
        Table(
            title="By generator",
            note="Each against all real images.",
            rows=_rows(columns, detectors, by_generator(columns), rounds),
        ),
        Table(
            title="By stratum",
            note="Codec and size as the spectral stage sees them; real and generated images of the same stratum.",
            rows=_rows(columns, detectors, by_stratum(columns), rounds),
        ),
        Table(title="By LoRA rank", note=_AGAINST_ALL, rows=_rows(columns, detectors, by_rank(columns), rounds)),
        Table(
            title="By adapter type", note=_AGAINST_ALL, rows=_rows(columns, detectors, by_adapter_type(columns), rounds)
        ),
    )
    return tuple(table for table in tables if table.rows)


_AGAINST_ALL = "Each against all real images; intervals marked as clustered draw whole adapters."


def by_generator(columns: Columns) -> Iterator[tuple[str, Bools]]:
    """(generator, its images and all real ones)."""
    for name in columns.generator.present(columns.synthetic):
        yield name, (columns.synthetic & columns.generator.where(name)) | ~columns.synthetic


def by_stratum(columns: Columns) -> Iterator[tuple[str, Bools]]:
    """(stratum, its images of both classes)."""
    for name in columns.stratum.present(np.ones(columns.size, bool)):
        yield name or NO_STRATUM, columns.stratum.where(name)


def by_rank(columns: Columns) -> Iterator[tuple[str, Bools]]:
    """(rank, adapter images of it and all real ones), and the base model's own images first; none without ranks."""
    ranks = np.unique(columns.rank[columns.synthetic & (columns.rank != NO_RANK)])
    if not ranks.size:
        return
    base = columns.synthetic & columns.adapter_type.where("")
    if base.any():
        yield BASE_MODEL, base | ~columns.synthetic
    for rank in ranks.tolist():
        yield f"rank {rank}", (columns.synthetic & (columns.rank == rank)) | ~columns.synthetic


def by_adapter_type(columns: Columns) -> Iterator[tuple[str, Bools]]:
    """(adapter type, its images and all real ones); none in data without adapters."""
    types = [name for name in columns.adapter_type.present(columns.synthetic) if name]
    if not types:
        return
    for name in ("", *types):
        made = columns.synthetic & columns.adapter_type.where(name)
        if made.any():
            yield name or "none", made | ~columns.synthetic


def _rows(
    columns: Columns, detectors: dict[str, Judged], groups: Iterator[tuple[str, Bools]], rounds: int
) -> tuple[Row, ...]:
    return tuple(
        Row(
            name=name,
            fused=figures(columns, detectors["fused"], chosen, rounds),
            other_auc={
                other: roc_auc(judged.scores[chosen & ~columns.synthetic], judged.scores[chosen & columns.synthetic])
                for other, judged in detectors.items()
                if other != "fused"
            },
        )
        for name, chosen in groups
    )


class SourceRow(Figure):
    """One source of real images at the threshold."""

    source: str
    fpr: Share


def real_sources(columns: Columns, judged: Judged) -> tuple[SourceRow, ...]:
    """False positives of every source of real images; a source that stands out is a slice to look at."""
    real = ~columns.synthetic
    rows = []
    for name in columns.source.present(real):
        scores = judged.scores[real & columns.source.where(name)]
        rows.append(SourceRow(source=name, fpr=Share.of(Rate(int((scores >= judged.threshold).sum()), scores.size))))
    return tuple(rows)


def known_generators(columns: Columns) -> bool:
    """Whether the dataset names any generator."""
    return columns.generator.present(columns.synthetic) != [UNKNOWN]
