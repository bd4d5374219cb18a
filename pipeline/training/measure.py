"""What a held-out score is worth: AUC, error rates at fixed cuts, and their intervals."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from scipy.stats import beta, norm, rankdata

from pipeline.detection.calibration import Floats

CONFIDENCE = 0.95
BOOTSTRAP_ROUNDS = 2000
SEED = 0


@dataclass(frozen=True, slots=True)
class Rate:
    """`count` of `total`, with the exact Clopper-Pearson interval, which takes the images as independent."""

    count: int
    total: int

    @property
    def interval(self) -> tuple[float, float]:
        """Two-sided, at `CONFIDENCE`."""
        tail, k, n = (1.0 - CONFIDENCE) / 2.0, self.count, self.total
        low = float(beta.ppf(tail, k, n - k + 1)) if k else 0.0
        high = float(beta.ppf(1.0 - tail, k + 1, n - k)) if k < n else 1.0
        return low, high

    def __str__(self) -> str:
        low, high = self.interval
        return f"{self.count / self.total:.1%} ({self.count}/{self.total}; {low:.1%}-{high:.1%})"


@dataclass(frozen=True, slots=True)
class Area:
    """AUC with two 95 % intervals: DeLong's over images, and a bootstrap over whole sources."""

    auc: float
    delong: tuple[float, float]
    by_source: tuple[float, float]

    def __str__(self) -> str:
        (a, b), (c, d) = self.delong, self.by_source
        return f"{self.auc:.3f} (DeLong {a:.3f}-{b:.3f}; bootstrap by source {c:.3f}-{d:.3f})"


def auc(real: Floats, synthetic: Floats) -> float:
    """Mann-Whitney: P(a synthetic image scores above a real one), ties counted half."""
    ranks = rankdata(np.concatenate([synthetic, real]))[: synthetic.size]
    return float((ranks.sum() - synthetic.size * (synthetic.size + 1) / 2) / (synthetic.size * real.size))


def area(real: Floats, synthetic: Floats, real_source: Sequence[str], synthetic_source: Sequence[str]) -> Area:
    """AUC and its intervals (DeLong, DeLong and Clarke-Pearson, Biometrics 44, 1988)."""
    value = auc(real, synthetic)
    pooled = rankdata(np.concatenate([synthetic, real]))
    m, n = synthetic.size, real.size
    v10 = (pooled[:m] - rankdata(synthetic)) / n
    v01 = 1.0 - (pooled[m:] - rankdata(real)) / m
    error = float(norm.ppf((1.0 + CONFIDENCE) / 2.0)) * np.sqrt(v10.var(ddof=1) / m + v01.var(ddof=1) / n)
    delong = (max(0.0, value - float(error)), min(1.0, value + float(error)))
    return Area(value, delong, _bootstrap(real, synthetic, real_source, synthetic_source))


def misses_at_false_alarm_rate(real: Floats, synthetic: Floats, rate: float) -> tuple[Rate, Rate]:
    """(false negatives, false positives) at the lowest cut that flags at most `rate` of the real images.

    A score at or above the cut is flagged. The cut is read off the same real images.
    """
    allowed = int(np.floor(rate * real.size + 1e-9))
    cut = np.nextafter(np.sort(real)[::-1][allowed], np.inf) if allowed < real.size else -np.inf
    return misses_at(real, synthetic, float(cut))


def misses_at(real: Floats, synthetic: Floats, cut: float) -> tuple[Rate, Rate]:
    """(false negatives, false positives) when scores at or above `cut` are flagged."""
    return (
        Rate(int((synthetic < cut).sum()), synthetic.size),
        Rate(int((real >= cut).sum()), real.size),
    )


def _bootstrap(
    real: Floats, synthetic: Floats, real_source: Sequence[str], synthetic_source: Sequence[str]
) -> tuple[float, float]:
    rng = np.random.default_rng(SEED)
    groups = [_by_source(real, real_source), _by_source(synthetic, synthetic_source)]
    values = []
    for _ in range(BOOTSTRAP_ROUNDS):
        drawn = [np.concatenate([g[i] for i in rng.integers(len(g), size=len(g))]) for g in groups]
        values.append(auc(drawn[0], drawn[1]))
    tail = (1.0 - CONFIDENCE) / 2.0
    low, high = np.quantile(values, [tail, 1.0 - tail])
    return float(low), float(high)


def _by_source(scores: Floats, sources: Sequence[str]) -> list[Floats]:
    names = np.asarray(sources)
    return [scores[names == name] for name in sorted(set(sources))]
