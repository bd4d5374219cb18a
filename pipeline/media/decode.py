"""Pixels for forensics: what the file stores, nothing resampled, rotated, blended or colour-managed."""

from __future__ import annotations

import hashlib
import io
import warnings
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import (
    BmpImagePlugin,
    Image,
    ImageFile,
    ImageOps,
    JpegImagePlugin,
    MpoImagePlugin,
    PngImagePlugin,
    TiffImagePlugin,
    WebPImagePlugin,
)
from pydantic import BaseModel, ConfigDict, Field

from pipeline.media.decode_fast import fast_pixels
from pipeline.media.errors import MediaError
from pipeline.media.sniff import Sniffed, sniff
from schemas.decision import ReasonCode
from schemas.media import MediaFacts

MIN_SIDE_PX = 8
_FORMATS = {"png": "PNG", "jpeg": "JPEG", "webp": "WEBP", "tiff": "TIFF", "bmp": "BMP"}
_LUMA_BT601 = np.array((0.299, 0.587, 0.114), dtype=np.float32)
# By blocks, so that the float copy of a large image stays in the cache and out of the memory limit.
_LUMA_BLOCK_PIXELS = 65_536
_ORIENTATION, _BITS_PER_SAMPLE, _PHOTOMETRIC = 274, 258, 262
_WHITE_IS_ZERO = 0
_UNDO_ORIENTATION = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_90,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_270,
}

# Pillow imports its plugins, and some modules that they use, when they are first needed: too late in a process
# that may open no file any more.
_WARM = (
    BmpImagePlugin,
    ImageOps,
    JpegImagePlugin,
    MpoImagePlugin,
    PngImagePlugin,
    TiffImagePlugin,
    WebPImagePlugin,
)
Image.preinit()

# Process-wide on purpose: Pillow reads both as globals, and no code here wants them otherwise.
ImageFile.LOAD_TRUNCATED_IMAGES = False
warnings.filterwarnings("error", category=Image.DecompressionBombWarning)


