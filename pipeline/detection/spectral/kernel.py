"""Power spectra on a half plane, and their means over annuli and sectors.

A real image has a Hermitian spectrum, so `rfft2` keeps columns 0 ... N/2. Columns 0 and N/2 stand for
themselves and all others for two, hence the weights 1/2, 1, ..., 1, 1/2. Pixels are float32, sums float64.
Index tables are cached by shape and read-only; nothing else is kept between calls.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from math import gcd

import numpy as np
import numpy.typing as npt
import scipy.fft

Float32 = npt.NDArray[np.float32]
Float64 = npt.NDArray[np.float64]
Int64 = npt.NDArray[np.int64]

RADIAL_BINS = 64
"""Annuli from 0 to 0.5 cycles/px, each 1/128 wide."""

ANGULAR_BINS = 16
"""Sectors of [0, pi), centred on 0, pi/16, ...: bin 0 is the horizontal axis, bin 8 the vertical one."""

ANGULAR_RANGE = (0.1, 0.5)
"""Frequencies in cycles/px that the angular profile averages over."""

GRID = 16
"""Harmonic points lie at multiples of 1/16 cycle/px on both axes."""

MAX_SIDE_PX = 1024
_TABLE_SHAPES = 32


@dataclass(frozen=True, slots=True)
class Profiles:
    """Mean power by annulus (64,) and by sector (16,), float64; NaN where an annulus holds no frequency."""

    radial: Float64
    angular: Float64


def analysed_area(luma: Float32) -> Float32:
    """A view of the native pixels that are analysed: the centre, at most 1024 a side, cut to multiples of 16.

    `luma` is float32 (H, W); never resized, because resizing moves every spectral trace.
    """
    height, width = luma.shape
    rows, columns = min(height, MAX_SIDE_PX), min(width, MAX_SIDE_PX)
    top, left = (height - rows) // 2, (width - columns) // 2
    return luma[top : top + rows // GRID * GRID, left : left + columns // GRID * GRID]


def cross_difference(field: Float32) -> Float32:
    """|x[y,x] + x[y+1,x+1] - x[y,x+1] - x[y+1,x]|, same shape as the input, last row and column 0.

    Source: the residual of Synthbuster (Bammey 2023). It removes what varies along one axis only.
    """
    residual = np.zeros_like(field)
    columns = field[:, :-1] - field[:, 1:]
    np.abs(columns[:-1] - columns[1:], out=residual[:-1, :-1])
    return residual


def power_spectrum(field: Float32) -> Float32:
    """Half-plane power abs(F)^2 / sum(w^2) of the mean-free, Hann-windowed field.

    Float32 (H, W) to float32 (H, W/2 + 1); white noise of variance v gives a mean power of v.
    """
    rows, columns = _hann(field.shape[0]), _hann(field.shape[1])
    windowed = field - np.float32(field.mean(dtype=np.float64))
    windowed *= rows[:, None]
    windowed *= columns[None, :]
    spectrum = scipy.fft.rfft2(windowed, workers=1, overwrite_x=True)
    power = np.square(spectrum.real)
    power += np.square(spectrum.imag)
    power *= np.float32(1.0 / (np.square(rows, dtype=np.float64).sum() * np.square(columns, dtype=np.float64).sum()))
    result: Float32 = power
    return result


def column_weights(columns: int) -> Float32:
    """1/2, 1, ..., 1, 1/2 for the `columns` of a half plane of even width."""
    weights = np.ones(columns, np.float32)
    weights[[0, -1]] = 0.5
    return weights


def profiles(power: Float32) -> Profiles:
    """Exact full-plane means of a half-plane power spectrum (H, W/2 + 1); corners left out."""
    index, counts = _polar_table(*power.shape)
    weighted = power * column_weights(power.shape[1])
    sums = np.bincount(index, weights=weighted.ravel(), minlength=counts.size).reshape(counts.shape)
    low, high = (round(f * 2 * RADIAL_BINS) for f in ANGULAR_RANGE)
    with np.errstate(invalid="ignore", divide="ignore"):
        radial = sums[:RADIAL_BINS].sum(axis=1) / counts[:RADIAL_BINS].sum(axis=1)
        angular = sums[low:high].sum(axis=0) / counts[low:high].sum(axis=0)
    return Profiles(radial, angular)


def log_magnitude_plane(power: Float32) -> Float32:
    """log1p of the magnitude on the full, centred plane (H, W), frequency 0 at (H/2, W/2)."""
    half = np.log1p(np.sqrt(power) * np.float32(np.sqrt(power.shape[0] * (power.shape[1] - 1) * 2)))
    mirrored = np.roll(half[::-1], 1, axis=0)[:, -2:0:-1]
    plane: Float32 = np.fft.fftshift(np.concatenate([half, mirrored], axis=1))
    return plane


def peak_ratios(power: Float32) -> tuple[Float64, Int64]:
    """Power at every harmonic point over the median of its 13 x 13 neighbourhood without the inner 3 x 3.

    Returns the ratios (P,) and each point's order, 2, 4, 8 or 16: the denominator of its frequencies.
    The square root is taken, so that the ratio is one of magnitudes.
    """
    points, neighbours, orders = _harmonic_table(*power.shape)
    flat = power.ravel()
    around = np.median(flat[neighbours], axis=1).astype(np.float64)
    floor = 1e-9
    return np.sqrt((flat[points].astype(np.float64) + floor) / (around + floor)), orders


def axis_autocorrelation(power: Float32) -> tuple[Float64, Float64]:
    """Autocorrelation along x and along y at lags 0 ... N/2, 1 at lag 0.

    The circular autocorrelation on an axis is the inverse transform of the power summed over the other axis.
    """
    along_x = power.sum(axis=0, dtype=np.float64)
    along_y = power.sum(axis=1, dtype=np.float64) - 0.5 * (power[:, 0] + power[:, -1])
    along_y = along_y + np.roll(along_y[::-1], 1)
    return _normalised(scipy.fft.irfft(along_x)), _normalised(scipy.fft.ifft(along_y).real)


def _normalised(correlation: Float64) -> Float64:
    zero_lag = correlation[0] if correlation[0] > 0 else 1.0
    result: Float64 = correlation[: correlation.size // 2 + 1] / zero_lag
    return result


@lru_cache(maxsize=_TABLE_SHAPES)
def _hann(size: int) -> Float32:
    window = (0.5 - 0.5 * np.cos(2 * np.pi * np.arange(size) / size)).astype(np.float32)
    window.flags.writeable = False
    return window


@lru_cache(maxsize=_TABLE_SHAPES)
def _polar_table(rows: int, columns: int) -> tuple[npt.NDArray[np.uint16], Float64]:
    """Flat index radial * 16 + angular of every half-plane sample, and the weight of each bin (65, 16)."""
    fy = np.fft.fftfreq(rows).astype(np.float32)[:, None]
    fx = np.fft.rfftfreq(2 * (columns - 1)).astype(np.float32)[None, :]
    radial = np.minimum(np.hypot(fy, fx) * (2 * RADIAL_BINS), RADIAL_BINS).astype(np.uint16)
    sector = np.floor(np.arctan2(fy, fx) * (ANGULAR_BINS / np.pi) + 0.5).astype(np.int16) % ANGULAR_BINS
    index = (radial * ANGULAR_BINS + sector.astype(np.uint16)).ravel()
    weights = np.broadcast_to(column_weights(columns), (rows, columns)).ravel()
    bins = (RADIAL_BINS + 1) * ANGULAR_BINS
    counts = np.bincount(index, weights=weights, minlength=bins).astype(np.float64)
    counts = counts.reshape(RADIAL_BINS + 1, ANGULAR_BINS)
    index.flags.writeable = counts.flags.writeable = False
    return index, counts


def harmonic_points() -> list[tuple[int, int, int]]:
    """(m, n, order) of the half plane's distinct points m/16 (vertical), n/16 (horizontal), without 0."""
    half = GRID // 2
    return [
        (m, n, GRID // gcd(m, n, GRID))
        for n in range(half + 1)
        for m in range(-half, half)
        if not (n in (0, half) and -half < m < 0) and (m, n) != (0, 0)
    ]


@lru_cache(maxsize=_TABLE_SHAPES)
def _harmonic_table(rows: int, columns: int) -> tuple[Int64, Int64, Int64]:
    """Flat half-plane indices of the points (P,) and of their neighbours (P, 160), and the orders (P,)."""
    width = 2 * (columns - 1)
    listed = np.array(harmonic_points(), dtype=np.int64)
    offsets = np.array([(y, x) for y in range(-6, 7) for x in range(-6, 7) if max(abs(y), abs(x)) > 1])
    centre_y, centre_x = listed[:, 0] * (rows // GRID), listed[:, 1] * (width // GRID)

    def flat(y: Int64, x: Int64) -> Int64:
        mirrored = (x < 0) | (x > width // 2)
        y, x = np.where(mirrored, -y, y) % rows, np.where(mirrored, -x, x) % width
        return y * columns + x

    points = flat(centre_y, centre_x)
    neighbours = flat(centre_y[:, None] + offsets[:, 0], centre_x[:, None] + offsets[:, 1])
    orders = listed[:, 2].copy()
    for table in (points, neighbours, orders):
        table.flags.writeable = False
    return points, neighbours, orders
