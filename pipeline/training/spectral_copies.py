"""Copies of labelled images in every stratum, and what the spectral tier measures on them.

Two kinds, for two questions:

- `delivered`: the whole photograph as it may reach the pipeline, in every codec, once at its own scale and once
  rescaled by 0.5-1.5. They are the reference distribution.
- `alike`: for the head. Photographs and generated images reach a data set in different formats and sizes, which alone
  would give the label away, so both are cut to a common size and encoded alike, and their former life is blurred
  alike. JPEG below 95 and WebP: half of the copies as they are, half rescaled by 0.75-0.95 before the last encoding.
  JPEG 95 and lossless, where an older JPEG's grid would show: half rescaled, half sent through one more JPEG of a
  random quality and cut off its grid.

What is drawn for a copy depends on the image's digest and the copy alone. Colourless copies are left out, because
they lack the features of colour.
"""

from __future__ import annotations

import hashlib
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, fields
from pathlib import Path

import numpy as np
import numpy.typing as npt
from PIL import Image

from pipeline.detection.spectral import features, kernel, strata
from pipeline.detection.spectral.kernel import Float64
from pipeline.media.decode import decode_image
from pipeline.media.encode import Pixels, encode, reencode, resize
from pipeline.media.errors import MediaError
from pipeline.training.dataset import Labelled

RECIPE = 1
"""Raise it when a copy would come out differently: measurements are kept by recipe."""

DELIVERED, ALIKE = "delivered", "alike"
CROP_SIZES_PX = (256, 384)
SCALES = (0.5, 1.5)
QUALITIES = {
    strata.JPEG_95: (95, 97),
    strata.JPEG_85: (85, 90),
    strata.JPEG_70: (70, 75),
    strata.JPEG_LOW: (50, 60),
}
WEBP_QUALITY = 80
FORMER_QUALITIES = (75, 85, 92, 96)
_FILTER_REACH_PX = 8  # Lanczos reaches 3 px of the smaller image

Flags = npt.NDArray[np.bool_]


@dataclass(frozen=True, slots=True)
class Copies:
    """What was measured on n copies.

    `image` row numbers, `kind`, `codec` and `size` buckets, `setting` such as `jpeg q75`, `scale`, all (n,);
    `values` (n, F) in the order of `features.NAMES`; `radial` (n, 64); `former_quality` (n,) the JPEG quality of the
    original, -1 for a lossless one.
    """

    image: npt.NDArray[np.int64]
    kind: npt.NDArray[np.str_]
    codec: npt.NDArray[np.str_]
    size: npt.NDArray[np.str_]
    setting: npt.NDArray[np.str_]
    scale: Float64
    values: Float64
    radial: Float64
    former_quality: npt.NDArray[np.int64]

    def __getitem__(self, chosen: Flags) -> Copies:
        """The chosen copies."""
        return Copies(*(getattr(self, f.name)[chosen] for f in fields(self)))

    def __len__(self) -> int:
        """How many."""
        return self.image.size

    @classmethod
    def joined(cls, several: Sequence[Copies]) -> Copies:
        """All of them, in order."""
        return cls(*(np.concatenate([getattr(c, f.name) for c in several]) for f in fields(cls)))


@dataclass(frozen=True, slots=True)
class EncodedCopy:
    """A copy's bytes, `kind`, `setting` such as `jpeg q75`, and the `scale` it was resized by."""

    data: bytes
    kind: str
    setting: str
    scale: float


def readable(rows: Sequence[Labelled]) -> list[Labelled]:
    """The rows whose files the pipeline's own decoder accepts; the others are named on standard error."""
    kept: list[Labelled] = []
    for row in rows:
        try:
            decode_image(row.path.read_bytes())
        except MediaError as error:
            sys.stderr.write(f"left out {row.path.name}: {error}\n")
        else:
            kept.append(row)
    return kept


