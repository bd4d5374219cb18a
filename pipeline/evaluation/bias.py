"""Whether a dataset gives its labels away by format, quality, size or bytes per pixel, without a look at pixels."""

from __future__ import annotations

import hashlib
import heapq
from array import array
from collections import Counter
from collections.abc import Iterable, Sequence
from typing import Annotated, TypeAlias

import numpy as np
import numpy.typing as npt
from pydantic import BaseModel, ConfigDict, Field

from pipeline.evaluation.metrics import roc_auc
from pipeline.evaluation.score_row import ScoreRow

Floats: TypeAlias = npt.NDArray[np.float64]
Bools: TypeAlias = npt.NDArray[np.bool_]

BIAS_AUC = 0.60
"""A class that these facts predict better than this is given away."""

FOLDS = 5
MIN_PER_CLASS = 10
MAX_PER_CLASS = 20_000
"""Images of a class that the logistic regression is fitted on; the histograms count all."""

_QUANTILE_BINS = 10
_HISTOGRAM_BINS = 20
_L2 = 1.0
_NEWTON_STEPS = 50
_TOLERANCE = 1e-6
FACTS = ("format", "jpeg_quality", "width", "height", "bytes_per_pixel")


class Histogram(BaseModel):
    """Counts of a fact per class. Bin i of a number is [labels[i], labels[i + 1]); the last one is closed."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    labels: tuple[str, ...]
    real: tuple[int, ...]
    synthetic: tuple[int, ...]


class BiasReport(BaseModel):
    """How well the facts alone predict the class, and how they are distributed.

    `auc` is the mean over folds of the cross-validated AUC; None where it cannot be measured, and `detail` says
    why. A flagged set needs the equal-codec protocol beside the raw figures; so does one that holds both classes
    but too few images to tell. `auc_by_fact` names the facts that give the class away.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    auc: Annotated[float, Field(ge=0, le=1)] | None
    auc_by_fact: dict[str, float] = {}
    flagged: bool
    limit: float = BIAS_AUC
    real: int
    synthetic: int
    undecoded: int
    histograms: dict[str, Histogram]
    detail: str = ""


def metadata_bias(rows: Iterable[ScoreRow]) -> BiasReport:
    """Fit class ~ facts by L2 logistic regression, cross-validated, on images whose header could be read.

    Numbers enter standardised (logarithms for sizes) and by deciles, so that "always 1024 px" is seen too. Streams:
    memory does not grow with the rows, apart from one float a row and fact. The result does not depend on their order.
    """
    sample: dict[bool, _Sampled] = {False: _Sampled(), True: _Sampled()}
    tally = _Tally()
    for row in rows:
        if tally.add(row):
            sample[row.synthetic].add(row)
    real, synthetic = tally.counts[False], tally.counts[True]
    drawn = [row for label in (False, True) for row in sample[label].in_order()]
    auc, by_fact, detail = None, {}, ""
    if not real or not synthetic:
        detail = "one class only: there is nothing to predict"
    elif min(real, synthetic) < MIN_PER_CLASS:
        detail = f"fewer than {MIN_PER_CLASS} images in a class: bias cannot be ruled out"
    else:
        auc = _cross_validated(drawn, FACTS)
        by_fact = {fact: _cross_validated(drawn, (fact,)) for fact in FACTS}
    return BiasReport(
        auc=auc,
        auc_by_fact=by_fact,
        flagged=bool(real and synthetic) and (auc is None or auc > BIAS_AUC),
        real=real,
        synthetic=synthetic,
        undecoded=tally.undecoded,
        histograms=tally.histograms(),
        detail=detail,
    )


class _Sampled:
    """The `MAX_PER_CLASS` rows whose keys have the smallest digests: a random sample that any order gives alike."""

    def __init__(self) -> None:
        self._heap: list[tuple[int, str, ScoreRow]] = []

    def add(self, row: ScoreRow) -> None:
        entry = (-_digest(row), row.key, row)
        if len(self._heap) < MAX_PER_CLASS:
            heapq.heappush(self._heap, entry)
        elif entry[:2] > self._heap[0][:2]:
            heapq.heapreplace(self._heap, entry)

    def in_order(self) -> list[ScoreRow]:
        return [row for _, _, row in sorted(self._heap, key=lambda e: (-e[0], e[1]))]


def _digest(row: ScoreRow) -> int:
    return int.from_bytes(hashlib.sha256(row.key.encode()).digest()[:8], "big")


