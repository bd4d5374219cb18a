"""Training pairs: a photograph's crop against the same crop through a decoder, both degraded alike."""

from __future__ import annotations

import logging
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Annotated, Protocol, TypeAlias, TypeVar

import numpy as np
from PIL import Image, UnidentifiedImageError
from pydantic import BaseModel, ConfigDict, Field

from pipeline.media.encode import Pixels, reencode
from pipeline.training.dataset import Labelled, read_pixels
from pipeline.training.degrade import (
    BLOCK_PX,
    DegradeSettings,
    cut,
    draw,
    psnr,
    shrink_limits,
    softened_to,
    without_jpeg_history,
)
from pipeline.training.probe.views import rng_of

Reconstruct: TypeAlias = Callable[[Pixels], Pixels]
"""uint8 (H, W, 3) through an encoder and a decoder to uint8 (H, W, 3)."""

LABELLED = "labelled"
"""The family of a pair whose synthetic side is a generated image and not a reconstruction."""

PHASE_PX = 16
"""A region is larger than its crop by so much, so that the crop lies off every codec's and decoder's grid."""

_log = logging.getLogger(__name__)
Probabilities: TypeAlias = np.ndarray[tuple[int], np.dtype[np.float64]]
_T = TypeVar("_T")


class PairSettings(BaseModel):
    """How pairs are made. The two controls may be switched off, to measure what they change."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    size_px: Annotated[int, Field(ge=32, le=1024, description="side of a crop, native pixels")] = 192
    seed: Annotated[int, Field(ge=0, description="decides every draw")] = 0
    degrade: Annotated[DegradeSettings, Field(description="what both sides go through")] = DegradeSettings()
    shrink_jpegs: Annotated[
        bool, Field(description="JPEG-history control: shrink lossy photographs off-grid before they are paired")
    ] = True
    matched_negatives: Annotated[
        bool, Field(description="detail control: add the photograph softened to the reconstruction's PSNR as real")
    ] = True


@dataclass(frozen=True, slots=True)
class Pair:
    """Crops of one size, codec and degradation, uint8 (S, S, 3).

    `synthetic` is the reconstruction of `real`, or for the family `labelled` a generated image; `matched` is
    `real` softened to the PSNR of `synthetic`, to be learnt as real, if that control is on. `source` is the
    photograph's collection.
    """

    real: Pixels
    synthetic: Pixels
    family: str
    source: str
    matched: Pixels | None = None


class PairSource(Protocol):
    """Where a trainer's pairs come from."""

    def pair(self, number: int) -> Pair:
        """The pair of that number, the same each time."""


class PairSampler:
    """Pairs by number: `pair(n)` depends on the settings and on n alone, so runs resume and processes share out.

    Args:
        photographs: rows with `synthetic` false.
        families: name -> reconstruction.
        settings: see `PairSettings`.
        family_weights: how often a family is drawn; one that is not named weighs 1.
        source_weights: how often a source is drawn; one that is not named weighs 1. Within it, all images alike.

    Raises:
        ValueError: no family, a negative or unknown weight, or no photograph large enough.
    """

    def __init__(
        self,
        photographs: Sequence[Labelled],
        families: Mapping[str, Reconstruct],
        settings: PairSettings,
        family_weights: Mapping[str, float] | None = None,
        source_weights: Mapping[str, float] | None = None,
    ) -> None:
        if not families:
            raise ValueError("families: none given; name at least one decoder or upsampler")
        self.settings = settings
        self._families = dict(families)
        real = [row for row in photographs if not row.synthetic]
        usable = [row for row in real if _is_usable(row, settings)]
        self.left_out = len(real) - len(usable)
        """Photographs that are too small for the settings."""
        if self.left_out:
            _log.warning("%d of %d photographs are too small for a pair", self.left_out, len(real))
        if not usable:
            raise ValueError(f"photographs: none of {len(real)} gives {settings.size_px} px; lower size_px")
        self._by_source = by_source(usable)
        self._family_shares = shares(self._families, family_weights, "family_weights")
        self._source_shares = shares(self._by_source, source_weights, "source_weights")

    def pair(self, number: int) -> Pair:
        """The pair of that number."""
        rng = rng_of("pair", self.settings.seed, number)
        row = _drawn(rng, self._by_source[_drawn(rng, list(self._by_source), self._source_shares)])
        family = _drawn(rng, list(self._families), self._family_shares)
        return self._make(row, family, rng)

    def pairs(self, start: int = 0, stop: int | None = None, step: int = 1) -> Iterator[Pair]:
        """Pairs `start`, `start + step`, ... below `stop`; without `stop`, for ever."""
        number = start
        while stop is None or number < stop:
            yield self.pair(number)
            number += step

    def _make(self, row: Labelled, family: str, rng: np.random.Generator) -> Pair:
        settings = self.settings
        rgb = read_pixels(row)
        if settings.shrink_jpegs and not is_lossless(row):
            rgb = without_jpeg_history(rgb, rng, settings.size_px)
        degradation = draw(rng, settings.degrade, settings.size_px / min(rgb.shape[:2]))
        region = random_region(rgb, settings.size_px, degradation.factor, rng)
        rebuilt = self._families[family](region)
        if rebuilt.shape != region.shape or rebuilt.dtype != np.uint8:
            raise ValueError(f"{family}: gave {rebuilt.dtype} {rebuilt.shape} for uint8 {region.shape}")
        sides = [region, rebuilt]
        if settings.matched_negatives:
            sides.append(softened_to(region, psnr(region, rebuilt), rng)[0])
        crops = crop_alike([degradation.apply(side) for side in sides], settings.size_px, rng)
        return Pair(crops[0], crops[1], family, row.source, crops[2] if settings.matched_negatives else None)


