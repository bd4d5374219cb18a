"""Grids of 8 px after a resize by an unknown factor s: a comb of lines at k/(8 s) on both axes."""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache

import cv2
import numpy as np
import scipy.fft

from pipeline.detection.spectral.kernel import Float64, Int64, hann

FACTORS = (0.25, 2.0)
"""Resize factors that are searched."""

TEETH = 8
_BACKGROUND_BINS = 31
_LOG_STD = float(np.pi / np.sqrt(6))  # of the logarithm of an exponentially distributed power
_FLOOR = 1e-12


@dataclass(frozen=True, slots=True)
class Comb:
    """`strength`, in standard deviations of one line, of the best comb; `off_grid` without lines near k/8.

    `factor` is the resize factor of the best comb off the grid. Being maxima over all factors, both strengths
    are positive without any grid: compare them with the same search on photographs.
    """

    strength: float
    off_grid: float
    factor: float


def search(cross_x: Float64, cross_y: Float64) -> Comb:
    """The best comb in the means of the cross-difference over rows (W - 1,) and over columns (H - 1,)."""
    length = scipy.fft.next_fast_len(2 * max(cross_x.size, cross_y.size), real=True)
    teeth, counts, near_eighths, factors = _table(length, max(cross_x.size, cross_y.size))
    excess = 0.5 * (_line_excess(cross_x, length) + _line_excess(cross_y, length))
    # The mean of two independent axes has 1/sqrt(2) of the spread.
    scale = np.sqrt(2.0) / _LOG_STD
    anywhere = _strengths(excess, teeth, counts) * scale
    excess[near_eighths] = 0.0
    off_grid = _strengths(excess, teeth, counts) * scale
    best = int(np.argmax(off_grid))
    return Comb(float(anywhere.max()), float(off_grid[best]), float(factors[best]))


def _line_excess(means: Float64, length: int) -> Float64:
    """Logarithm of the power of the windowed means over its local average of logarithms, (length/2 + 1,)."""
    spectrum = scipy.fft.rfft((means - means.mean()) * hann(means.size), length)
    power = np.square(spectrum.real) + np.square(spectrum.imag)
    log_power = np.log(power + _FLOOR + 1e-6 * power.mean())
    bins = _BACKGROUND_BINS * length // (2 * means.size)
    background = cv2.blur(log_power[None], (2 * (bins // 2) + 1, 1), borderType=cv2.BORDER_REFLECT)[0]
    excess: Float64 = log_power - background
    return excess


def _strengths(excess: Float64, teeth: Int64, counts: Float64) -> Float64:
    padded = np.append(excess, 0.0)
    strengths: Float64 = padded[teeth].sum(axis=1) / counts
    return strengths


@lru_cache(maxsize=64)
def _table(length: int, side: int) -> tuple[Int64, Float64, Int64, Float64]:
    """Bins of each factor's teeth (S, 8), absent ones at the end; sqrt of their number; bins near k/8; factors."""
    steps = int(np.ceil(side * np.log(FACTORS[1] / FACTORS[0])))
    factors = np.geomspace(*FACTORS, steps)
    frequencies = np.arange(1, TEETH + 1) / (8 * factors[:, None])
    present = frequencies <= 0.5
    teeth = np.where(present, np.rint(frequencies * length), length // 2 + 1).astype(np.int64)
    reach = 2 * length // side  # a Hann window's main lobe
    centres = np.rint(np.arange(5) / 8 * length).astype(np.int64)[:, None]
    near = np.clip(centres + np.arange(-reach, reach + 1), 0, length // 2)
    near_eighths = np.unique(near)
    counts = np.sqrt(present.sum(axis=1).astype(np.float64))
    for table in (teeth, counts, near_eighths, factors):
        table.flags.writeable = False
    return teeth, counts, near_eighths, factors
