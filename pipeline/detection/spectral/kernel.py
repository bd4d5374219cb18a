"""Power spectra on a half plane, and their means over annuli and sectors.

A real image has a Hermitian spectrum, so columns 0 ... N/2 hold all of it. Columns 0 and N/2 stand for
themselves and all others for two, hence the weights 1/2, 1, ..., 1, 1/2. Pixels are float32 (float64 is taken
too, for checks), sums over bins float64. Tables are cached by shape and read-only. Work arrays of each thread are
kept and written over by its next call, because fresh ones cost as much in page faults as the work on them.
"""

from __future__ import annotations

import threading
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, TypeAlias

import cv2
import numpy as np
import numpy.typing as npt
import scipy.sparse

Float32 = npt.NDArray[np.float32]
Float64 = npt.NDArray[np.float64]
Int64 = npt.NDArray[np.int64]
Pixels: TypeAlias = npt.NDArray[np.floating[Any]]
"""float32 in the pipeline, float64 in checks of precision."""
Complex: TypeAlias = npt.NDArray[np.complexfloating[Any, Any]]

RADIAL_BINS = 64
"""Annuli from 0 to 0.5 cycles/px, each 1/128 wide."""

ANGULAR_BINS = 16
"""Sectors of [0, pi), centred on 0, pi/16, ...: bin 0 is the horizontal axis, bin 8 the vertical one."""

ANGULAR_RANGE = (0.1, 0.5)
"""Frequencies in cycles/px that the angular profile averages over."""

GRID = 16
"""Sides are multiples of 16, so that k/16 cycle/px is a sample of the spectrum."""

MAX_SIDE_PX = 1024
MIN_FOLDED_PX = 256
_SIXTEENTHS = (*range(1, 11), 12, 15, 16, 18, 20, 24, 25, 27, 30, 32, 36, 40, 48, 50, 54, 60, 64)
"""Analysed sides in sixteens of pixels: only factors 2, 3, 5 (and 7 when tiny), because a transform of
16 x 61 takes five times as long as one of 16 x 64; and those that `folds` can halve or more from 512 on."""
_TABLE_SHAPES, _WINDOW_SHAPES = 64, 16  # a window takes up to 4 MiB
_ROW_PADDING = 16


@dataclass(frozen=True, slots=True)
class Profiles:
    """Mean power by annulus (64,) and by sector (16,), float64; NaN where an annulus holds no frequency."""

    radial: Float64
    angular: Float64


def area_slices(height: int, width: int) -> tuple[slice, slice]:
    """Rows and columns of the analysed area: the centre, at most 1024 a side, cut to a fast multiple of 16."""
    rows, columns = _analysed_side(height), _analysed_side(width)
    top, left = (height - min(height, MAX_SIDE_PX)) // 2, (width - min(width, MAX_SIDE_PX)) // 2
    return slice(top, top + rows), slice(left, left + columns)


def analysed_area(luma: Pixels) -> Pixels:
    """A view of the native pixels that are analysed.

    `luma` is float32 (H, W); never resized, because resizing moves every spectral trace.
    """
    return luma[area_slices(*luma.shape)]


