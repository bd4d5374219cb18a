"""p-values of the hypothesis "this is a photograph like those of the reference": ranked, combined, ranked again.

A rank among photographs that had no part in the fit is valid whatever the distribution, as long as the photograph
is exchangeable with them. Combinations are valid only under assumptions on dependence, so a combined value is used
as a statistic and ranked once more, among photographs that had no part in the first ranking either.
"""

from __future__ import annotations

import math

import numpy as np
import numpy.typing as npt
import scipy.special
import scipy.stats

from pipeline.detection.spectral.kernel import Float64

Int64 = npt.NDArray[np.int64]

MAX_RANK_CORRELATION = 0.3
"""Features of the near-independent subset have no larger rank correlation, of values or of extremeness."""


class TooFewPhotographs(Exception):
    """A stratum cannot support a level: the smallest p-value of n photographs is 1 / (n + 1)."""

    def __init__(self, stratum: str, photographs: int, alpha: float) -> None:
        """Name the stratum, how many photographs rank there and how many the level `alpha` needs."""
        super().__init__(
            f"stratum {stratum}: {photographs} ranked photographs cannot support the level {alpha:g}, which needs"
            f" {photographs_needed(alpha)}; add photographs or raise the level"
        )
        self.stratum, self.photographs, self.alpha = stratum, photographs, alpha


def photographs_needed(alpha: float) -> int:
    """The smallest n with 1 / (n + 1) <= alpha, 0 < alpha < 1: 19 for 5 %, 99 for 1 %."""
    n = max(1, math.ceil(1.0 / alpha) - 2)
    while (n + 1) * alpha < 1.0 - 1e-9:  # 1/alpha is rarely exact
        n += 1
    return n


def require_level(stratum: str, photographs: int, alpha: float) -> None:
    """Check that n photographs can give a p-value of `alpha` or less.

    Raises:
        TooFewPhotographs: n + 1 < 1 / alpha.
    """
    if photographs < photographs_needed(alpha):
        raise TooFewPhotographs(stratum, photographs, alpha)


def conformal_p_value(distance: float, sorted_calibration: Float64) -> float:
    """(1 + #{calibration >= distance}) / (n + 1), split-conformal; the smallest is 1 / (n + 1)."""
    return float(conformal_p_values(np.array([distance]), sorted_calibration)[0])


def conformal_p_values(distances: Float64, sorted_calibration: Float64) -> Float64:
    """`conformal_p_value` of each distance, (n,)."""
    n = sorted_calibration.size
    at_least = n - np.searchsorted(sorted_calibration, distances, side="left")
    return np.asarray((1.0 + at_least) / (n + 1.0), np.float64)


def two_sided(values: Float64, sorted_columns: Float64) -> Float64:
    """Twice the smaller tail of each value's rank in its column, at most 1: (n, K) ranked in (m, K)."""
    p = np.empty(values.shape)
    for k, column in enumerate(sorted_columns.T):
        above = conformal_p_values(values[:, k], column)
        below = (1.0 + np.searchsorted(column, values[:, k], side="right")) / (column.size + 1.0)
        p[:, k] = np.minimum(1.0, 2.0 * np.minimum(above, below))
    return p


def stouffer(p: Float64) -> Float64:
    """Of independent p-values (n, K): upper tail of their summed normal scores over sqrt(K), (n,)."""
    scores = -scipy.special.ndtri(np.clip(p, 1e-12, 1.0 - 1e-12))
    result: Float64 = scipy.special.ndtr(-scores.sum(axis=1) / math.sqrt(p.shape[1]))
    return result


def min_p(p: Float64) -> Float64:
    """Of independent p-values (n, K): 1 - (1 - min)^K (Sidak 1967), (n,)."""
    result: Float64 = -np.expm1(p.shape[1] * np.log1p(-np.minimum(p.min(axis=1), 1.0 - 1e-12)))
    return result


def cauchy(p: Float64) -> Float64:
    """Of dependent p-values (n, K): tail of their mean Cauchy score, (n,).

    Source: Liu & Xie 2020, Cauchy combination test, Journal of the American Statistical Association 115(529).
    """
    scores = np.tan((0.5 - np.clip(p, 1e-12, 1.0 - 1e-12)) * np.pi)
    result: Float64 = 0.5 - np.arctan(scores.mean(axis=1)) / np.pi
    return result


def independent_subset(photographs: Float64) -> Int64:
    """Columns of (n, F) that hardly depend on each other among photographs, in ascending order.

    Greedy: the column with the smallest mean dependence first, then each that depends on none of the chosen by
    more than `MAX_RANK_CORRELATION`. Dependence is the larger of the absolute rank correlations of the values and
    of their distances from the median rank, because two-sided p-values depend on the latter.
    """
    if photographs.shape[1] == 1:
        return np.array([0])
    ranks = scipy.stats.rankdata(photographs, axis=0)
    extremeness = np.abs(ranks - ranks.mean(axis=0))
    dependence = np.maximum(
        np.abs(np.corrcoef(ranks, rowvar=False)),
        np.abs(np.corrcoef(scipy.stats.rankdata(extremeness, axis=0), rowvar=False)),
    )
    chosen: list[int] = []
    for column in np.argsort(dependence.mean(axis=0), kind="stable").tolist():
        if all(dependence[column, other] <= MAX_RANK_CORRELATION for other in chosen):
            chosen.append(column)
    return np.array(sorted(chosen), np.int64)
