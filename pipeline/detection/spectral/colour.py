"""The two colour differences R - G and B - (R + G)/2, which hold no grey: detail beside luma, spectrum, harmonics.

A camera measures one colour a pixel and fills in the rest, and a decoder paints all three at once: the energy of
colour differences relative to luma tells them apart where JPEG left little of the spectrum, and hardly changes with
the codec, because both sides of each ratio pass through it.
"""

from __future__ import annotations

import math
from itertools import pairwise

import cv2
import numpy as np
import numpy.typing as npt

from pipeline.detection.spectral import harmonics, kernel
from pipeline.detection.spectral.kernel import Float64, Pixels
from pipeline.detection.spectral.residuals import cross_mean

CHANNELS = ("red_green", "blue_yellow")
SCALES_PX = (1, 2, 4, 8)
BANDS = ((0.04, 0.08), (0.14, 0.2), (0.2, 0.3), (0.3, 0.4), (0.4, 0.5))
"""Frequencies in cycles/px, relative to the power at 0.1."""

HARMONIC_GROUPS = {"grid_8": (2, 4, 8), "odd_16": (16,)}
"""Orders of harmonic points whose maximum and median are kept together."""

_SIDE_PX, _LARGE_SIDE_PX, _LARGE_AREA_PX = 256, 384, 768
_DETAIL_FLOOR = 0.05  # of a mean cross-difference in grey levels
_POWER_FLOOR = 1e-3
_COLOURLESS = 0.5
_ANCHOR = slice(12, 14)
_IN_GROUP = tuple(np.flatnonzero(np.isin(harmonics.POINT_ORDERS, orders)) for orders in HARMONIC_GROUPS.values())


def _band_map() -> Float64:
    """Rows that give the mean of each band less that of the anchor from 64 annuli, (5, 64)."""
    rows = np.zeros((len(BANDS), kernel.RADIAL_BINS))
    for row, band in zip(rows, BANDS, strict=True):
        low, high = (round(f * 2 * kernel.RADIAL_BINS) for f in band)
        row[low:high] = 1 / (high - low)
    rows[:, _ANCHOR] -= 1 / (_ANCHOR.stop - _ANCHOR.start)
    return rows


_BAND_MAP = _band_map()

LUMA_NAMES: tuple[str, ...] = tuple(f"luma_detail_{fine}px_to_{coarse}px" for fine, coarse in pairwise(SCALES_PX))
PEAK_NAMES: tuple[str, ...] = tuple(
    f"colour_peak_{kind}_{group}" for group in HARMONIC_GROUPS for kind in ("max", "median")
)
NAMES: tuple[str, ...] = (
    *(f"{channel}_detail_{scale}px" for scale in SCALES_PX for channel in CHANNELS),
    *(f"{channel}_{low:.2f}_{high:.2f}" for channel in CHANNELS for low, high in BANDS),
    *PEAK_NAMES,
)
"""What `measure` returns after the `LUMA_NAMES`; an image without colour has none of it."""


def crop_slices(rows: int, columns: int) -> tuple[slice, slice]:
    """The centre of an analysed area of (rows, columns) px that fine-grained statistics are taken from.

    256 px a side, 384 px in areas from 768 px on: native pixels, enough of them, at a quarter of the cost or less.
    """

    def centre(side: int) -> slice:
        kept = min(side, _LARGE_SIDE_PX if side >= _LARGE_AREA_PX else _SIDE_PX)
        start = (side - kept) // 2
        return slice(start, start + kept)

    return centre(rows), centre(columns)