class _Tally:
    """Every row's facts as they stream by."""

    def __init__(self) -> None:
        self.counts: Counter[bool] = Counter()
        self.undecoded = 0
        self._formats: dict[bool, Counter[str]] = {False: Counter(), True: Counter()}
        self._numbers: dict[str, dict[bool, array[float]]] = {
            fact: {False: array("d"), True: array("d")} for fact in FACTS[1:]
        }

    def add(self, row: ScoreRow) -> bool:
        """Count a row; False where its header could not be read."""
        if not row.format or row.width < 1 or row.height < 1:
            self.undecoded += 1
            return False
        self.counts[row.synthetic] += 1
        self._formats[row.synthetic][row.format] += 1
        for fact, classes in self._numbers.items():
            value = _number(row, fact)
            if value is not None:
                classes[row.synthetic].append(value)
        return True

    def histograms(self) -> dict[str, Histogram]:
        names = sorted({name for counts in self._formats.values() for name in counts})
        by_format = Histogram(
            labels=tuple(names),
            real=tuple(self._formats[False][name] for name in names),
            synthetic=tuple(self._formats[True][name] for name in names),
        )
        numbers = {fact: _histogram(classes[False], classes[True]) for fact, classes in self._numbers.items()}
        return {"format": by_format, **numbers}


def _histogram(real: Sequence[float], synthetic: Sequence[float]) -> Histogram:
    """`_HISTOGRAM_BINS` equal bins from the smallest to the largest value of either class."""
    if not real and not synthetic:
        return Histogram(labels=(), real=(), synthetic=())
    edges = np.histogram_bin_edges(np.array([*real, *synthetic]), bins=_HISTOGRAM_BINS)
    counts = [np.histogram(values, bins=edges)[0].tolist() for values in (real, synthetic)]
    labels = tuple(f"{edge:.4g}" for edge in edges)
    return Histogram(labels=labels, real=tuple(counts[0]), synthetic=tuple(counts[1]))


def _number(row: ScoreRow, fact: str) -> float | None:
    if fact == "bytes_per_pixel":
        return row.size_bytes / (row.width * row.height)
    if fact == "jpeg_quality":
        return None if row.jpeg_quality is None else float(row.jpeg_quality)
    return float(row.width if fact == "width" else row.height)


def _cross_validated(rows: Sequence[ScoreRow], facts: Sequence[str]) -> float:
    """Mean over folds of the AUC on the fold that was left out. Rows come class by class, in order of digest."""
    labels = np.array([row.synthetic for row in rows], dtype=bool)
    design = np.column_stack([column for fact in facts for column in _columns(rows, fact)])
    place_in_class = np.concatenate([np.arange((~labels).sum()), np.arange(labels.sum())])
    folds = place_in_class % FOLDS
    aucs = []
    for fold in range(FOLDS):
        held_out = folds == fold
        scores = design[held_out] @ _fit(design[~held_out], labels[~held_out])
        aucs.append(roc_auc(scores[~labels[held_out]], scores[labels[held_out]]))
    return float(np.mean(aucs))


def _columns(rows: Sequence[ScoreRow], fact: str) -> list[Floats]:
    """One indicator a format; for a number its standardised value, its decile indicators and one for its absence."""
    if fact == "format":
        names = np.array([row.format for row in rows])
        return [(names == name).astype(np.float64) for name in sorted(set(names.tolist()))]
    numbers = [_number(row, fact) for row in rows]
    absent = np.array([number is None for number in numbers])
    if absent.all():
        return [absent.astype(np.float64)]
    values = np.array([0.0 if number is None else number for number in numbers])
    if fact != "jpeg_quality":
        values = np.log(np.maximum(values, 1e-6))
    known = values[~absent]
    scaled = np.where(absent, 0.0, (values - known.mean()) / (known.std() or 1.0))
    edges = np.unique(np.quantile(known, np.linspace(0, 1, _QUANTILE_BINS + 1)))
    bins = np.where(absent, -1, np.searchsorted(edges, values, side="right"))
    indicators = [(bins == b).astype(np.float64) for b in np.unique(bins[~absent])]
    return [absent.astype(np.float64), scaled, *indicators]


def _fit(design: Floats, labels: Bools) -> Floats:
    """Weights (F,) of an L2 logistic regression in which both classes weigh the same, by Newton's method.

    Steps are halved until the loss falls. The intercept is fitted and left out: it does not change a rank.
    """
    padded = np.column_stack([design, np.ones(labels.size)])
    signs = np.where(labels, 1.0, -1.0)
    weights = np.where(labels, 0.5 / labels.sum(), 0.5 / (~labels).sum()) * labels.size
    penalty = np.append(np.full(design.shape[1], _L2), 1e-6)

    def loss(theta: Floats) -> float:
        return float(weights @ np.logaddexp(0.0, -signs * (padded @ theta)) + 0.5 * penalty @ theta**2)

    theta = np.zeros(padded.shape[1])
    reached = loss(theta)
    for _ in range(_NEWTON_STEPS):
        miss = np.exp(-np.logaddexp(0.0, signs * (padded @ theta)))  # 1 - P(own class)
        gradient = penalty * theta - padded.T @ (weights * signs * miss)
        curvature = (padded * (weights * miss * (1 - miss))[:, None]).T @ padded + np.diag(penalty)
        step = np.linalg.solve(curvature, gradient)
        while (tried := loss(theta - step)) > reached and np.abs(step).max() > _TOLERANCE:
            step = step / 2
        if np.abs(step).max() <= _TOLERANCE:
            break
        theta, reached = theta - step, tried
    fitted: Floats = theta[:-1]
    return fitted
