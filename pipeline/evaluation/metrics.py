"""What scores are worth: ranking, error rates at a cut, calibration.

One rule for images without a score (not decoded, or a spectrum that says nothing): they are NOT FLAGGED, whatever
their class. A generated one is a miss, a real one a true negative; in the ranking they lie below every score. So
nothing leaves a denominator. `filled` applies the rule; calibration alone leaves such images out, because there is
no probability to judge, and the number of them is reported beside it.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
from scipy.special import ndtri

from pipeline.detection.calibration import Bools, Floats
from pipeline.evaluation.intervals import CONFIDENCE, Clusters, Interval, Rate, Statistic, cluster_bootstrap

MAX_CLUSTER_PAIRS = 100_000_000
"""Clusters of real images times generated images, up to which a table of clusters is faster than the images."""

NO_SCORE = -np.inf
"""Of an image without a score; below every cut."""

LOWEST_CUT = float(np.finfo(np.float64).min)
"""Flags every image that has a score."""

ECE_BINS = 15
SMALLEST_PROBABILITY = 1e-6
"""Of the log loss: one confident error must not outweigh everything else."""

Ints = npt.NDArray[np.int64]


class OperatingPoint(NamedTuple):
    """What a cut costs: share of generated images below it, of real images at or above it."""

    fnr: Rate
    fpr: Rate
    threshold: float


class FrozenPoint(NamedTuple):
    """Error rates when each fold is cut where the real images of the OTHER folds say, and the cuts."""

    fnr: Rate
    fpr: Rate
    thresholds: tuple[float, ...]


class ReliabilityBin(NamedTuple):
    """Images of one bin: how many, their mean probability, and the share that is generated."""

    images: int
    mean_probability: float
    synthetic_share: float


@dataclass(frozen=True, slots=True)
class Area:
    """AUC with two intervals: DeLong's over images, and a bootstrap over whole clusters."""

    auc: float
    delong: Interval
    by_cluster: Interval | None

    def __str__(self) -> str:
        clustered = "{:.3f}-{:.3f}".format(*self.by_cluster) if self.by_cluster else "one source only"
        return f"{self.auc:.3f} (DeLong {self.delong.low:.3f}-{self.delong.high:.3f}; bootstrap by source {clustered})"


@dataclass(frozen=True, slots=True)
class Confusion:
    """Counts at one cut; a score at the cut is flagged."""

    true_positives: int
    false_negatives: int
    false_positives: int
    true_negatives: int

    @property
    def synthetic_accuracy(self) -> Rate:
        """F.Acc: generated images that are flagged."""
        return Rate(self.true_positives, self.true_positives + self.false_negatives)

    @property
    def real_accuracy(self) -> Rate:
        """R.Acc: real images that are not flagged."""
        return Rate(self.true_negatives, self.true_negatives + self.false_positives)

    @property
    def accuracy(self) -> Rate:
        """All images; it follows the share of the classes."""
        correct = self.true_positives + self.true_negatives
        return Rate(correct, correct + self.false_negatives + self.false_positives)

    @property
    def balanced_accuracy(self) -> float:
        """Mean of both; NaN when a class is absent."""
        return (self.real_accuracy.share + self.synthetic_accuracy.share) / 2.0


def filled(scores: Iterable[float | None]) -> Floats:
    """float64 (N,), `NO_SCORE` where there is none: see the module."""
    return np.array([NO_SCORE if s is None else s for s in scores], np.float64)


def rate(count: int, total: int) -> Rate:
    """A share with its Clopper-Pearson interval."""
    return Rate(count, total)


def roc_auc(real: Floats, synthetic: Floats) -> float:
    """Mann-Whitney: P(a generated image scores above a real one), ties counted half; NaN when a class is absent."""
    if not real.size or not synthetic.size:
        return float("nan")
    ranks = mean_ranks(np.concatenate([synthetic, real]))[: synthetic.size]
    return float((ranks.sum() - synthetic.size * (synthetic.size + 1) / 2) / (synthetic.size * real.size))


def mean_ranks(scores: Floats) -> Floats:
    """Ranks from 1, equal scores sharing their mean rank, (N,)."""
    _, place, counts = np.unique(scores, return_inverse=True, return_counts=True)
    ranks: Floats = (np.cumsum(counts) - (counts - 1) / 2.0)[place]
    return ranks


