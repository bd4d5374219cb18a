"""Thresholds from order statistics: as good as a budget of errors allows, with 95 % confidence.

An image passes below a threshold and is flagged at or above it. A budget is met when the one-sided 95 % upper
limit of the error rate (Clopper and Pearson, Biometrika 26, 1934) lies within it, images taken as independent:
no error among n images supports 1 - 0.05^(1/n) and nothing tighter.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from scipy.stats import binom

from pipeline.detection.calibration import Floats
from pipeline.evaluation.intervals import CONFIDENCE, SEED, Interval, Rate

ROUNDS = 400
MOST_DIGITS = 15


@dataclass(frozen=True, slots=True)
class Budget:
    """What the errors in a sample say of a highest allowed error rate."""

    name: str
    allowed: float
    errors: Rate

    @property
    def supported(self) -> bool:
        """True: with 95 % confidence the error rate is within the budget."""
        return self.errors.upper_limit <= self.allowed

    @property
    def images_needed(self) -> int | None:
        """How many images would support the budget at this share of errors; None: no number would."""
        return images_needed(self.allowed, self.errors.share if self.errors.total else 0.0)

    def __str__(self) -> str:
        if self.supported:
            return f"{self.name} {self.allowed:.2%}: supported"
        needed = self.images_needed
        would = f"{needed} would do" if needed else "no number of images would do at this share of errors"
        return (
            f"{self.name} {self.allowed:.2%}: {self.errors.count} of {self.errors.total} images wrong,"
            f" which supports {self.errors.upper_limit:.2%} at best; {would}"
        )


@dataclass(frozen=True, slots=True)
class Cut:
    """A threshold and the errors that it makes on the sample.

    `interval`: 95 % for the population's quantile, by order statistics, images independent. `by_source`: the same
    by a bootstrap over whole sources; None with a single source.
    """

    value: float
    budget: Budget
    interval: Interval
    by_source: Interval | None


def allowed_errors(total: int, rate: float) -> int:
    """The most errors in `total` images whose upper limit is within `rate`; 0 also when none is."""
    low, high = 0, max(0, math.floor(total * rate))
    while low < high:
        middle = (low + high + 1) // 2
        low, high = (middle, high) if Rate(middle, total).upper_limit <= rate else (low, middle - 1)
    return low


def images_needed(rate: float, error_share: float = 0.0) -> int | None:
    """About the fewest images that support `rate` when `error_share` of them are errors; None where none would."""
    if error_share >= rate:
        return None
    total = math.ceil(math.log(1.0 - CONFIDENCE) / math.log1p(-rate))
    while Rate(math.ceil(error_share * total), total).upper_limit > rate:
        total = math.ceil(total * 1.05)
    return total


def cut_below(name: str, errors: Floats, others: Floats, rate: float, sources: Sequence[str]) -> Cut:
    """The highest threshold below which no more of `errors` fall than the budget allows, or have no score anyway.

    Args:
        name: of the budget.
        errors: float (N,), the class that must not pass; -inf for an image without a score, always an error.
        others: float (M,), all other scores; the threshold lies midway between scores.
        rate: the budget.
        sources: (N,), of `errors`.
    """
    ordered = np.sort(errors)
    count = max(allowed_errors(len(ordered), rate), int(np.isneginf(errors).sum()))
    above = float(ordered[count]) if count < len(ordered) else 1.0
    below = _highest(np.concatenate([errors, others]), above)
    value = _between(below, above) if above > 0.0 else 0.0
    budget = Budget(name, rate, Rate(int((errors < value).sum()), len(ordered)))
    return Cut(value, budget, *_intervals(errors, sources, count))


def cut_above(name: str, errors: Floats, others: Floats, rate: float, sources: Sequence[str]) -> Cut:
    """The lowest threshold at or above which no more of `errors` lie than the budget allows.

    A score of 1.0 lies at or above any threshold, so the result may have more errors than the budget allows.

    Args:
        name: of the budget.
        errors: float (N,), the class that must not be flagged; -inf for an image that cannot be.
        others: float (M,), all other scores; the threshold lies midway between scores.
        rate: the budget.
        sources: (N,), of `errors`.
    """
    ordered = np.sort(errors)[::-1]
    count = allowed_errors(len(ordered), rate)
    below = max(0.0, float(ordered[count])) if count < len(ordered) else 0.0
    higher = np.concatenate([errors, others])
    higher = higher[higher > below]
    value = _between(below, float(higher.min()) if higher.size else 1.0)
    budget = Budget(name, rate, Rate(int((errors >= value).sum()), len(ordered)))
    return Cut(value, budget, *_intervals(errors, sources, len(ordered) - 1 - count))


def _highest(scores: Floats, limit: float) -> float:
    under = scores[(scores < limit) & (scores >= 0.0)]
    return float(under.max()) if under.size else 0.0


def _between(below: float, above: float) -> float:
    """A short decimal within the middle half of (below, above], so that rounding of scores flips no image."""
    gap = above - below
    for digits in range(2, MOST_DIGITS):
        value = round(below + gap / 2.0, digits)
        if below + gap / 4.0 <= value <= above - gap / 4.0 and below < value <= above:
            return value
    return above


def _intervals(scores: Floats, sources: Sequence[str], rank: int) -> tuple[Interval, Interval | None]:
    """Of the quantile that the score of the 0-based rank estimates, kept within 0 and 1."""
    if not len(scores):
        return Interval(0.0, 1.0), None
    order = np.argsort(scores, kind="stable")
    ordered, total = np.clip(scores[order], 0.0, 1.0), len(scores)
    share = (min(max(rank, 0), total - 1) + 0.5) / total
    tail = (1.0 - CONFIDENCE) / 2.0
    low, high = int(binom.ppf(tail, total, share)), int(binom.ppf(1.0 - tail, total, share)) + 1
    exact = Interval(float(ordered[low - 1]) if low else 0.0, float(ordered[high - 1]) if high <= total else 1.0)
    names, of = np.unique(np.asarray(sources, np.str_), return_inverse=True)
    if len(names) < 2:
        return exact, None
    rng, found = np.random.default_rng(SEED), []
    for _ in range(ROUNDS):
        drawn = np.bincount(rng.integers(len(names), size=len(names)), minlength=len(names))
        reached = np.cumsum(drawn[of[order]])
        found.append(ordered[np.searchsorted(reached, share * reached[-1])])
    a, b = np.quantile(found, [tail, 1.0 - tail])
    return exact, Interval(float(a), float(b))
