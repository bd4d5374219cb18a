"""Grids of 8 px after a resize by an unknown factor s: a comb of lines at k/(8 s) on both axes."""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache

import cv2
import numpy as np
import scipy.fft
import scipy.sparse

from pipeline.detection.spectral.kernel import Float64, hann

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
    teeth, on_grid, factors = _table(length, max(cross_x.size, cross_y.size))
    # The mean of two independent axes has 1/sqrt(2) of the spread.
    excess = (_line_excess(cross_x, length) + _line_excess(cross_y, length)) * (0.5 * np.sqrt(2.0) / _LOG_STD)
    anywhere = teeth @ excess
    off_grid = anywhere - on_grid @ excess
    best = int(off_grid.argmax())
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


@lru_cache(maxsize=64)
def _table(length: int, side: int) -> tuple[scipy.sparse.csr_array, scipy.sparse.csr_array, Float64]:
    """Sums over each factor's teeth by the root of their number, (S, length/2 + 1), those near k/8 alone, factors."""
    steps = int(np.ceil(side * np.log(FACTORS[1] / FACTORS[0])))
    factors = np.geomspace(*FACTORS, steps)
    frequencies = np.arange(1, TEETH + 1) / (8 * factors[:, None])
    present = frequencies <= 0.5
    weights = np.broadcast_to(1 / np.sqrt(present.sum(axis=1, dtype=np.float64))[:, None], present.shape)
    factor, _ = np.nonzero(present)
    bins = np.rint(frequencies[present] * length).astype(np.int64)
    reach = 2 * length // side  # a Hann window's main lobe
    eighths = np.rint(np.arange(5) / 8 * length).astype(np.int64)
    near = (np.abs(bins[:, None] - eighths) <= reach).any(axis=1)
    shape = (steps, length // 2 + 1)
    tables = [
        scipy.sparse.csr_array((weights[present][chosen], (factor[chosen], bins[chosen])), shape=shape)
        for chosen in (np.ones_like(near), near)
    ]
    for table in (tables[0].data, tables[1].data, factors):
        table.flags.writeable = False
    return tables[0], tables[1], factors