class LabelledSampler:
    """A photograph and a generated image, of one crop size and one degradation, by number like `PairSampler`.

    With `shrink_jpegs`, each image that is stored lossless is first saved as JPEG at a random quality and cut off
    the grid, so that having been a JPEG once says nothing.

    Args:
        rows: photographs and generated images.
        settings: see `PairSettings`; `matched_negatives` has no meaning here.
        generator_weights: how often a generator (decoder family where known) is drawn; not named: 1.
        source_weights: how often a source of photographs is drawn; not named: 1.

    Raises:
        ValueError: a class without an image that is large enough, or an unknown weight.
    """

    def __init__(
        self,
        rows: Sequence[Labelled],
        settings: PairSettings,
        generator_weights: Mapping[str, float] | None = None,
        source_weights: Mapping[str, float] | None = None,
    ) -> None:
        self.settings = settings
        low = settings.size_px + BLOCK_PX
        usable = [row for row in rows if shorter_side_px(row) >= low]
        self._real = by_source([row for row in usable if not row.synthetic])
        self._generated = by_generator([row for row in usable if row.synthetic])
        for name, found in (("photographs", self._real), ("generated images", self._generated)):
            if not found:
                raise ValueError(f"rows: no {name} with a shorter side of {low} px; lower size_px or add some")
        self._source_shares = shares(self._real, source_weights, "source_weights")
        self._generator_shares = shares(self._generated, generator_weights, "generator_weights")

    def pair(self, number: int) -> Pair:
        """The pair of that number; `family` is `labelled`."""
        rng = rng_of("labelled", self.settings.seed, number)
        source = _drawn(rng, list(self._real), self._source_shares)
        generator = _drawn(rng, list(self._generated), self._generator_shares)
        rows = (_drawn(rng, self._real[source]), _drawn(rng, self._generated[generator]))
        images = [self._with_history(row, rng) for row in rows]
        size = self.settings.size_px
        degradation = draw(rng, self.settings.degrade, max(size / min(i.shape[:2]) for i in images))
        sides = [degradation.apply(random_region(i, size, degradation.factor, rng)) for i in images]
        crops = [crop_alike([side], size, rng)[0] for side in sides]
        return Pair(crops[0], crops[1], LABELLED, source)

    def _with_history(self, row: Labelled, rng: np.random.Generator) -> Pixels:
        rgb = read_pixels(row)
        if not self.settings.shrink_jpegs:
            return rgb
        if is_lossless(row):
            rgb = reencode(rgb, "jpeg", int(rng.integers(75, 97)))
        top, left = (int(offset) for offset in rng.integers(0, BLOCK_PX, 2))
        return np.ascontiguousarray(rgb[top:, left:])