class WeightedAuc:
    """`roc_auc` as a statistic for `cluster_bootstrap`: sorted once, then linear in the images.

    With few clusters, `by_cluster` makes it linear in the pairs of clusters.
    """

    def __init__(self, real: Floats, synthetic: Floats) -> None:
        """Scores (R,) and (S,)."""
        _, place = np.unique(np.concatenate([real, synthetic]), return_inverse=True)
        self._levels = int(place.max()) + 1 if place.size else 0
        self._real, self._synthetic = place[: real.size], place[real.size :]

    def __call__(self, real_weights: Floats, synthetic_weights: Floats) -> float:
        """NaN when a class has no weight."""
        below = np.bincount(self._real, real_weights, self._levels)
        made = np.bincount(self._synthetic, synthetic_weights, self._levels)
        total = below.sum() * made.sum()
        area = made @ (np.cumsum(below) - below / 2.0)
        return float(area / total) if total else float("nan")

    def by_cluster(self, real_cluster: Ints, cluster: Ints) -> Statistic | None:
        """The same of the clusters' weights, from the wins of every cluster over every other; None if they are many.

        Args:
            real_cluster: number of every real image's cluster, (R,), from 0.
            cluster: the same of every generated image, (S,).
        """
        count, others = int(cluster.max()) + 1, int(real_cluster.max()) + 1
        if others * self._synthetic.size > MAX_CLUSTER_PAIRS:
            return None
        wins = np.empty((others, count))
        for number in range(others):
            places = np.sort(self._real[real_cluster == number])
            below, up_to = (np.searchsorted(places, self._synthetic, side) for side in ("left", "right"))
            wins[number] = np.bincount(cluster, (below + up_to) / 2.0, count)
        real_size, size = np.bincount(real_cluster), np.bincount(cluster)

        def statistic(real_weights: Floats, weights: Floats) -> float:
            total = float((real_weights @ real_size) * (weights @ size))
            return float(real_weights @ wins @ weights) / total if total else float("nan")

        return statistic


def weighted_fnr(synthetic: Floats, threshold: float) -> Statistic:
    """The share of generated images below a fixed cut, for `cluster_bootstrap`."""
    missed = (synthetic < threshold).astype(np.float64)

    def statistic(_: Floats, weights: Floats) -> float:
        return float(missed @ weights / weights.sum())

    return statistic


def area(real: Floats, synthetic: Floats, real_clusters: Clusters, synthetic_clusters: Clusters) -> Area:
    """AUC with both intervals."""
    clustered = cluster_bootstrap(WeightedAuc(real, synthetic), real_clusters, synthetic_clusters)
    return Area(roc_auc(real, synthetic), auc_interval(real, synthetic), clustered)


def auc_interval(real: Floats, synthetic: Floats) -> Interval:
    """DeLong's interval over images (DeLong, DeLong and Clarke-Pearson, Biometrics 44, 1988), cut to 0..1."""
    if real.size < 2 or synthetic.size < 2:
        return Interval(0.0, 1.0)
    above_real, below_synthetic = placements(real, synthetic)
    variance = above_real.var(ddof=1) / synthetic.size + below_synthetic.var(ddof=1) / real.size
    error = float(ndtri((1.0 + CONFIDENCE) / 2.0)) * float(np.sqrt(variance))
    value = float(above_real.mean())
    return Interval(max(0.0, value - error), min(1.0, value + error))


def placements(real: Floats, synthetic: Floats) -> tuple[Floats, Floats]:
    """DeLong's components: of every generated image the share of reals below it, of every real the share above it."""
    pooled = mean_ranks(np.concatenate([synthetic, real]))
    above_real = (pooled[: synthetic.size] - mean_ranks(synthetic)) / real.size
    below_synthetic = 1.0 - (pooled[synthetic.size :] - mean_ranks(real)) / synthetic.size
    return above_real, below_synthetic


def average_precision(real: Floats, synthetic: Floats) -> float:
    """Sum over cuts of (recall step) x precision, equal scores as one cut, no interpolation; NaN without generated."""
    if not synthetic.size:
        return float("nan")
    scores = np.concatenate([real, synthetic])
    label = np.concatenate([np.zeros(real.size), np.ones(synthetic.size)])
    order = np.argsort(-scores, kind="stable")
    scores, label = scores[order], label[order]
    last_of_level = np.append(np.flatnonzero(scores[:-1] != scores[1:]), scores.size - 1)
    hits = np.cumsum(label)[last_of_level]
    precision = hits / (last_of_level + 1)
    steps = np.diff(hits, prepend=0.0) / synthetic.size
    return float(steps @ precision)


def at_threshold(real: Floats, synthetic: Floats, threshold: float) -> OperatingPoint:
    """Error rates when scores at or above a given cut are flagged."""
    missed = Rate(int((synthetic < threshold).sum()), synthetic.size)
    return OperatingPoint(missed, Rate(int((real >= threshold).sum()), real.size), threshold)


def threshold_at_fpr(real: Floats, fpr: float) -> float:
    """The lowest cut that flags at most this share of the given real images."""
    allowed = int(np.floor(fpr * real.size + 1e-9))
    if allowed >= real.size:
        return LOWEST_CUT
    return max(LOWEST_CUT, float(np.nextafter(np.sort(real)[::-1][allowed], np.inf)))


