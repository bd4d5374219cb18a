"""Views of an image: native crops, saved the way a test or a training set asks for."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping

import cv2
import numpy as np

from pipeline.detection.classifier.preprocess import Pixels
from pipeline.evaluation.robustness.hard_reals import retouched, screenshot
from pipeline.media.encode import Codec, reencode, rescale, resize

CROP_PX = 256
CROPS = 9
LARGE_CROP_PX = 384
CANDIDATES = 25
THUMBNAIL_PX = 400


def rng_of(*parts: object) -> np.random.Generator:
    """A generator seeded by what it is for: independent of order and of the other draws."""
    digest = hashlib.sha256("\x1f".join(map(str, parts)).encode()).digest()
    return np.random.default_rng(int.from_bytes(digest[:8], "big"))


def padded(rgb: Pixels, size_px: int) -> Pixels:
    """Reflected about its borders up to `size_px` a side."""
    down, right = (max(0, size_px - side) for side in rgb.shape[:2])
    if not down and not right:
        return rgb
    pads = ((down // 2, down - down // 2), (right // 2, right - right // 2), (0, 0))
    return np.pad(rgb, pads, mode="reflect")


def lattice_crops(rgb: Pixels, rng: np.random.Generator, size_px: int = CROP_PX, count: int = CROPS) -> Pixels:
    """`count` (a square number) native crops on a lattice over the image, each moved by a few pixels off any grid.

    uint8 (H, W, 3) to uint8 (count, S, S, 3). The random phase keeps a model from learning where blocks lie.
    """
    rgb = padded(rgb, size_px)
    side = round(count**0.5)
    free = [length - size_px for length in rgb.shape[:2]]
    cuts = []
    for row in range(side):
        for column in range(side):
            top, left = (
                min(room, int(room * place / max(1, side - 1)) + int(rng.integers(0, 8)))
                for room, place in zip(free, (row, column), strict=True)
            )
            cuts.append(rgb[top : top + size_px, left : left + size_px])
    return np.stack(cuts)


def saved(crops: Pixels, codec: Codec, quality: int) -> Pixels:
    """Every crop through the codec and back."""
    return np.stack([reencode(crop, codec, quality) for crop in crops])


def textured_crops(rgb: Pixels, rng: np.random.Generator, size_px: int = CROP_PX, count: int = CROPS) -> Pixels:
    """The half (rounded up) of `count` crops with the most texture out of a dense lattice, then a coarse lattice.

    uint8 (H, W, 3) to uint8 (count, S, S, 3). Texture is the mean absolute difference of neighbouring pixels.
    """
    candidates = lattice_crops(rgb, rng, size_px, CANDIDATES)
    grey = candidates.mean(3, dtype=np.float32)
    texture = np.abs(np.diff(grey, axis=1)).mean((1, 2)) + np.abs(np.diff(grey, axis=2)).mean((1, 2))
    picked = candidates[np.argsort(-texture, kind="stable")[: (count + 1) // 2]]
    return np.concatenate([picked, lattice_crops(rgb, rng, size_px, count)[::2][: count - len(picked)]])


def _fixed(codec: Codec, quality: int) -> Callable[[Pixels, str], Pixels]:
    return lambda rgb, key: saved(lattice_crops(rgb, rng_of(key, "place")), codec, quality)


def _denoised(rgb: Pixels, rng: np.random.Generator) -> Pixels:
    """Non-local means (Buades, Coll, Morel 2005), as phones and editors do it."""
    strength = float(rng.uniform(3, 10))
    return np.asarray(cv2.fastNlMeansDenoisingColored(np.ascontiguousarray(rgb), None, strength, strength, 5, 13))


def _upscaled(rgb: Pixels, rng: np.random.Generator) -> Pixels:
    height, width = rgb.shape[:2]
    top, left = height // 5, width // 5
    return rescale(rgb[top : height - top, left : width - left], float(rng.uniform(1.4, 2.2)), "lanczos")


def _sharpened(rgb: Pixels, rng: np.random.Generator) -> Pixels:
    smooth = cv2.GaussianBlur(rgb, (0, 0), 1.5)
    amount = float(rng.uniform(0.5, 1.5))
    return np.asarray(cv2.addWeighted(rgb, 1 + amount, smooth, -amount, 0))


_HARDER = (_denoised, _upscaled, _sharpened, retouched, screenshot)


def _hard(rgb: Pixels, key: str) -> Pixels:
    """A photograph worked on by hand, shown on a screen or enlarged: still a photograph."""
    rng = rng_of(key, "hard")
    worked = _HARDER[int(rng.integers(len(_HARDER)))](rgb, rng)
    return saved(lattice_crops(worked, rng), "jpeg", int(rng.integers(75, 97)))


def _large(rgb: Pixels, key: str) -> Pixels:
    return saved(lattice_crops(rgb, rng_of(key, "place"), LARGE_CROP_PX), "jpeg", 90)


def _textured(rgb: Pixels, key: str) -> Pixels:
    return saved(textured_crops(rgb, rng_of(key, "textured")), "jpeg", 90)


def _saved_twice(rgb: Pixels, key: str) -> Pixels:
    """The crops of `q90` as they are after one more save."""
    return saved(VIEWS["q90"](rgb, key), "jpeg", 75)


def _high_quality(rgb: Pixels, key: str) -> Pixels:
    rng = rng_of(key, "high")
    return saved(lattice_crops(rgb, rng), "jpeg", int(rng.integers(80, 97)))


def _low_quality(rgb: Pixels, key: str) -> Pixels:
    rng = rng_of(key, "low")
    codec: Codec = "webp" if rng.random() < 0.4 else "jpeg"
    return saved(lattice_crops(rgb, rng), codec, int(rng.integers(40, 85)))


def _resized(rgb: Pixels, key: str) -> Pixels:
    """0.4-1.4 of the size, never below a crop on the shorter side unless it was, then saved once."""
    rng = rng_of(key, "resized")
    low = min(1.0, max(0.4, CROP_PX / min(rgb.shape[:2])))
    factor = float(rng.uniform(low, 1.4))
    kind = ("bilinear", "bicubic", "lanczos")[int(rng.integers(3))]
    scaled = rescale(rgb, factor, kind)  # type: ignore[arg-type]  # one of the three names above
    return saved(lattice_crops(scaled, rng), "jpeg", int(rng.integers(70, 97)))


def thumbnail(rgb: Pixels, size_px: int = THUMBNAIL_PX, quality: int = 80) -> Pixels:
    """The whole image at `size_px` on its longer side, through lossy WebP: what the web shows."""
    height, width = rgb.shape[:2]
    factor = min(1.0, size_px / max(height, width))
    small = resize(rgb, max(1, round(height * factor)), max(1, round(width * factor)), "lanczos")
    return reencode(small, "webp", quality)


def _thumbnail(rgb: Pixels, key: str) -> Pixels:
    return lattice_crops(thumbnail(rgb), rng_of(key, "place"))


def _content_only(rgb: Pixels, key: str) -> Pixels:
    """The trace-free control: 48 px and back; what a probe still tells apart there is content."""
    crops = lattice_crops(rgb, rng_of(key, "place"))
    blurred = [resize(resize(crop, 48, 48, "box"), CROP_PX, CROP_PX) for crop in crops]
    return saved(np.stack(blurred), "jpeg", 90)


VIEWS: Mapping[str, Callable[[Pixels, str], Pixels]] = {
    "q90": _fixed("jpeg", 90),
    "q75": _fixed("jpeg", 75),
    "q90-384": _large,
    "textured": _textured,
    "q90-q75": _saved_twice,
    "png": _fixed("png", 0),
    "high": _high_quality,
    "low": _low_quality,
    "hard": _hard,
    "resized": _resized,
    "thumbnail": _thumbnail,
    "content": _content_only,
}
"""View name -> crops of an image, uint8 (9, S, S, 3), S 256 but for q90-384.

The key (the file's digest) seeds every draw.
"""
