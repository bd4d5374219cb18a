"""What happens to both sides of a training pair alike: rescaling and saving; and the control of their JPEG history."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Annotated, Literal, TypeAlias

import cv2
import numpy as np
from pydantic import BaseModel, ConfigDict, Field

from pipeline.media.encode import Codec, Filter, Pixels, Subsampling, reencode, rescale

SHRINK = (0.35, 0.6)
"""Range of the factor that takes a JPEG's block grid and quantisation out of a photograph before it is paired."""

BLOCK_PX = 8
PSNR_TOLERANCE_DB = 0.25
_SEARCH_STEPS = 12
_FILTERS: tuple[Filter, ...] = ("bilinear", "bicubic", "lanczos", "box")
_SUBSAMPLINGS: tuple[Subsampling, ...] = ("4:2:0", "4:2:0", "4:4:4")

Quality = Annotated[int, Field(ge=1, le=100)]
Factor = Annotated[float, Field(gt=0.05, le=4.0)]
StageName: TypeAlias = Literal["lossless", "q98", "q90", "mixed"]
Softening: TypeAlias = Literal["denoised", "blurred", "resampled"]


class DegradeSettings(BaseModel):
    """Ranges that a degradation is drawn from."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    rescale: Annotated[tuple[Factor, Factor], Field(description="range of the factor on both sides")] = (0.4, 1.4)
    rescaled_share: Annotated[float, Field(ge=0.0, le=1.0, description="share of pairs that are rescaled")] = 0.6
    saves: Annotated[
        tuple[Annotated[int, Field(ge=0, le=5)], Annotated[int, Field(ge=0, le=5)]],
        Field(description="fewest and most lossy saves"),
    ] = (0, 2)
    quality: Annotated[tuple[Quality, Quality], Field(description="range of a save's quality")] = (30, 98)
    webp_share: Annotated[float, Field(ge=0.0, le=1.0, description="share of saves that are WebP, not JPEG")] = 0.3


STAGES: Mapping[StageName, DegradeSettings] = {
    "lossless": DegradeSettings(rescaled_share=0.0, saves=(0, 0)),
    "q98": DegradeSettings(rescaled_share=0.0, saves=(1, 1), quality=(98, 98), webp_share=0.0),
    "q90": DegradeSettings(rescaled_share=0.0, saves=(1, 1), quality=(90, 90), webp_share=0.0),
    "mixed": DegradeSettings(),
}
"""The curriculum, easy first; `mixed` is also what trains without a curriculum."""


@dataclass(frozen=True, slots=True)
class Save:
    """One pass through a lossy codec."""

    codec: Codec
    quality: int
    subsampling: Subsampling


@dataclass(frozen=True, slots=True)
class Degradation:
    """What was drawn. Applied to two images of one size it gives two images of one size, codec and history."""

    factor: float
    kind: Filter
    saves: tuple[Save, ...]

    def apply(self, rgb: Pixels) -> Pixels:
        """Rescale uint8 (H, W, 3), then save so many times."""
        if self.factor != 1.0:
            rgb = rescale(rgb, self.factor, self.kind)
        for save in self.saves:
            rgb = reencode(rgb, save.codec, save.quality, save.subsampling)
        return rgb


def draw(rng: np.random.Generator, settings: DegradeSettings, smallest_factor: float = 0.0) -> Degradation:
    """Draw a degradation whose factor leaves enough pixels.

    Args:
        rng: seeded by the pair.
        settings: the ranges.
        smallest_factor: below it, too few pixels would be left for a crop; may exceed the range's lower end.

    Raises:
        ValueError: not even the upper end of the range leaves enough pixels.
    """
    low, high = settings.rescale
    low = max(low, smallest_factor)
    rescaled = rng.random() < settings.rescaled_share or smallest_factor > 1.0
    if rescaled and low > high:
        raise ValueError(f"rescale {settings.rescale}: at least {smallest_factor:.2f} is needed for one crop")
    factor = float(rng.uniform(low, high)) if rescaled else 1.0
    count = int(rng.integers(settings.saves[0], settings.saves[1] + 1))
    saves = tuple(_save(rng, settings) for _ in range(count))
    return Degradation(factor, _FILTERS[int(rng.integers(len(_FILTERS)))], saves)


def _save(rng: np.random.Generator, settings: DegradeSettings) -> Save:
    codec: Codec = "webp" if rng.random() < settings.webp_share else "jpeg"
    quality = int(rng.integers(settings.quality[0], settings.quality[1] + 1))
    return Save(codec, quality, _SUBSAMPLINGS[int(rng.integers(len(_SUBSAMPLINGS)))])


def cut(rgb: Pixels, top: int, left: int, height: int, width: int) -> Pixels:
    """A contiguous native-pixel rectangle."""
    return np.ascontiguousarray(rgb[top : top + height, left : left + width])


def shrink_limits(shorter_side_px: int, needed_px: int) -> tuple[float, float] | None:
    """The part of `SHRINK` that leaves `needed_px`, off-grid cut included; None: the photograph is too small."""
    low = max(SHRINK[0], needed_px / max(1, shorter_side_px - (BLOCK_PX - 1)))
    return (low, SHRINK[1]) if low <= SHRINK[1] else None


def without_jpeg_history(rgb: Pixels, rng: np.random.Generator, needed_px: int) -> Pixels:
    """Cut 0-7 px off the top and left, so that the block grid has a random phase, then shrink by `SHRINK`.

    Raises:
        ValueError: fewer than `needed_px` pixels would be left on the shorter side.
    """
    limits = shrink_limits(min(rgb.shape[:2]), needed_px)
    if limits is None:
        raise ValueError(f"rgb: {rgb.shape[1]}x{rgb.shape[0]} px cannot shrink by {SHRINK[1]} to {needed_px} px")
    top, left = (int(offset) for offset in rng.integers(0, BLOCK_PX, 2))
    kind = _FILTERS[int(rng.integers(len(_FILTERS)))]
    off_grid = rgb[top:, left:]
    height, width = off_grid.shape[:2]
    factor = max(float(rng.uniform(*limits)), needed_px / min(height, width))
    return rescale(np.ascontiguousarray(off_grid), factor, kind)


def psnr(a: Pixels, b: Pixels) -> float:
    """Peak signal-to-noise ratio in dB over all channels; infinite for equal images."""
    error = float(np.mean((a.astype(np.float32) - b.astype(np.float32)) ** 2))
    return math.inf if error == 0.0 else 10.0 * math.log10(255.0**2 / error)


def softened_to(rgb: Pixels, target_db: float, rng: np.random.Generator) -> tuple[Pixels, Softening, float]:
    """A real negative that lost as much as a reconstruction did, by no decoder: blurred, denoised or resampled.

    The strength is found by bisection. With such negatives in training, a loss of detail is not the label.

    Args:
        rgb: uint8 (H, W, 3).
        target_db: the reconstruction's PSNR against `rgb`.
        rng: picks the way.

    Returns:
        The image, the way, and the PSNR reached: the nearest that was found. It misses the target by more than
        `PSNR_TOLERANCE_DB` where the weakest or the strongest setting does, and in small images, whose sizes step.
    """
    way: Softening = ("denoised", "blurred", "resampled")[int(rng.integers(3))]
    if math.isinf(target_db):
        return rgb, way, target_db
    soften = _SOFTEN[way]
    low, high = 0.0, 1.0
    best, best_db = rgb, math.inf
    for _ in range(_SEARCH_STEPS):
        middle = (low + high) / 2.0
        candidate = soften(rgb, middle)
        found_db = psnr(rgb, candidate)
        if abs(found_db - target_db) < abs(best_db - target_db):
            best, best_db = candidate, found_db
        if abs(found_db - target_db) <= PSNR_TOLERANCE_DB:
            break
        low, high = (middle, high) if found_db > target_db else (low, middle)
    return best, way, best_db


def _denoised(rgb: Pixels, strength: float) -> Pixels:
    """Bilateral filter; a range of 4 grey levels (nothing but noise goes) up to 400 (a Gaussian)."""
    found: Pixels = np.asarray(cv2.bilateralFilter(rgb, 11, 4.0 * 100.0**strength, 0.5 + 3.5 * strength), np.uint8)
    return found


def _blurred(rgb: Pixels, strength: float) -> Pixels:
    found: Pixels = np.asarray(cv2.GaussianBlur(rgb, (0, 0), 0.2 * 40.0**strength), np.uint8)
    return found


def _resampled(rgb: Pixels, strength: float) -> Pixels:
    """Down to (1 - .95 strength) of the size and back: nothing above the smaller image's Nyquist limit is left."""
    height, width = rgb.shape[:2]
    factor = 1.0 - 0.95 * strength
    small = (max(2, round(width * factor)), max(2, round(height * factor)))
    shrunk = cv2.resize(rgb, small, interpolation=cv2.INTER_AREA)
    found: Pixels = np.asarray(cv2.resize(shrunk, (width, height), interpolation=cv2.INTER_CUBIC), np.uint8)
    return found


_SOFTEN: Mapping[Softening, Callable[[Pixels, float], Pixels]] = {
    "denoised": _denoised,
    "blurred": _blurred,
    "resampled": _resampled,
}