def fnr_at_fpr(real: Floats, synthetic: Floats, fpr: float) -> OperatingPoint:
    """At the oracle cut, read off the SAME real images: optimistic, above all where few images lie beyond it."""
    return at_threshold(real, synthetic, threshold_at_fpr(real, fpr))


def frozen_cuts(real: Floats, real_fold: Ints, fold: Ints, fpr: float) -> Floats:
    """The cut for every image, (N,), given its fold: read off the real images of all other folds.

    Args:
        real: scores of real images, (R,).
        real_fold: theirs, (R,); at least two folds.
        fold: of the images to cut, (N,).
        fpr: the rate that the cuts are set for.
    """
    cuts = np.empty(fold.size)
    for one in np.unique(fold):
        cuts[fold == one] = threshold_at_fpr(real[real_fold != one], fpr)
    return cuts


def fnr_at_frozen_fpr(
    real: Floats, synthetic: Floats, real_fold: Ints, synthetic_fold: Ints, fpr: float
) -> FrozenPoint | None:
    """At cuts read off real images of other folds: the false positive rate is then a result, not a choice.

    None when fewer than two folds hold real images.

    Args:
        real: scores of real images, (R,).
        synthetic: of generated ones, (S,).
        real_fold: folds that keep a source together, (R,), see `folds_by_source`.
        synthetic_fold: (S,).
        fpr: the rate that the cut is set for.
    """
    if len(np.unique(real_fold)) < 2:
        return None
    real_cut = frozen_cuts(real, real_fold, real_fold, fpr)
    cut = frozen_cuts(real, real_fold, synthetic_fold, fpr)
    missed, flagged = Rate(int((synthetic < cut).sum()), cut.size), Rate(int((real >= real_cut).sum()), real.size)
    return FrozenPoint(missed, flagged, tuple(np.unique(np.concatenate([real_cut, cut])).tolist()))


def folds_by_source(sources: Clusters, folds: int) -> Ints:
    """A fold for every image, (N,): whole sources, the largest first, each into the smallest fold so far."""
    names, index, counts = np.unique(np.asarray(sources), return_inverse=True, return_counts=True)
    sizes = np.zeros(folds, np.int64)
    fold_of = np.zeros(len(names), np.int64)
    for source in sorted(range(len(names)), key=lambda i: (-counts[i], names[i])):
        fold_of[source] = int(np.argmin(sizes))
        sizes[fold_of[source]] += counts[source]
    return fold_of[index]


def confusion(real: Floats, synthetic: Floats, threshold: float) -> Confusion:
    """Counts when scores at or above the cut are flagged."""
    point = at_threshold(real, synthetic, threshold)
    return Confusion(
        point.fnr.total - point.fnr.count, point.fnr.count, point.fpr.count, point.fpr.total - point.fpr.count
    )


def reliability(probabilities: Floats, synthetic: Bools, bins: int = ECE_BINS) -> tuple[ReliabilityBin, ...]:
    """Bins of equal mass in the order of probability; equal probabilities share their labels' mean.

    Args:
        probabilities: within 0..1, (N,); leave images without one out.
        synthetic: labels, bool (N,).
        bins: at most; fewer when there are fewer images.
    """
    if not probabilities.size:
        return ()
    levels, level, counts = np.unique(probabilities, return_inverse=True, return_counts=True)
    level_share = np.bincount(level, synthetic, len(levels)) / counts
    order = np.sort(level)
    parts = np.array_split(order, min(bins, order.size))
    return tuple(
        ReliabilityBin(part.size, float(levels[part].mean()), float(level_share[part].mean())) for part in parts
    )


def ece(probabilities: Floats, synthetic: Bools, bins: int = ECE_BINS) -> float:
    """Expected calibration error over bins of equal mass; NaN of nothing. It holds at the share of classes given."""
    found = reliability(probabilities, synthetic, bins)
    gaps = [b.images * abs(b.mean_probability - b.synthetic_share) for b in found]
    return sum(gaps) / probabilities.size if found else float("nan")


def brier(probabilities: Floats, synthetic: Bools) -> float:
    """Mean squared error of the probability; NaN of nothing."""
    return float(np.mean((probabilities - synthetic) ** 2)) if probabilities.size else float("nan")


def nll(probabilities: Floats, synthetic: Bools) -> float:
    """Mean log loss in nats, probabilities held within `SMALLEST_PROBABILITY` of 0 and 1; NaN of nothing."""
    if not probabilities.size:
        return float("nan")
    p = np.clip(probabilities, SMALLEST_PROBABILITY, 1.0 - SMALLEST_PROBABILITY)
    return float(-np.mean(np.where(synthetic, np.log(p), np.log1p(-p))))
