"""The harmonic grid: how far the spectrum rises at multiples of 1/16 cycle/px above its surroundings."""

from __future__ import annotations

from functools import lru_cache
from math import gcd

import numpy as np

from pipeline.detection.spectral.kernel import GRID, Float64, Int64, Pixels

ORDERS = (2, 4, 8, 16)
"""Denominators of the frequencies of harmonic points."""

_FLOOR = 1e-9


def points() -> list[tuple[int, int, int]]:
    """(m, n, order) of the half plane's distinct points m/16 (vertical), n/16 (horizontal), without 0."""
    half = GRID // 2
    return [
        (m, n, GRID // gcd(m, n, GRID))
        for n in range(half + 1)
        for m in range(-half, half)
        if not (n in (0, half) and -half < m < 0) and (m, n) != (0, 0)
    ]


POINT_ORDERS: Int64 = np.array([order for _, _, order in points()])
"""Order of each point, (129,)."""


def peak_ratios(power: Pixels) -> Float64:
    """Magnitude at every point of `points` over the median of its surroundings, (129,).

    The surroundings are the 13 x 13 neighbours without the inner 3 x 3, around the half plane's edges by
    symmetry. Scale-free, hence comparable across images.
    """
    at, around = _table(*power.shape)
    flat = power.reshape(-1)
    neighbours = flat.take(around, mode="clip")
    neighbours.sort(axis=1)
    half = around.shape[1] // 2
    median = 0.5 * (neighbours[:, half - 1].astype(np.float64) + neighbours[:, half])
    ratios: Float64 = np.sqrt((flat.take(at).astype(np.float64) + _FLOOR) / (median + _FLOOR))
    return ratios


EIGHTHS: tuple[tuple[int, int], ...] = tuple((a, b) for b in range(5) for a in range(b + 1) if b)
"""Points a/8, b/8 with a <= b: every point of the 8 px grid is one of these 14 up to signs and axes."""

_EIGHTH_OF_POINT: Int64 = np.array(
    [
        EIGHTHS.index((min(abs(m), abs(n)) // 2, max(abs(m), abs(n)) // 2)) if order < GRID else len(EIGHTHS)
        for m, n, order in points()
    ]
)
_EIGHTH_COUNTS = np.bincount(_EIGHTH_OF_POINT)


def eighth_means(log_ratios: Float64) -> Float64:
    """Mean over the points of each class in `EIGHTHS`, (14,)."""
    sums = np.bincount(_EIGHTH_OF_POINT, log_ratios)
    result: Float64 = (sums / _EIGHTH_COUNTS)[: len(EIGHTHS)]
    return result


def max_and_median(log_ratios: Float64) -> list[tuple[float, float]]:
    """Largest and median value of each order in `ORDERS`."""
    ordered = [np.sort(log_ratios[at]) for at in _OF_ORDER]
    return [(float(v[-1]), middle(v)) for v in ordered]


def middle(ordered: Float64) -> float:
    """Median of sorted values."""
    return float(0.5 * (ordered[(ordered.size - 1) // 2] + ordered[ordered.size // 2]))


_OF_ORDER = tuple(np.flatnonzero(order == POINT_ORDERS) for order in ORDERS)


@lru_cache(maxsize=64)
def _table(rows: int, columns: int) -> tuple[Int64, Int64]:
    """Flat half-plane indices of the points (P,) and of their neighbours (P, 160)."""
    width = 2 * (columns - 1)
    listed = np.array(points(), dtype=np.int64)
    offsets = np.array([(y, x) for y in range(-6, 7) for x in range(-6, 7) if max(abs(y), abs(x)) > 1])
    centre_y, centre_x = listed[:, 0] * (rows // GRID), listed[:, 1] * (width // GRID)

    def flat(y: Int64, x: Int64) -> Int64:
        mirrored = (x < 0) | (x > width // 2)
        y, x = np.where(mirrored, -y, y) % rows, np.where(mirrored, -x, x) % width
        return y * columns + x

    at = flat(centre_y, centre_x)
    around = flat(centre_y[:, None] + offsets[:, 0], centre_x[:, None] + offsets[:, 1])
    for table in (at, around):
        table.flags.writeable = False
    return at, around