def measure(rgb: npt.NDArray[np.uint8], luma: Pixels) -> tuple[list[float], list[float] | None]:
    """Values by `LUMA_NAMES` and by `NAMES` of a crop, uint8 (H, W, 3) and (H, W), both sides multiples of 16.

    The second is None where the channels are nearly one: no mean difference reaches 0.5 grey levels.
    """
    red_green, blue_yellow = differences = _differences(rgb, luma.dtype)
    luma_detail = _details(luma, _cross_difference(luma))
    steps = [fine - coarse for fine, coarse in pairwise(luma_detail)]
    if all(cv2.norm(plane, cv2.NORM_L1) / plane.size < _COLOURLESS for plane in differences):
        return steps, None
    cross = _cross_difference(red_green)
    total = kernel.scratch("stacked", luma.shape, luma.dtype)
    total[:] = cross
    details = [_details(red_green, cross)]
    cross = _cross_difference(blue_yellow)
    cv2.add(total, cross, total)
    details.append(_details(blue_yellow, cross))
    relative = [detail[i] - luma_detail[i] for i in range(len(SCALES_PX)) for detail in details]
    bands = [value for plane in differences for value in _bands(plane)]
    return steps, [*relative, *bands, *_peaks(total)]


def _differences(rgb: npt.NDArray[np.uint8], dtype: npt.DTypeLike) -> tuple[Pixels, Pixels]:
    """R - G and B - (R + G)/2, in work arrays."""
    depth = cv2.CV_32F if dtype == np.float32 else cv2.CV_64F
    shape = (rgb.shape[0], rgb.shape[1])
    red_green, blue_yellow = (kernel.scratch(channel, shape, dtype) for channel in CHANNELS)
    red, green, blue = cv2.split(rgb)
    cv2.addWeighted(red, 0.5, green, 0.5, 0.0, red_green, depth)
    cv2.subtract(blue, red_green, blue_yellow, dtype=depth)
    cv2.subtract(red, green, red_green, dtype=depth)
    return red_green, blue_yellow


def _cross_difference(plane: Pixels) -> Pixels:
    """As `residuals.cross_difference`, in a work array that the next call writes over.

    The arrays are those of `residuals.differences`, which has left them in the cache.
    """
    shape = (plane.shape[0], plane.shape[1])
    right = kernel.scratch("steps", shape, plane.dtype)[:, :-1]
    cross = kernel.scratch("cross", shape, plane.dtype)
    cv2.subtract(plane[:, :-1], plane[:, 1:], right)
    cv2.absdiff(right[:-1], right[1:], cross[:-1, :-1])
    cross[-1], cross[:, -1] = 0, 0
    return cross


def _details(plane: Pixels, cross: Pixels) -> list[float]:
    """Logarithms of the mean cross-difference of the plane and of its means over blocks of 2, 4 and 8 px."""
    means = [cross_mean(plane, cross)]
    for _ in SCALES_PX[1:]:
        plane = cv2.resize(plane, (plane.shape[1] // 2, plane.shape[0] // 2), interpolation=cv2.INTER_AREA)
        means.append(cross_mean(plane, _cross_difference(plane)))
    return [math.log(mean + _DETAIL_FLOOR) for mean in means]


def _bands(difference: Pixels) -> list[float]:
    parts = _parts(difference)
    shape = (difference.shape[0] // parts[0], difference.shape[1] // parts[1])
    profile = kernel.profiles(kernel.cell_power(difference, parts), shape).radial
    relative: list[float] = (_BAND_MAP @ np.log(profile + _POWER_FLOOR)).tolist()
    return relative


def _parts(plane: Pixels) -> tuple[int, int]:
    """Folds of a crop to 128 ... 255 px a side: frequencies enough for five bands and the harmonic points."""
    rows, columns = (2 if side >= 256 and side % (2 * kernel.GRID) == 0 else 1 for side in plane.shape)
    return rows, columns


def _peaks(cross: Pixels) -> list[float]:
    """Maximum and median of ln peak ratios by group."""
    log_ratios = np.log(harmonics.peak_ratios(kernel.power_spectrum(cross, _parts(cross))))
    groups = [np.sort(log_ratios[of_group]) for of_group in _IN_GROUP]
    return [float(v) for group in groups for v in (group[-1], harmonics.middle(group))]
