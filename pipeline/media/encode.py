"""Pixels -> bytes and resized pixels: what training, evaluation and attacks do to an image on purpose."""

from __future__ import annotations

import io
from typing import Literal, TypeAlias

import numpy as np
import numpy.typing as npt
from PIL import Image

Pixels: TypeAlias = npt.NDArray[np.uint8]
Codec: TypeAlias = Literal["png", "jpeg", "webp"]
Subsampling: TypeAlias = Literal["4:4:4", "4:2:2", "4:2:0"]
Filter: TypeAlias = Literal["nearest", "bilinear", "bicubic", "lanczos", "box"]

_FILTERS = {
    "nearest": Image.Resampling.NEAREST,
    "bilinear": Image.Resampling.BILINEAR,
    "bicubic": Image.Resampling.BICUBIC,
    "lanczos": Image.Resampling.LANCZOS,
    "box": Image.Resampling.BOX,
}


def encode(rgb: Pixels, codec: Codec, quality: int = 90, subsampling: Subsampling = "4:2:0") -> bytes:
    """Bytes of uint8 (H, W, 3). `quality` 1-100 and `subsampling` count for the lossy codecs that have them."""
    buffer = io.BytesIO()
    image = Image.fromarray(rgb)
    if codec == "png":
        image.save(buffer, "PNG", compress_level=1)
    elif codec == "jpeg":
        image.save(buffer, "JPEG", quality=quality, subsampling=subsampling)
    else:
        image.save(buffer, "WEBP", quality=quality, method=4)
    return buffer.getvalue()


def decode(data: bytes) -> Pixels:
    """uint8 (H, W, 3) of trusted bytes: those of `encode`, or of a dataset. Media from outside: `decode_image`."""
    with Image.open(io.BytesIO(data)) as image:
        return np.asarray(image.convert("RGB"))


def reencode(rgb: Pixels, codec: Codec, quality: int = 90, subsampling: Subsampling = "4:2:0") -> Pixels:
    """Through the codec and back."""
    return decode(encode(rgb, codec, quality, subsampling))


def resize(rgb: Pixels, height: int, width: int, kind: Filter = "bicubic") -> Pixels:
    """To (height, width, 3), antialiased by Pillow when it shrinks (not with nearest)."""
    return np.asarray(Image.fromarray(rgb).resize((width, height), _FILTERS[kind]))


def rescale(rgb: Pixels, factor: float, kind: Filter = "bicubic") -> Pixels:
    """By a factor on both sides, at least 1 px."""
    height, width = rgb.shape[:2]
    return resize(rgb, max(1, round(height * factor)), max(1, round(width * factor)), kind)
