"""Autocorrelation along both axes, and how far it rises at the periods of a decoder's grid."""

from __future__ import annotations

from functools import lru_cache

import cv2
import numpy as np
import scipy.fft

from pipeline.detection.spectral.kernel import Float64, Pixels

LAGS_PX = (8, 16, 24, 32)
"""Lags whose rise over their neighbours is measured."""


def axis_autocorrelation(power: Pixels) -> tuple[Float64, Float64]:
    """Autocorrelation along x and along y at lags 0 ... N/2, 1 at lag 0.

    The circular autocorrelation on an axis is the inverse transform of the power summed over the other axis.
    """
    along_x = cv2.reduce(power, 0, cv2.REDUCE_SUM, dtype=cv2.CV_64F)[0]
    along_y = cv2.reduce(power, 1, cv2.REDUCE_SUM, dtype=cv2.CV_64F)[:, 0] - 0.5 * (power[:, 0] + power[:, -1])
    along_y = along_y + np.roll(along_y[::-1], 1)
    return _normalised(scipy.fft.irfft(along_x)), _normalised(scipy.fft.irfft(along_y[: along_y.size // 2 + 1]))


def period_excess(power: Pixels) -> list[float]:
    """Excess at lags 8k over lags 8k +- 1, 2, meaned over both axes; period 16 is even k minus odd k."""
    along_x, along_y = axis_autocorrelation(power)
    excess = 0.5 * (_lag_excess(along_x) + _lag_excess(along_y))
    return [float(excess.mean()), float(excess[1::2].mean() - excess[::2].mean())]


def _normalised(correlation: Float64) -> Float64:
    zero_lag = correlation[0] if correlation[0] > 0 else 1.0
    result: Float64 = correlation[: correlation.size // 2 + 1] / zero_lag
    return result


def _lag_excess(rho: Float64) -> Float64:
    lags = min(rho.size, LAGS_PX[-1] + 3)
    excess: Float64 = _lag_map(lags) @ rho[:lags]
    return excess


@lru_cache(maxsize=8)
def _lag_map(lags: int) -> Float64:
    """Rows that take lag 8k less the mean of lags 8k +- 1, 2; of zeros where there are too few lags, (4, lags)."""
    rows = np.zeros((len(LAGS_PX), lags))
    for row, lag in zip(rows, LAGS_PX, strict=True):
        if lags > lag + 2:
            row[[lag - 2, lag - 1, lag, lag + 1, lag + 2]] = -0.25, -0.25, 1.0, -0.25, -0.25
    rows.flags.writeable = False
    return rows