def folds(side: int) -> int:
    """In how many parts of at least 256 px, multiples of 16, an analysed side can be cut."""
    sixteenths = side // GRID
    whole = [n for n in range(1, side // MIN_FOLDED_PX + 1) if sixteenths % n == 0]
    return max(whole, default=1)


def scratch(name: str, shape: tuple[int, int], dtype: npt.DTypeLike) -> Pixels:
    """This thread's work array of that name, of undefined content; valid until it is asked for again."""
    size = shape[0] * shape[1]
    key = (name, np.dtype(dtype).char)
    buffer = _work.arrays.get(key)
    if buffer is None or buffer.size < size:
        buffer = _work.arrays[key] = np.empty(size, dtype)
    return buffer[:size].reshape(shape)


def _pairs(rows: int, columns: int, dtype: npt.DTypeLike) -> Pixels:
    """A work array (rows, columns + 2) whose middle takes a field, and all of it that field's spectrum.

    OpenCV packs real spectra: (re, im) pairs from column 1 on. The column in front aligns the pairs, and the distance
    between rows keeps the transform of columns off the few cache lines that multiples of 4 KiB share.
    """
    return scratch("pairs", (rows, columns + _ROW_PADDING), dtype)[:, : columns + 2]


def _windowed(field: Pixels, parts: tuple[int, int]) -> Pixels:
    """The field times `window`, and its (py, px) parts added up, as `_pairs` of (H/py, W/px)."""
    rows, columns = field.shape
    high, wide = rows // parts[0], columns // parts[1]
    weights = window(rows, columns, field.dtype.char)
    pairs = _pairs(high, wide, field.dtype)
    total = pairs[:, 1:-1]
    if parts == (1, 1):
        cv2.multiply(field, weights, total)
        return pairs
    total.fill(0)
    for top in range(0, rows, high):
        for left in range(0, columns, wide):
            part = (slice(top, top + high), slice(left, left + wide))
            cv2.accumulateProduct(field[part], weights[part], total)
    return pairs


def _half_plane(pairs: Pixels, shape: tuple[int, int], parts: tuple[int, int]) -> Complex:
    """Transform in place of a windowed, folded field of `shape` px without its weighted mean, complex."""
    packed = pairs[:, 1:-1]
    cv2.dft(packed, packed)
    _unpack_column(pairs[:, 1], pairs[:, :2])
    _unpack_column(pairs[:, -2], pairs[:, -2:])
    plane: Complex = pairs.view(np.complex64 if pairs.dtype == np.float32 else np.complex128)
    _remove_mean(plane, *shape, parts)
    return plane


def power_spectrum(field: Pixels, parts: tuple[int, int] = (1, 1)) -> Pixels:
    """Half-plane power abs(F)^2 / sum(w^2) of the windowed field without its mean, (H/py, W/(2 px) + 1).

    White noise of variance v gives a mean power of v. With `parts` (py, px) it is the whole field's power at every
    py-th and px-th frequency, exactly, for the price of a transform of one part (the parts are added up before it):
    a grid of period 16 keeps its full height. Both sides must be even multiples of the parts.
    """
    return _power(_windowed(field, parts), (field.shape[0], field.shape[1]), parts)


def folded_columns(windowed: Pixels, parts: int) -> Pixels:
    """The sum of `parts` equal parts side by side of a field, (H, W/parts), in its own memory, written over."""
    wide = windowed.shape[1] // parts
    total = windowed[:, :wide]
    for part in range(1, parts):
        cv2.add(total, windowed[:, part * wide : (part + 1) * wide], total)
    return total


def folded_power(field: Pixels, shape: tuple[int, int], parts: tuple[int, int]) -> Pixels:
    """The power spectrum from a field of `shape` px that was multiplied by `window` and folded already."""
    pairs = _pairs(field.shape[0], field.shape[1], field.dtype)
    pairs[:, 1:-1] = field
    return _power(pairs, shape, parts)


def _power(pairs: Pixels, shape: tuple[int, int], parts: tuple[int, int]) -> Pixels:
    squares = _half_plane(pairs, shape, parts).view(pairs.dtype)
    np.square(squares, out=squares)
    power: Pixels = squares[:, ::2] + squares[:, 1::2]
    power *= squares.dtype.type(1.0 / _window_energy(*shape))
    return power


def cell_power(field: Pixels, parts: tuple[int, int] = (1, 1)) -> Pixels:
    """Weighted sums of the half-plane power over cells, the Nyquist column left out; `parts` as in `power_spectrum`.

    A cell spans 1 x 1, 2 x 2 or 4 x 4 frequencies for sides from 16, 512 and 1024 px on (by axis), so that
    about 256 x 128 cells remain whatever the size. With parts the size is that of one part.
    """
    plane = _half_plane(_windowed(field, parts), (field.shape[0], field.shape[1]), parts)
    values: Pixels = plane.view(field.dtype)
    rows, columns = values.shape[0], values.shape[1] - 2
    cells = _row_cells(values[:, :-2], 1 << _halvings(rows))
    cells[:, :2] *= cells.dtype.type(0.5)
    for _ in range(_halvings(columns) + 1):  # once more: real and imaginary parts
        cells = cells[:, ::2] + cells[:, 1::2]
    cells *= cells.dtype.type(1.0 / _window_energy(*field.shape))
    return cells


def _row_cells(values: Pixels, high: int) -> Pixels:
    """Sums of the squares of every `high` rows, in scratch."""
    rows, columns = values.shape
    total = scratch("row cells", (rows // high, columns), values.dtype)
    if high == 1:
        np.square(values, out=total)
        return total
    total.fill(0)
    for row in range(high):
        cv2.accumulateSquare(values[row::high], total)
    return total


def cell_weights(rows: int, columns: int) -> Float64:
    """How many weighted frequencies each cell of a field of (rows, columns) px holds, (R, C)."""
    high, wide = 1 << _halvings(rows), 1 << _halvings(columns)
    weights = np.full((rows // high, columns // 2 // wide), float(high * wide))
    weights[:, 0] -= 0.5 * high
    return weights


def profiles(cells: Pixels, shape: tuple[int, int]) -> Profiles:
    """Full-plane means of the cells of a field of `shape` px; corners left out. Cells count by their centre."""
    bins, counts, low, high = _polar_table(*shape, cells.dtype.char)
    sums = (bins @ cells.reshape(-1)).astype(np.float64, copy=False).reshape(counts.radial.size, ANGULAR_BINS)
    with np.errstate(invalid="ignore", divide="ignore"):
        radial = sums[:RADIAL_BINS].sum(axis=1) / counts.radial[:RADIAL_BINS]
        angular = sums[low:high].sum(axis=0) / counts.angular
    return Profiles(radial, angular)


def log_magnitude_plane(power: Pixels) -> Pixels:
    """log1p of the magnitude on the full, centred plane (H, W), frequency 0 at (H/2, W/2)."""
    half = np.log1p(np.sqrt(power) * np.float32(np.sqrt(power.shape[0] * (power.shape[1] - 1) * 2)))
    mirrored = np.roll(half[::-1], 1, axis=0)[:, -2:0:-1]
    plane: Pixels = np.fft.fftshift(np.concatenate([half, mirrored], axis=1))
    return plane


@lru_cache(maxsize=_TABLE_SHAPES)
def hann(size: int) -> Float64:
    """The periodic Hann window; its transform is N/2 at 0, -N/4 at +-1 and 0 elsewhere."""
    window: Float64 = 0.5 - 0.5 * np.cos(2 * np.pi * np.arange(size) / size)
    window.flags.writeable = False
    return window


class _Work(threading.local):
    def __init__(self) -> None:
        self.arrays: dict[tuple[str, str], Pixels] = {}


_work = _Work()


def _analysed_side(side: int) -> int:
    sixteenths = min(side, MAX_SIDE_PX) // GRID
    return GRID * max((n for n in _SIXTEENTHS if n <= sixteenths), default=0)


def _halvings(side: int) -> int:
    return 2 if side >= 1024 else int(side >= 512)


def _unpack_column(packed: Pixels, pairs: Pixels) -> None:
    """Column 0 or N/2, itself the spectrum of a real sequence: re 0, re 1, im 1, ..., re N/2 becomes N pairs."""
    column = packed.copy()
    size, half = column.size, column.size // 2
    pairs[0] = column[0], 0
    pairs[half] = column[-1], 0
    real, imaginary = column[1:-1:2], column[2:-1:2]
    pairs[1:half, 0], pairs[1:half, 1] = real, imaginary
    pairs[size - 1 : half : -1, 0], pairs[size - 1 : half : -1, 1] = real, -imaginary


def _remove_mean(plane: Complex, rows: int, columns: int, parts: tuple[int, int]) -> None:
    """Subtract the window's own spectrum, which has 3 x 3 samples, times the window-weighted mean."""
    mean = float(plane[0, 0].real) / (0.25 * rows * columns)
    lobe_y = ((0, 0.5), (1, -0.25), (-1, -0.25)) if parts[0] == 1 else ((0, 0.5),)
    lobe_x = ((0, 0.5), (1, -0.25)) if parts[1] == 1 else ((0, 0.5),)
    for y, weight_y in lobe_y:
        for x, weight_x in lobe_x:
            plane[y, x] -= mean * rows * columns * weight_y * weight_x


def _window_energy(rows: int, columns: int) -> float:
    return 0.375 * rows * 0.375 * columns  # the sum of squares of a periodic Hann window is 3 N / 8


@lru_cache(maxsize=_WINDOW_SHAPES)
def window(rows: int, columns: int, dtype: str) -> Pixels:
    """The two-dimensional Hann window, (rows, columns) of that dtype character."""
    weights: Pixels = np.outer(hann(rows), hann(columns)).astype(dtype)
    weights.flags.writeable = False
    return weights


@lru_cache(maxsize=_TABLE_SHAPES)
def _polar_table(rows: int, columns: int, dtype: str) -> tuple[scipy.sparse.csr_array, Profiles, int, int]:
    """The matrix that adds up cells by radial * 16 + angular, the weights of the bins, the angular profile's annuli.

    A bin holds a few dozen cells, few enough for sums in float32.
    """
    fx, fy = cell_frequencies(rows, columns)
    radial = np.minimum(np.hypot(fy, fx) * (2 * RADIAL_BINS), RADIAL_BINS).astype(np.int64)
    sector = np.floor(np.arctan2(fy, fx) * (ANGULAR_BINS / np.pi) + 0.5).astype(np.int64) % ANGULAR_BINS
    index = (radial * ANGULAR_BINS + sector).ravel()
    counts = np.bincount(index, cell_weights(rows, columns).ravel(), (RADIAL_BINS + 1) * ANGULAR_BINS)
    counts = counts.reshape(RADIAL_BINS + 1, ANGULAR_BINS)
    low, high = (round(f * 2 * RADIAL_BINS) for f in ANGULAR_RANGE)
    totals = Profiles(counts.sum(axis=1), counts[low:high].sum(axis=0))
    places = (index, np.arange(index.size))
    bins = scipy.sparse.csr_array((np.ones(index.size, dtype), places), shape=(counts.size, index.size))
    for table in (bins.data, totals.radial, totals.angular):
        table.flags.writeable = False
    return bins, totals, low, high


def cell_frequencies(rows: int, columns: int) -> tuple[Float64, Float64]:
    """Centres of the cells of a field of (rows, columns) px in cycles/px: horizontal (1, C), vertical (R, 1)."""
    vertical = np.fft.fftfreq(rows).reshape(-1, 1 << _halvings(rows)).mean(axis=1)[:, None]
    horizontal = np.fft.rfftfreq(columns)[:-1].reshape(-1, 1 << _halvings(columns)).mean(axis=1)[None, :]
    return horizontal, vertical