def measure_copies(rows: Sequence[Labelled], cache: Path) -> Copies:
    """Every usable copy of every image; what was measured before is read from the directory `cache`.

    Raises:
        ValueError: a file is not the one that the manifest names.
    """
    cache.mkdir(parents=True, exist_ok=True)
    version = _features_version()
    measured: list[Copies] = []
    for number, row in enumerate(rows):
        path = cache / f"{row.sha256[:32]}-{RECIPE}-{version}.npz"
        if not path.exists():
            _save(_measure(row), path)
        measured.append(_load(path, number))
        if number % 50 == 49:
            sys.stderr.write(f"{number + 1} of {len(rows)} images measured\n")
    return Copies.joined(measured)


def _features_version() -> str:
    """Of the names and of what is measured on one fixed image: no value of older code is taken for a new one."""
    pixels = np.random.default_rng(0).integers(0, 256, (144, 160, 3), np.uint8)
    probe = decode_image(encode(pixels, "jpeg", 75))
    values = features.measure(probe.luma, probe.rgb).values
    text = "\n".join(f"{name} {value:.4f}" for name, value in values.items())
    return hashlib.sha256(text.encode()).hexdigest()[:12]


def columns(codec: str) -> list[int]:
    """Columns of `Copies.values` that count for a codec."""
    return [features.NAMES.index(name) for name in features.names_for(strata.masks_jpeg_grid(codec))]


def _measure(row: Labelled) -> Copies:
    original = decode_image(row.path.read_bytes())
    if original.facts.sha256 != row.sha256:
        raise ValueError(f"{row.path}: sha256 differs from manifest.jsonl; fetch the data again")
    rows: list[tuple[str, str, str, str, float]] = []
    values: list[list[float]] = []
    radial: list[Float64] = []
    for copy in copies_of(original.rgb, row.sha256, (ALIKE,) if row.synthetic else (DELIVERED, ALIKE)):
        image = decode_image(copy.data)
        if features.not_applicable(image.luma) is not None:
            continue
        measurement = features.measure(image.luma, image.rgb)
        if not measurement.colourless:
            area = kernel.analysed_area(image.luma)
            codec, _, size = strata.stratum(image.facts, area.shape).partition("/")
            rows.append((copy.kind, codec, size, copy.setting, copy.scale))
            values.append([measurement.values[name] for name in features.NAMES])
            radial.append(measurement.radial)
    n = len(rows)
    quality = -1 if original.facts.jpeg_quality is None else original.facts.jpeg_quality
    kind, codec_of, size_of, setting = (np.array([r[i] for r in rows], dtype=np.str_) for i in range(4))
    return Copies(
        np.zeros(n, np.int64),
        kind,
        codec_of,
        size_of,
        setting,
        np.array([r[4] for r in rows], np.float64),
        np.array(values, np.float64).reshape(n, len(features.NAMES)),
        np.array(radial, np.float64).reshape(n, kernel.RADIAL_BINS),
        np.full(n, quality, np.int64),
    )


def _save(copies: Copies, path: Path) -> None:
    partial = path.with_suffix(".partial")
    with partial.open("wb") as file:
        np.savez_compressed(file, allow_pickle=False, **{f.name: getattr(copies, f.name) for f in fields(copies)})
    partial.replace(path)


def _load(path: Path, number: int) -> Copies:
    with np.load(path, allow_pickle=False) as archive:
        arrays = {f.name: archive[f.name] for f in fields(Copies)}
    arrays["image"] = np.full(arrays["image"].size, number)
    return Copies(**arrays)


def copies_of(rgb: Pixels, sha256: str, kinds: Sequence[str]) -> Iterator[EncodedCopy]:
    """Copies of uint8 (H, W, 3) of these kinds; the digest of the original seeds what is drawn."""
    seed = int(sha256[:15], 16)
    for number, codec in enumerate(strata.CODECS if DELIVERED in kinds else ()):
        rng = np.random.default_rng([seed, 0, number])
        for scale in (1.0, float(rng.uniform(*SCALES))):
            yield _encoded(_rescaled(rgb, scale), codec, rng, DELIVERED, scale)
    for size in CROP_SIZES_PX if ALIKE in kinds else ():
        for number, codec in enumerate(strata.CODECS):
            rng = np.random.default_rng([seed, size, number])
            cut = treated(rgb, size, rng, hide_old_grid=not strata.masks_jpeg_grid(codec))
            if cut is not None:
                yield _encoded(cut, codec, rng, ALIKE, 1.0)


