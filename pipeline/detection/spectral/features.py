"""Named spectral statistics of one image."""

from __future__ import annotations

import math
from dataclasses import dataclass

import cv2
import numpy as np
import numpy.typing as npt

from pipeline.detection.spectral import autocorrelation, colour, comb, harmonics, kernel, residuals
from pipeline.detection.spectral.kernel import Float64, Pixels
from pipeline.detection.spectral.log_spectrum import residual_moments

MIN_SIDE_PX = 128
FLAT_STD = 1.0
_FLAT_ROWS = 4  # of every fourth row: enough, at a quarter of the cost
BAR_RANGE = 2.0
BAR_SHARE = 0.2

BIN_CENTRES = (np.arange(kernel.RADIAL_BINS) + 0.5) / (2 * kernel.RADIAL_BINS)
"""Frequency of each radial bin in cycles/px, (64,)."""

_FIT = (BIN_CENTRES >= 0.1) & (BIN_CENTRES <= 0.45)
_TOP_OCTAVE = BIN_CENTRES >= 0.25
_ANCHOR = slice(12, 14)  # the two bins around 0.1 cycles/px
_BINS_A_BAND = 4  # bands of 1/32 cycle/px; that of 0.1 is 0 by definition but for rounding and left out
_BANDS = tuple(band for band in range(kernel.RADIAL_BINS // _BINS_A_BAND) if band != 3)
_POWER_FLOOR = 1e-3  # far below the 1/12 of rounding to whole grey levels
_LEVEL_FLOOR = 1e-3

_RADIAL = (
    "radial_slope_alpha",
    "top_octave_residual",
    "radial_roughness",
    *(f"radial_{band / 32:.3f}_{(band + 1) / 32:.3f}" for band in _BANDS),
)
_ANGULAR = ("angular_spread", "angular_axis_excess", "angular_diagonal_excess")
_PEAKS = tuple(f"log_peak_{kind}_1_{order}" for order in harmonics.ORDERS for kind in ("max", "median"))
_EIGHTHS = tuple(f"harmonic_{a}_{b}_of_8" for a, b in harmonics.EIGHTHS)
_AUTOCORRELATION = ("autocorrelation_period_8", "autocorrelation_period_16")
_RESIDUAL = tuple(f"spectral_residual_{kind}" for kind in ("std", "skewness", "max"))
_NPR = ("npr_log_variance", "npr_variance_spread", "npr_log_kurtosis", "npr_log_diagonal_ratio")
_PHASE = tuple(f"phase_peak_{period}_{axis}" for period in residuals.PHASE_PERIODS for axis in "xy")
_PHASE_ODD = tuple(f"phase_peak_odd_16_{axis}" for axis in "xy")
_CROSS = ("cross_difference_level", "cross_difference_ratio", "cross_difference_shape")
_COMB = ("comb_strength", "comb_strength_off_grid")

NAMES: tuple[str, ...] = (
    *_RADIAL,
    *_ANGULAR,
    *_PEAKS,
    *_EIGHTHS,
    *_AUTOCORRELATION,
    *_RESIDUAL,
    *_NPR,
    *_PHASE,
    *_PHASE_ODD,
    *_CROSS,
    *_COMB,
    *colour.LUMA_NAMES,
    *colour.NAMES,
)
"""Every feature, in the order of `Measurement.values`."""

COLOUR: frozenset[str] = frozenset(colour.NAMES)
"""Features that a colourless image lacks."""

JPEG_PERIOD: frozenset[str] = frozenset(
    (
        *(name for name in _PEAKS if not name.endswith("_16")),
        *_EIGHTHS,
        "autocorrelation_period_8",
        *_PHASE,
        "comb_strength",
        # Chroma planes of 4:2:0 have blocks of 16 px, so that no harmonic of theirs is the codec's alone.
        *colour.PEAK_NAMES,
    )
)
"""Features that JPEG's own 8 px blocks raise."""

UPSCALED_LOG_PEAK = float(np.log(12.0))
UPSCALED_LOG_ISOLATION = float(np.log(8.0))
"""A grid is an enlargement's when its points at 1/2 rise above the first and, above those at 1/4 and 1/8, by the
second. Photographs enlarged twofold reach ratios in the hundreds at 1/2 and 1 elsewhere; JPEG raises all."""


@dataclass(frozen=True, slots=True)
class Measurement:
    """What was measured on one image.

    `values` by feature name, those in `COLOUR` 0 when `colourless`; `radial` ln mean power by annulus minus its
    value at 0.1 cycles/px, (64,) float64; `harmonics` ln peak ratios at `harmonics.points`, (129,) float64;
    `comb_factor` the resize factor of the best comb off the 8 px grid.
    """

    values: dict[str, float]
    radial: Float64
    harmonics: Float64
    comb_factor: float
    colourless: bool

    @property
    def upscaled(self) -> bool:
        """An isolated peak at 1/2 cycle/px: enlarged twofold. Says nothing of how the image came to be."""
        at_half = self.values["log_peak_median_1_2"]
        elsewhere = max(self.values["log_peak_median_1_4"], self.values["log_peak_median_1_8"])
        return at_half > UPSCALED_LOG_PEAK and at_half - elsewhere > UPSCALED_LOG_ISOLATION


def not_applicable(luma: Pixels) -> str | None:
    """Why the spectrum of this luma (H, W) says nothing, or None; such an image is neither real nor fake."""
    if min(luma.shape) < MIN_SIDE_PX:
        return f"shorter side is {min(luma.shape)} px, below {MIN_SIDE_PX}"
    area = kernel.analysed_area(luma)
    if float(cv2.meanStdDev(area[::_FLAT_ROWS])[1][0, 0]) < FLAT_STD:
        return f"flat: luma standard deviation below {FLAT_STD:g}"
    for lines, name in ((area, "rows"), (area.T, "columns")):
        share = _bar_share(lines)
        if share > BAR_SHARE:
            return f"letterboxed: {share:.0%} of the {name} are constant bars"
    return None


def measure(luma: Pixels, rgb: npt.NDArray[np.uint8]) -> Measurement:
    """All features of the analysed area; luma (H, W) float32 0..255, rgb uint8 (H, W, 3), sides at least 16 px."""
    rows, columns = kernel.area_slices(*luma.shape)
    area = luma[rows, columns]
    shape = (area.shape[0], area.shape[1])
    cells = kernel.cell_power(area)
    profiles = kernel.profiles(cells, shape)
    radial = np.log(profiles.radial + _POWER_FLOOR)
    radial = radial - radial[_ANCHOR].mean()

    parts = residuals.differences(area)
    log_ratios = np.log(harmonics.peak_ratios(parts.cross_power))
    found = comb.search(parts.cross_x, parts.cross_y)

    centre = colour.crop_slices(*shape)
    luma_detail, coloured = colour.measure(rgb[rows, columns][centre], area[centre])
    values = [
        *_radial_features(radial),
        *_angular_features(np.log(profiles.angular + _POWER_FLOOR)),
        *(value for pair in harmonics.max_and_median(log_ratios) for value in pair),
        *harmonics.eighth_means(log_ratios).tolist(),
        *autocorrelation.period_excess(parts.cross_power),
        *residual_moments(cells, shape),
        *_npr_features(area[centre]),
        *_phase_features(parts),
        *_cross_features(parts),
        found.strength,
        found.off_grid,
        *luma_detail,
        *(coloured or [0.0] * len(colour.NAMES)),
    ]
    return Measurement(dict(zip(NAMES, values, strict=True)), radial, log_ratios, found.factor, coloured is None)


def names_for(mask_jpeg_grid: bool) -> tuple[str, ...]:
    """The features that count: without those at JPEG's period when the codec's grid is masked."""
    return tuple(name for name in NAMES if not (mask_jpeg_grid and name in JPEG_PERIOD))


def _bar_share(lines: Pixels) -> float:
    """Share of lines in the constant runs at both ends."""
    first, last = _constant_run(lines), _constant_run(lines[::-1])
    return min(1.0, (first + last) / len(lines))


def _constant_run(lines: Pixels) -> int:
    run = 0
    while run < len(lines) and float(np.ptp(lines[run])) <= BAR_RANGE:
        run += 1
    return run


def _radial_map() -> Float64:
    """Rows that give -alpha, the mean departure from that law in the top octave, and the bands, (17, 64)."""
    log_f = np.log(BIN_CENTRES)
    centred = np.where(_FIT, log_f - log_f[_FIT].mean(), 0.0)
    slope = centred / (centred @ centred)
    top = _TOP_OCTAVE / _TOP_OCTAVE.sum()
    rise = float(top @ (log_f - log_f[_FIT].mean()))
    bands = np.repeat(np.eye(kernel.RADIAL_BINS // _BINS_A_BAND), _BINS_A_BAND, axis=1)[list(_BANDS)] / _BINS_A_BAND
    rows: Float64 = np.vstack([slope, top - _FIT / _FIT.sum() - rise * slope, bands])
    return rows


_RADIAL_MAP = _radial_map()


def _radial_features(radial: Float64) -> list[float]:
    """Exponent alpha over 0.1-0.45 cycles/px, mean departure from that law in the top octave, roughness, bands."""
    slope, top_octave, *bands = (_RADIAL_MAP @ radial).tolist()
    bends = np.diff(radial[_ANCHOR.start :], 2)
    return [-slope, top_octave, math.sqrt(bends @ bends / bends.size), *bands]


def _angular_features(angular: Float64) -> list[float]:
    mean, std = float(angular.mean()), float(angular.std())
    axes, diagonals = 0.5 * float(angular[0] + angular[8]), 0.5 * float(angular[4] + angular[12])
    return [std, axes - mean, diagonals - mean]


def _npr_features(crop: Pixels) -> list[float]:
    npr = residuals.neighbouring_pixels(crop)
    return [npr.log_variance, npr.variance_spread, npr.log_kurtosis, npr.log_diagonal_ratio]


def _phase_features(parts: residuals.Differences) -> list[float]:
    axes = [residuals.phase_profiles(across) for across in (parts.across_x, parts.across_y)]
    peaks = [residuals.phase_peak(profiles[period]) for period in residuals.PHASE_PERIODS for profiles in axes]
    return [*peaks, *(residuals.phase_peak_odd(profiles[16]) for profiles in axes)]


def _cross_features(parts: residuals.Differences) -> list[float]:
    """Logarithms: of the mean; of the mean over that of the first differences; of E[c^2]/E[c]^2."""
    mean = float(parts.cross_x.mean()) + _LEVEL_FLOOR
    first = 0.5 * float(parts.across_x.mean() + parts.across_y.mean()) + _LEVEL_FLOOR
    square = parts.cross_square + _LEVEL_FLOOR**2
    return [float(np.log(mean)), float(np.log(mean / first)), float(np.log(square / mean**2))]
