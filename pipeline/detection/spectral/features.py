"""Named spectral statistics of one luma image."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from pipeline.detection.spectral import kernel
from pipeline.detection.spectral.kernel import Float32, Float64

MIN_SIDE_PX = 128
FLAT_STD = 1.0
BAR_RANGE = 2.0
BAR_SHARE = 0.2

BIN_CENTRES = (np.arange(kernel.RADIAL_BINS) + 0.5) / (2 * kernel.RADIAL_BINS)
"""Frequency of each radial bin in cycles/px, (64,)."""

_FIT = (BIN_CENTRES >= 0.1) & (BIN_CENTRES <= 0.45)
_TOP_OCTAVE = BIN_CENTRES >= 0.25
_ANCHOR = slice(12, 14)  # the two bins around 0.1 cycles/px
_BANDS = tuple((low, low + 5) for low in range(10, 50, 5))  # in hundredths of a cycle/px
_LAGS_PX = (8, 16, 24, 32)
_POWER_FLOOR = 1e-3  # far below the 1/12 of rounding to whole grey levels

JPEG_PERIOD = frozenset(
    {f"log_peak_{kind}_1_{order}" for kind in ("max", "median") for order in (2, 4, 8)} | {"autocorrelation_period_8"}
)
"""Features that JPEG's own 8 px blocks raise."""


@dataclass(frozen=True, slots=True)
class Measurement:
    """What was measured on one image.

    `values` by feature name; `radial` ln mean power by annulus minus its value at 0.1 cycles/px,
    (64,) float64;
    `power` the luma's half-plane power (H, W/2 + 1) float32, for the panel.
    """

    values: dict[str, float]
    radial: Float64
    power: Float32


def not_applicable(luma: Float32) -> str | None:
    """Why the spectrum of this luma (H, W) says nothing, or None; such an image is neither real nor fake."""
    if min(luma.shape) < MIN_SIDE_PX:
        return f"shorter side is {min(luma.shape)} px, below {MIN_SIDE_PX}"
    area = kernel.analysed_area(luma)
    if float(area.std(dtype=np.float64)) < FLAT_STD:
        return f"flat: luma standard deviation below {FLAT_STD:g}"
    for axis, lines in ((1, "rows"), (0, "columns")):
        share = _bar_share(np.ptp(area, axis=axis))
        if share > BAR_SHARE:
            return f"letterboxed: {share:.0%} of the {lines} are constant bars"
    return None


def measure(luma: Float32) -> Measurement:
    """All features of the analysed area of luma (H, W), float32, 0..255; both sides at least 16 px."""
    area = kernel.analysed_area(luma)
    power = kernel.power_spectrum(area)
    residual_power = kernel.power_spectrum(kernel.cross_difference(area))
    profiles = kernel.profiles(power)
    radial = np.log(profiles.radial + _POWER_FLOOR)
    radial = radial - radial[_ANCHOR].mean()
    values = {
        **_radial_features(radial),
        **_angular_features(np.log(profiles.angular + _POWER_FLOOR)),
        **_peak_features(residual_power),
        **_autocorrelation_features(residual_power),
    }
    return Measurement(values, radial, power)


def _bar_share(ranges: Float32) -> float:
    """Share of lines in the constant runs at both ends."""
    varying = np.flatnonzero(ranges > BAR_RANGE)
    if varying.size == 0:
        return 1.0
    return float(1.0 - (varying[-1] - varying[0] + 1) / ranges.size)


def _radial_features(radial: Float64) -> dict[str, float]:
    """Power-law exponent alpha over 0.1-0.45 cycles/px and what departs from the law, by band."""
    log_f = np.log(BIN_CENTRES)
    centred = log_f[_FIT] - log_f[_FIT].mean()
    slope = float(centred @ radial[_FIT] / (centred @ centred))
    residual = radial - radial[_FIT].mean() - slope * (log_f - log_f[_FIT].mean())
    hundredths = BIN_CENTRES * 100
    bands = {
        f"radial_residual_0.{low:02d}_0.{high:02d}": float(
            residual[np.logical_and(hundredths >= low, hundredths < high)].mean()
        )
        for low, high in _BANDS
    }
    return {"radial_slope_alpha": -slope, "top_octave_residual": float(residual[_TOP_OCTAVE].mean()), **bands}


def _angular_features(angular: Float64) -> dict[str, float]:
    axes = angular[[0, 8]].mean()
    diagonals = angular[[4, 12]].mean()
    return {
        "angular_spread": float(angular.std()),
        "angular_axis_excess": float(axes - angular.mean()),
        "angular_diagonal_excess": float(diagonals - angular.mean()),
    }


def _peak_features(residual_power: Float32) -> dict[str, float]:
    """Natural logarithms of the largest and the median peak ratio of each order."""
    ratios, orders = kernel.peak_ratios(residual_power)
    values: dict[str, float] = {}
    for order in (2, 4, 8, 16):
        of_order = np.log(ratios[orders == order])
        values[f"log_peak_max_1_{order}"] = float(of_order.max())
        values[f"log_peak_median_1_{order}"] = float(np.median(of_order))
    return values


def _autocorrelation_features(residual_power: Float32) -> dict[str, float]:
    """Excess at lags 8k over lags 8k +- 1, 2, meaned over both axes; period 16 is even k minus odd k."""
    excess = np.mean(
        [[_lag_excess(rho, lag) for lag in _LAGS_PX] for rho in kernel.axis_autocorrelation(residual_power)],
        axis=0,
    )
    return {
        "autocorrelation_period_8": float(excess.mean()),
        "autocorrelation_period_16": float(excess[1::2].mean() - excess[::2].mean()),
    }


def _lag_excess(rho: Float64, lag: int) -> float:
    near = [lag - 2, lag - 1, lag + 1, lag + 2]
    return float(rho[lag] - rho[near].mean()) if lag + 2 < rho.size else 0.0


NAMES: tuple[str, ...] = (
    "radial_slope_alpha",
    "top_octave_residual",
    *(f"radial_residual_0.{low:02d}_0.{high:02d}" for low, high in _BANDS),
    "angular_spread",
    "angular_axis_excess",
    "angular_diagonal_excess",
    *(f"log_peak_{kind}_1_{order}" for order in (2, 4, 8, 16) for kind in ("max", "median")),
    "autocorrelation_period_8",
    "autocorrelation_period_16",
)
"""Every feature, in the order of `Measurement.values`."""


def names_for(mask_jpeg_grid: bool) -> tuple[str, ...]:
    """The features that count: without those at JPEG's period when the codec's grid is masked."""
    return tuple(name for name in NAMES if not (mask_jpeg_grid and name in JPEG_PERIOD))
