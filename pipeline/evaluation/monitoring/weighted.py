"""A share with inverse-probability weights, and its interval."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
from scipy.special import betaincinv

from pipeline.detection.calibration import Bools, Floats
from pipeline.evaluation.intervals import CONFIDENCE, Interval


@dataclass(frozen=True, slots=True)
class WeightedShare:
    """The weighted (Hajek) share of marked items, each item with the inverse of the probability that it was drawn.

    `effective`: that many items drawn with equal probability say as much.
    """

    share: float | None
    interval: Interval
    items: int
    effective: float


def weighted_share(items: Iterable[tuple[bool, float]]) -> WeightedShare:
    """The interval of Korn and Graubard (Survey Methodology 24, 1998): Clopper and Pearson's with the effective size.

    With equal weights it is Clopper and Pearson's own, `intervals.Rate`. Without an item: 0 to 1, no share. Items are
    drawn one by one, so that the interval holds for the traffic they were drawn from however alike its items are; it
    is no forecast of other traffic.

    Args:
        items: whether an item is marked, and the probability with which it was drawn, in (0, 1].

    Raises:
        ValueError: a probability outside of (0, 1].
    """
    pairs = list(items)
    if any(not 0.0 < probability <= 1.0 for _, probability in pairs):
        raise ValueError("a probability of selection must lie in (0, 1]; a draw with 0 draws nothing")
    if not pairs:
        return WeightedShare(None, Interval(0.0, 1.0), 0, 0.0)
    marked = np.array([mark for mark, _ in pairs])
    weights = np.array([1.0 / probability for _, probability in pairs])
    share = float(weights[marked].sum() / weights.sum())
    effective = _effective(marked, weights, share)
    return WeightedShare(share, _interval(share * effective, effective), len(pairs), effective)


def _effective(marked: Bools, weights: Floats, share: float) -> float:
    """The smaller of two sizes.

    Kish's, (sum w)^2 / sum w^2, takes the weights as unrelated to the marks. Where both changed over time, as after the
    sampled share was changed, it promises too much. So the size that the linearised variance of the share implies
    counts too; it says nothing where no item or each is marked, and little where few are.
    """
    total = weights.sum()
    kish = float(total**2 / (weights**2).sum())
    spread = float((weights**2 * (marked - share) ** 2).sum() / total**2)
    return min(kish, share * (1.0 - share) / spread) if spread > 0.0 else kish


def _interval(count: float, size: float) -> Interval:
    tail = (1.0 - CONFIDENCE) / 2.0
    low = float(betaincinv(count, size - count + 1.0, tail)) if count > 0.0 else 0.0
    high = float(betaincinv(count + 1.0, size - count, 1.0 - tail)) if count < size else 1.0
    return Interval(low, high)
