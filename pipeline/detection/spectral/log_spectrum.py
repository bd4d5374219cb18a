"""The spectral residual: the log spectrum minus its local average (Hou & Zhang 2007)."""

from __future__ import annotations

from functools import lru_cache

import cv2
import numpy as np

from pipeline.detection.spectral import kernel
from pipeline.detection.spectral.kernel import Int64, Pixels

BOX = 9
"""Side of the averaging box, in cells of the power spectrum."""

RANGE = (0.1, 0.5)
"""Radii in cycles/px that the moments are taken over."""

_FLOOR = 1e-3


def residual_moments(cells: Pixels, shape: tuple[int, int]) -> tuple[float, float, float]:
    """Standard deviation, skewness and maximum of R = ln P - box9(ln P) over the cells of a field of `shape` px."""
    inverse, inside = _table(*shape, cells.dtype.char)
    log_power = cells * inverse
    log_power += cells.dtype.type(_FLOOR)
    np.log(log_power, out=log_power)
    # Both axes are periodic: the left edge continues in the mirrored half plane, close enough by reflection.
    residual = cv2.subtract(log_power, cv2.blur(log_power, (BOX, BOX), borderType=cv2.BORDER_REFLECT_101))
    chosen = residual.reshape(-1).take(inside, mode="clip")  # in range as they are; the check costs a third
    largest = float(chosen.max())
    chosen -= chosen.dtype.type(cv2.mean(chosen)[0])
    squares = np.square(chosen)
    variance = cv2.mean(squares)[0]
    third = cv2.mean(np.multiply(squares, chosen, out=squares))[0]
    return float(np.sqrt(variance)), third / max(variance, 1e-12) ** 1.5, largest


@lru_cache(maxsize=64)
def _table(rows: int, columns: int, dtype: str) -> tuple[Pixels, Int64]:
    """One over the weights of the cells, and the flat indices of those within `RANGE`."""
    inverse: Pixels = (1.0 / kernel.cell_weights(rows, columns)).astype(dtype)
    radius = np.hypot(*kernel.cell_frequencies(rows, columns))
    inside = np.flatnonzero((radius >= RANGE[0]) & (radius < RANGE[1]))
    inverse.flags.writeable = inside.flags.writeable = False
    return inverse, inside
