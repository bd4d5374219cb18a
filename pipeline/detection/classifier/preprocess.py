"""Pixels -> crops. The one function that training, calibration and serving share."""

from __future__ import annotations

from typing import Annotated, TypeAlias

import numpy as np
import numpy.typing as npt
from pydantic import BaseModel, ConfigDict, Field

Pixels: TypeAlias = npt.NDArray[np.uint8]

MAX_OVERLAP = 0.5
"""A further crop must show at least half new pixels with regard to each earlier one."""


class CropSpec(BaseModel):
    """Which squares the classifier looks at."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    size_px: Annotated[int, Field(ge=32, le=1024, description="side of a square crop, native pixels")] = 256
    max_crops: Annotated[int, Field(ge=1, le=9, description="centre first, then corners, then middles of edges")] = 4


def crops(rgb: Pixels, spec: CropSpec) -> Pixels:
    """Cut native-pixel squares; nothing is resized, because resizing moves or erases a generator's traces.

    Order: centre, top left, bottom right, top right, bottom left, then the middles of top, bottom, left and right
    edge. One that overlaps an earlier crop by more than half is left out. Sides shorter than a crop are reflected
    about their borders.

    Args:
        rgb: uint8 (H, W, 3).
        spec: size and number.

    Returns:
        uint8 (K, S, S, 3), contiguous, 1 <= K <= `spec.max_crops`.

    Raises:
        ValueError: `rgb` has another shape or dtype, or no pixels.
    """
    if rgb.ndim != 3 or rgb.shape[2] != 3 or rgb.dtype != np.uint8 or 0 in rgb.shape:
        raise ValueError(f"rgb: expected uint8 (H, W, 3) with pixels, got {rgb.dtype} {rgb.shape}")
    padded = _reflect_to(rgb, spec.size_px)
    corners = _origins(padded.shape[0], padded.shape[1], spec)
    size = spec.size_px
    return np.stack([padded[top : top + size, left : left + size] for top, left in corners])


def _reflect_to(rgb: Pixels, size_px: int) -> Pixels:
    height, width = rgb.shape[:2]
    if height >= size_px and width >= size_px:
        return rgb
    down, right = max(0, size_px - height), max(0, size_px - width)
    return np.pad(rgb, ((down // 2, down - down // 2), (right // 2, right - right // 2), (0, 0)), mode="reflect")


def _origins(height: int, width: int, spec: CropSpec) -> list[tuple[int, int]]:
    bottom, right = height - spec.size_px, width - spec.size_px
    kept: list[tuple[int, int]] = []
    middle, centre = bottom // 2, right // 2
    corners = ((0, 0), (bottom, right), (0, right), (bottom, 0))
    edges = ((0, centre), (bottom, centre), (middle, 0), (middle, right))
    for candidate in ((middle, centre), *corners, *edges):
        if len(kept) < spec.max_crops and all(_overlap(candidate, k, spec.size_px) <= MAX_OVERLAP for k in kept):
            kept.append(candidate)
    return kept


def _overlap(a: tuple[int, int], b: tuple[int, int], size_px: int) -> float:
    down, right = (max(0, size_px - abs(x - y)) for x, y in zip(a, b, strict=True))
    return down * right / size_px**2