class DecodeLimits(BaseModel):
    """Checked against the header, before any pixel is made."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    # The upper bound stays below Pillow's own limit, 89.4 MP, which is an error here.
    max_pixels: int = Field(default=50_000_000, ge=64, le=89_000_000, description="width x height")
    max_side_px: int = Field(default=16_384, ge=MIN_SIDE_PX, le=65_535, description="longest side")


@dataclass(frozen=True, slots=True)
class DecodedImage:
    """rgb: uint8 (H, W, 3). luma: float32 (H, W) in 0..255, BT.601 weights, not rounded."""

    rgb: NDArray[np.uint8]
    luma: NDArray[np.float32]
    facts: MediaFacts


def decode_image(
    data: bytes, limits: DecodeLimits | None = None, declared_content_type: str | None = None
) -> DecodedImage:
    """Decode the first frame, in this process.

    Forensic pixels are the stored ones: EXIF orientation is not applied; alpha is dropped without blending,
    which leaves the colours below it as they are; palettes, grey and CMYK become RGB; of 16-bit samples the high byte
    is kept, for grey as for RGB; colour profiles are not applied.

    Raises:
        MediaError: MEDIA_TOO_LARGE, MEDIA_TRUNCATED, MEDIA_UNSUPPORTED, MEDIA_TYPE_MISMATCH or
            MEDIA_UNDECODABLE.
    """
    sniffed = sniff(data, declared_content_type)
    _check_size(sniffed.width, sniffed.height, limits or DecodeLimits())
    try:
        rgb = _pixels(data, sniffed)
    except MediaError:
        raise
    except MemoryError as error:
        raise MediaError(ReasonCode.MEDIA_TOO_LARGE, "the decoder ran out of memory") from error
    except Exception as error:
        # Whatever a decoder raises on hostile bytes is about those bytes.
        raise _undecodable(error) from error
    if rgb.shape != (sniffed.height, sniffed.width, 3):
        shape = f"{rgb.shape[1]}x{rgb.shape[0]}"
        detail = f"the header says {sniffed.width}x{sniffed.height}, the decoder made {shape}"
        raise MediaError(ReasonCode.MEDIA_UNDECODABLE, detail)
    return DecodedImage(rgb, bt601_luma(rgb), _facts(data, sniffed))


def bt601_luma(rgb: NDArray[np.uint8]) -> NDArray[np.float32]:
    """0.299 R + 0.587 G + 0.114 B (ITU-R BT.601), unrounded; uint8 (H, W, 3) -> float32 (H, W) in 0..255."""
    height, width, _ = rgb.shape
    luma = np.empty((height, width), dtype=np.float32)
    rows = max(1, _LUMA_BLOCK_PIXELS // width)
    for top in range(0, height, rows):
        np.matmul(rgb[top : top + rows].astype(np.float32), _LUMA_BT601, out=luma[top : top + rows])
    return luma


def _check_size(width: int, height: int, limits: DecodeLimits) -> None:
    if max(width, height) > limits.max_side_px or width * height > limits.max_pixels:
        most = f"at most {limits.max_pixels} pixels and {limits.max_side_px} a side are decoded"
        raise MediaError(ReasonCode.MEDIA_TOO_LARGE, f"the header says {width}x{height} pixels; {most}")
    if min(width, height) < MIN_SIDE_PX:
        detail = f"{width}x{height} pixels; at least {MIN_SIDE_PX} a side are needed"
        raise MediaError(ReasonCode.MEDIA_UNSUPPORTED, detail)


def _pixels(data: bytes, sniffed: Sniffed) -> NDArray[np.uint8]:
    with Image.open(io.BytesIO(data), formats=[_FORMATS[sniffed.format]]) as image:
        # A JPEG with further pictures opens as MPO; its first frame is the JPEG.
        opened = "JPEG" if image.format == "MPO" else image.format
        if opened != _FORMATS[sniffed.format]:
            detail = f"the bytes look like {sniffed.format}, the decoder found {image.format}"
            raise MediaError(ReasonCode.MEDIA_TYPE_MISMATCH, detail)
        if sorted(image.size) != sorted((sniffed.width, sniffed.height)):
            detail = f"the header says {sniffed.width}x{sniffed.height}, the decoder {image.size}"
            raise MediaError(ReasonCode.MEDIA_UNDECODABLE, detail)
        rgb = fast_pixels(data, image)
        return rgb if rgb is not None else _to_rgb(_load_as_stored(image, sniffed), image)


def _load_as_stored(image: ImageFile.ImageFile, sniffed: Sniffed) -> Image.Image:
    """Load; Pillow turns a TIFF by its orientation while loading, and that is undone."""
    if sniffed.format != "tiff":
        image.load()
        return image
    orientation = image.getexif().get(_ORIENTATION, 1)
    image.load()
    undo = _UNDO_ORIENTATION.get(orientation)
    return image if undo is None else image.transpose(undo)


def _to_rgb(stored: Image.Image, opened: ImageFile.ImageFile) -> NDArray[np.uint8]:
    if stored.mode.startswith("I;16"):
        grey = _high_byte(np.asarray(stored), opened)
        return np.repeat(grey[:, :, None], 3, axis=2)
    if stored.mode in ("I", "F"):
        detail = f"pixels of mode {stored.mode} have no known range; send 8 or 16 bits a sample"
        raise MediaError(ReasonCode.MEDIA_UNSUPPORTED, detail)
    if stored.mode in ("P", "PA"):
        # By way of RGBA, which keeps the palette's colour of a transparent entry.
        stored = stored.convert("RGBA")
    else:
        stored.info.pop("transparency", None)
    return np.array(stored if stored.mode == "RGB" else stored.convert("RGB"), dtype=np.uint8)


def _high_byte(samples: NDArray[np.generic], opened: ImageFile.ImageFile) -> NDArray[np.uint8]:
    """The 8 most significant bits. Image.convert would clip at 255, and a 12-bit TIFF fills 12 of 16."""
    tags: Mapping[int, Any] = getattr(opened, "tag_v2", {})
    bits = int(tags.get(_BITS_PER_SAMPLE, (16,))[0])
    grey: NDArray[np.uint8] = (samples.astype(np.uint16) >> (bits - 8)).astype(np.uint8)
    return np.uint8(255) - grey if tags.get(_PHOTOMETRIC) == _WHITE_IS_ZERO else grey


def _undecodable(error: Exception) -> MediaError:
    text = str(error)[:256]
    if isinstance(error, Image.DecompressionBombError | Image.DecompressionBombWarning):
        return MediaError(ReasonCode.MEDIA_TOO_LARGE, text)
    if isinstance(error, EOFError) or "truncated" in text.lower():
        return MediaError(ReasonCode.MEDIA_TRUNCATED, text)
    return MediaError(ReasonCode.MEDIA_UNDECODABLE, f"{type(error).__name__}: {text}")


def _facts(data: bytes, sniffed: Sniffed) -> MediaFacts:
    return MediaFacts(
        sha256=hashlib.sha256(data).hexdigest(),
        size_bytes=len(data),
        format=sniffed.format,
        lossless=sniffed.lossless,
        width=sniffed.width,
        height=sniffed.height,
        jpeg_quality=sniffed.jpeg_quality,
        chroma_subsampling=sniffed.chroma_subsampling,
    )
