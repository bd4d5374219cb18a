"""Shares and intervals: Clopper-Pearson for counts, a bootstrap over whole clusters for everything else."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import NamedTuple, Protocol, TypeAlias, runtime_checkable

import numpy as np
import numpy.typing as npt
from scipy.special import betaincinv

from pipeline.detection.calibration import Floats

CONFIDENCE = 0.95
BOOTSTRAP_ROUNDS = 2000
SEED = 0

Ints: TypeAlias = npt.NDArray[np.integer]
Statistic: TypeAlias = Callable[[Floats, Floats], float]
"""Value of a sample in which real image i counts real_weights[i] times and generated image j synthetic_weights[j]."""


@runtime_checkable
class Condensable(Protocol):
    """A statistic that can be computed from the weights of clusters, without a look at every image."""

    def by_cluster(self, real_cluster: Ints, cluster: Ints) -> Statistic | None:
        """The statistic as a function of cluster weights, (R clusters,) and (S clusters,); None: not worth it."""


Clusters: TypeAlias = Sequence[str] | npt.NDArray[np.integer]
"""The cluster of every image, by name or number."""


class Interval(NamedTuple):
    """Two-sided, at `CONFIDENCE`."""

    low: float
    high: float


@dataclass(frozen=True, slots=True)
class Rate:
    """`count` of `total`, with the exact Clopper-Pearson interval, which takes the images as independent."""

    count: int
    total: int

    @property
    def share(self) -> float:
        """The quotient; NaN of nothing."""
        return self.count / self.total if self.total else float("nan")

    @property
    def interval(self) -> Interval:
        """Clopper and Pearson, Biometrika 26, 1934; 0 to 1 of nothing."""
        tail, k, n = (1.0 - CONFIDENCE) / 2.0, self.count, self.total
        low = float(betaincinv(k, n - k + 1, tail)) if k else 0.0
        high = float(betaincinv(k + 1, n - k, 1.0 - tail)) if k < n else 1.0
        return Interval(low, high)

    @property
    def upper_limit(self) -> float:
        """One-sided, at `CONFIDENCE`: 0 of 299 is below 1 %."""
        k, n = self.count, self.total
        return float(betaincinv(k + 1, n - k, CONFIDENCE)) if k < n else 1.0

    def __str__(self) -> str:
        low, high = self.interval
        return f"{self.share:.1%} ({self.count}/{self.total}; {low:.1%}-{high:.1%})" if self.total else "- (0/0)"


def cluster_bootstrap(
    statistic: Statistic,
    real_clusters: Clusters,
    synthetic_clusters: Clusters,
    *,
    rounds: int = BOOTSTRAP_ROUNDS,
    seed: int = SEED,
) -> Interval | None:
    """Percentile interval when whole clusters are drawn with replacement, each class for itself.

    Images of one adapter, prompt or source resemble each other, so that drawing images would give an interval that
    is too narrow. None: a class of fewer than two clusters, which says nothing of the spread between clusters.

    Args:
        statistic: see `Statistic`, for example `metrics.WeightedAuc(real, synthetic)`.
        real_clusters: cluster of every real image, (R,).
        synthetic_clusters: cluster of every generated image, (S,).
        rounds: resampled data sets.
        seed: of the generator; equal seeds give equal intervals.
    """
    real_names, real_index = np.unique(np.asarray(real_clusters), return_inverse=True)
    names, index = np.unique(np.asarray(synthetic_clusters), return_inverse=True)
    if len(real_names) < 2 or len(names) < 2:
        return None
    rng = np.random.default_rng(seed)
    values = np.empty(rounds)
    condensed = statistic.by_cluster(real_index, index) if isinstance(statistic, Condensable) else None
    for number in range(rounds):
        drawn = _drawn(rng, len(real_names)), _drawn(rng, len(names))
        values[number] = condensed(*drawn) if condensed else statistic(drawn[0][real_index], drawn[1][index])
    tail = (1.0 - CONFIDENCE) / 2.0
    low, high = np.nanquantile(values, [tail, 1.0 - tail])
    return Interval(float(low), float(high))


def _drawn(rng: np.random.Generator, count: int) -> npt.NDArray[np.float64]:
    """How often each cluster was drawn, float64 (count,)."""
    return np.bincount(rng.integers(count, size=count), minlength=count).astype(np.float64)