class MixedSampler:
    """Reconstruction pairs and labelled pairs, by number; `labelled_share` of them are labelled."""

    def __init__(self, pairs: PairSampler, labelled: LabelledSampler, labelled_share: float = 0.5) -> None:
        if not 0.0 <= labelled_share <= 1.0:
            raise ValueError(f"labelled_share: {labelled_share} is not within [0, 1]")
        self.settings = pairs.settings
        self._pairs = pairs
        self._labelled = labelled
        self._share = labelled_share

    def pair(self, number: int) -> Pair:
        """The pair of that number."""
        is_labelled = rng_of("mix", self.settings.seed, number).random() < self._share
        return self._labelled.pair(number) if is_labelled else self._pairs.pair(number)


def random_region(rgb: Pixels, size_px: int, factor: float, rng: np.random.Generator) -> Pixels:
    """A square at a random place, off any grid, large enough for a crop and its phase after scaling by `factor`."""
    side = math.ceil((size_px + PHASE_PX) / factor)
    height, width = (min(side, length) for length in rgb.shape[:2])
    top = int(rng.integers(0, rgb.shape[0] - height + 1))
    left = int(rng.integers(0, rgb.shape[1] - width + 1))
    return cut(rgb, top, left, height, width)


def crop_alike(images: Sequence[Pixels], size_px: int, rng: np.random.Generator) -> list[Pixels]:
    """The same random square of images of one size."""
    height, width = images[0].shape[:2]
    top = int(rng.integers(0, height - size_px + 1))
    left = int(rng.integers(0, width - size_px + 1))
    return [cut(image, top, left, size_px, size_px) for image in images]


def shares(names: Mapping[str, object], weights: Mapping[str, float] | None, field: str) -> Probabilities:
    """Probabilities of the names, in their order.

    Raises:
        ValueError: a weight of no such name, a negative one, or all zero.
    """
    given = dict(weights or {})
    unknown = sorted(given.keys() - names.keys())
    if unknown:
        raise ValueError(f"{field}: {', '.join(unknown)}: no such name; there are {', '.join(names)}")
    raw = np.array([given.get(name, 1.0) for name in names], np.float64)
    if raw.min() < 0.0 or raw.sum() <= 0.0:
        raise ValueError(f"{field}: weights must not be negative, and one must be positive")
    found: Probabilities = raw / raw.sum()
    return found


def by_source(rows: Sequence[Labelled]) -> dict[str, list[Labelled]]:
    """Rows of each source, sources in order of their names."""
    return _grouped(rows, lambda row: row.source)


def by_generator(rows: Sequence[Labelled]) -> dict[str, list[Labelled]]:
    """Rows of each decoder family, else generator, else source."""
    return _grouped(rows, lambda row: row.family or row.generator or row.source)


def is_lossless(row: Labelled) -> bool:
    """Whether the file's format keeps every pixel; a lossless WebP counts as lossy, like every WebP."""
    return _header(row)[0] in {"PNG", "BMP", "TIFF", "PPM"}


def shorter_side_px(row: Labelled) -> int:
    """From the file's header."""
    return min(_header(row)[1])


def _grouped(rows: Sequence[Labelled], key: Callable[[Labelled], str]) -> dict[str, list[Labelled]]:
    groups: dict[str, list[Labelled]] = {}
    for row in sorted(rows, key=lambda r: (key(r), r.sha256)):
        groups.setdefault(key(row), []).append(row)
    return groups


def _header(row: Labelled) -> tuple[str, tuple[int, int]]:
    try:
        with Image.open(row.path) as image:
            return image.format or "", image.size
    except (OSError, UnidentifiedImageError) as error:
        raise ValueError(f"{row.path}: {error}; take it out of manifest.jsonl or fetch it again") from error


def _is_usable(row: Labelled, settings: PairSettings) -> bool:
    side = shorter_side_px(row)
    if settings.shrink_jpegs and not is_lossless(row):
        return shrink_limits(side, settings.size_px) is not None
    return side >= settings.size_px


def _drawn(rng: np.random.Generator, among: Sequence[_T], probabilities: Probabilities | None = None) -> _T:
    return among[int(rng.choice(len(among), p=probabilities))]
