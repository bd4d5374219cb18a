"""Two detectors on the same images: is one better, or is it chance?"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy.special import bdtr, ndtr, ndtri

from pipeline.detection.calibration import Bools, Floats
from pipeline.evaluation.intervals import BOOTSTRAP_ROUNDS, CONFIDENCE, SEED, Clusters, Interval, cluster_bootstrap
from pipeline.evaluation.metrics import WeightedAuc, placements

__all__ = ["Discordance", "PairedAuc", "auc_difference", "cluster_bootstrap", "delong", "mcnemar"]


@dataclass(frozen=True, slots=True)
class PairedAuc:
    """AUC of both, their difference b - a, its interval and two-sided p-value over images."""

    auc_a: float
    auc_b: float
    difference: float
    interval: Interval
    p_value: float

    def __str__(self) -> str:
        low, high = self.interval
        change = f"{self.difference:+.4f} ({low:+.4f} to {high:+.4f}, p {self.p_value:.2g})"
        return f"{self.auc_a:.3f} -> {self.auc_b:.3f}: {change}"


@dataclass(frozen=True, slots=True)
class Discordance:
    """Images that one of two gets wrong and the other right, and McNemar's exact two-sided p-value."""

    only_a_wrong: int
    only_b_wrong: int
    total: int
    p_value: float

    @property
    def difference(self) -> float:
        """Error rate of b less that of a."""
        return (self.only_b_wrong - self.only_a_wrong) / self.total if self.total else float("nan")


def delong(real_a: Floats, synthetic_a: Floats, real_b: Floats, synthetic_b: Floats) -> PairedAuc:
    """Paired comparison of two AUC (DeLong, DeLong and Clarke-Pearson, Biometrics 44, 1988).

    Args:
        real_a: scores of the real images by the first detector, (R,).
        synthetic_a: of the generated images, (S,).
        real_b: of the same real images in the same order by the second, (R,).
        synthetic_b: of the same generated images, (S,).

    Raises:
        ValueError: the two did not score the same number of images, or fewer than two of a class.
    """
    if real_a.shape != real_b.shape or synthetic_a.shape != synthetic_b.shape:
        raise ValueError("both detectors must have scored the same images, in the same order")
    if real_a.size < 2 or synthetic_a.size < 2:
        raise ValueError("at least two images of each class are needed")
    (above_a, below_a), (above_b, below_b) = placements(real_a, synthetic_a), placements(real_b, synthetic_b)
    auc_a, auc_b = float(above_a.mean()), float(above_b.mean())
    difference = auc_b - auc_a
    variance = (above_b - above_a).var(ddof=1) / above_a.size + (below_b - below_a).var(ddof=1) / below_a.size
    error = float(np.sqrt(variance))
    reach = float(ndtri((1.0 + CONFIDENCE) / 2.0)) * error
    p_value = 2.0 * float(ndtr(-abs(difference) / error)) if error > 0.0 else float(difference == 0.0)
    return PairedAuc(auc_a, auc_b, difference, Interval(difference - reach, difference + reach), p_value)


def auc_difference(
    a: tuple[Floats, Floats],
    b: tuple[Floats, Floats],
    real_clusters: Clusters,
    synthetic_clusters: Clusters,
    *,
    rounds: int = BOOTSTRAP_ROUNDS,
    seed: int = SEED,
) -> Interval | None:
    """Interval of AUC(b) - AUC(a) over whole clusters; a and b are (real, synthetic) scores of the same images."""
    of_a, of_b = WeightedAuc(*a), WeightedAuc(*b)
    return cluster_bootstrap(
        lambda real, made: of_b(real, made) - of_a(real, made),
        real_clusters,
        synthetic_clusters,
        rounds=rounds,
        seed=seed,
    )


def mcnemar(wrong_a: Bools, wrong_b: Bools) -> Discordance:
    """Exact McNemar test on the images that only one of two gets wrong.

    Args:
        wrong_a: bool (N,), for example the generated images that the first misses at its own cut.
        wrong_b: the same of the second, same order.

    Raises:
        ValueError: different numbers of images.
    """
    if wrong_a.shape != wrong_b.shape:
        raise ValueError("both detectors must have judged the same images, in the same order")
    only_a, only_b = int((wrong_a & ~wrong_b).sum()), int((wrong_b & ~wrong_a).sum())
    p_value = min(1.0, 2.0 * float(bdtr(min(only_a, only_b), only_a + only_b, 0.5))) if only_a + only_b else 1.0
    return Discordance(only_a, only_b, wrong_a.size, p_value)