def _rescaled(rgb: Pixels, scale: float) -> Pixels:
    """Rescaled; first cut to what the result's analysed area can show, which saves time with large originals."""
    limit = int(np.ceil((kernel.MAX_SIDE_PX + 64) / scale))
    height, width = rgb.shape[:2]
    top, left = max(0, (height - limit) // 2), max(0, (width - limit) // 2)
    cut = np.ascontiguousarray(rgb[top : top + limit, left : left + limit])
    if scale == 1.0:
        return cut
    return resize(cut, max(1, round(cut.shape[0] * scale)), max(1, round(cut.shape[1] * scale)), "bicubic")


def treated(rgb: Pixels, size: int, rng: np.random.Generator, hide_old_grid: bool) -> Pixels | None:
    """A crop of size x size after the common treatment, or None where the image is too small for it."""
    shorter = min(rgb.shape[:2])
    if rng.random() < 0.5:
        scale = max(rng.uniform(0.75, 0.95), size / shorter)
        if scale > 0.95:
            return None
        height, width = (max(size, round(side * scale)) for side in rgb.shape[:2])
        top, left = _drawn_corner((height, width), size, rng)
        return _cut_of_resized(rgb, (height, width), (top, left), size)
    if not hide_old_grid:
        return _random_crop(rgb, size, rng) if shorter >= size else None
    if shorter < size + 8:
        return None
    wider = reencode(_random_crop(rgb, size + 8, rng), "jpeg", int(rng.choice(FORMER_QUALITIES)))
    top, left = rng.integers(1, 8, size=2)
    return wider[top : top + size, left : left + size]


def _random_crop(rgb: Pixels, size: int, rng: np.random.Generator) -> Pixels:
    top, left = _drawn_corner((rgb.shape[0], rgb.shape[1]), size, rng)
    return np.ascontiguousarray(rgb[top : top + size, left : left + size])


def _drawn_corner(shape: tuple[int, int], size: int, rng: np.random.Generator) -> tuple[int, int]:
    return int(rng.integers(shape[0] - size + 1)), int(rng.integers(shape[1] - size + 1))


def _cut_of_resized(rgb: Pixels, shape: tuple[int, int], corner: tuple[int, int], size: int) -> Pixels:
    """The crop of the image resized to `shape`, at the cost of the crop: what the filter reaches is resized too."""
    low = [max(0, start - _FILTER_REACH_PX) for start in corner]
    high = [min(side, start + size + _FILTER_REACH_PX) for start, side in zip(corner, shape, strict=True)]
    factor = [given / side for given, side in zip(rgb.shape[:2], shape, strict=True)]
    box = (low[1] * factor[1], low[0] * factor[0], high[1] * factor[1], high[0] * factor[0])
    target = (high[1] - low[1], high[0] - low[0])
    resized = np.asarray(Image.fromarray(rgb).resize(target, Image.Resampling.LANCZOS, box=box))
    top, left = corner[0] - low[0], corner[1] - low[1]
    return np.ascontiguousarray(resized[top : top + size, left : left + size])


def _encoded(rgb: Pixels, codec: str, rng: np.random.Generator, kind: str, scale: float) -> EncodedCopy:
    if codec == strata.LOSSLESS:
        return EncodedCopy(encode(rgb, "png"), kind, "png", scale)
    if codec == strata.WEBP:
        return EncodedCopy(encode(rgb, "webp", WEBP_QUALITY), kind, f"webp q{WEBP_QUALITY}", scale)
    quality = int(rng.choice(QUALITIES[codec]))
    return EncodedCopy(encode(rgb, "jpeg", quality), kind, f"jpeg q{quality}", scale)
