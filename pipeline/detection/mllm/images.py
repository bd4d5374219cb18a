"""The pictures that a model is shown: all of them PNG, encoded here, without a byte that a producer wrote."""

from __future__ import annotations

import hashlib
import os
import threading
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from PIL import Image

from pipeline.detection.mllm.backends.base import VerifyRequest
from pipeline.detection.mllm.trace import SentImage
from pipeline.media.decode import DecodedImage, DecodeLimits, decode_image
from pipeline.media.encode_png import encode_png

MAX_SIDE_PX = 1024
"""Long side of the original as the model sees it; common vision encoders gain nothing from more."""

CROP_PX = 256
MAX_CROPS = 4

Box = tuple[int, int, int, int]
"""Left, top, width, height in pixels."""

_BLOCK_PX = 64
_BLOCKS_A_CROP = CROP_PX // _BLOCK_PX
_LEVEL_FLOOR = 0.25  # grey levels: rounding to 8 bits alone makes about this much
_PLAIN_LEVEL = 0.5  # grey levels between neighbours below which there is no residual to look at
_DECODERS = threading.BoundedSemaphore(len(os.sched_getaffinity(0)))
"""More decoders at once than cores would only hold more pixels in memory."""


@dataclass(frozen=True, slots=True)
class Crop:
    """A part of the original as PNG, and its box in the original."""

    png: bytes
    box: Box


@dataclass(frozen=True, slots=True)
class Pictures:
    """Image 1 (the original), image 2 (the panel), then the crops.

    `shown_size`: width and height of image 1 in pixels; `size`: those of the original.
    """

    original: bytes
    panel: bytes
    crops: tuple[Crop, ...]
    shown_size: tuple[int, int]
    size: tuple[int, int]
    panel_sha256: str | None = None

    @property
    def scale(self) -> float:
        """Size of image 1 over that of the original; 1 where it was not reduced."""
        return max(self.shown_size) / max(self.size)

    @property
    def pngs(self) -> tuple[bytes, ...]:
        """In the order in which they are numbered."""
        return (self.original, self.panel, *(crop.png for crop in self.crops))

    def in_image_1(self, box: Box) -> Box:
        """A box of the original in pixels of image 1, at least 1 px, inside it."""
        width, height = self.shown_size
        left, top = (min(round(v * self.scale), end - 1) for v, end in zip(box[:2], (width, height), strict=True))
        wide, high = (max(1, round(v * self.scale)) for v in box[2:])
        return left, top, min(wide, width - left), min(high, height - top)

    def sent(self) -> tuple[SentImage, ...]:
        """For the trace."""
        return (
            SentImage(role="original", sha256=_sha256(self.original), box=(0, 0, *self.size)),
            SentImage(role="panel", sha256=self.panel_sha256 or _sha256(self.panel)),
            *(SentImage(role="crop", sha256=_sha256(crop.png), box=crop.box) for crop in self.crops),
        )


def pictures(request: VerifyRequest, crops: int = 0) -> Pictures:
    """Decode the original once and make every picture of it.

    The original becomes RGB PNG, its long side at most 1,024 px, never enlarged, without metadata. PNG and not JPEG,
    at any quality: JPEG would add its own 8x8 grid to the picture in which the model is to look for grids. The
    orientation stays as stored, as in the spectral panel, so that both speak of the same quadrants.

    Args:
        request: what is known of the image.
        crops: at most so many parts of 256 px, 0 to 4.

    Raises:
        MediaError: the original cannot be decoded.
    """
    with _DECODERS:
        # The classifier's limits have let it in, whatever they are.
        limits = DecodeLimits(max_pixels=request.width * request.height, max_side_px=max(request.width, request.height))
        image = decode_image(request.original, limits, request.original_content_type)
        height, width = image.luma.shape
        shown = _reduced(Image.fromarray(image.rgb))
        boxes = anomalous_boxes(image.luma, crops)
        return Pictures(
            original=_png(shown),
            panel=request.panel_png,
            crops=tuple(Crop(_png(_part(image, box)), box) for box in boxes),
            shown_size=shown.size,
            size=(width, height),
            panel_sha256=request.panel_sha256,
        )


def anomalous_boxes(luma: npt.NDArray[np.float32], count: int) -> tuple[Box, ...]:
    """Where the residual departs most from the rest of the image, the farthest first; none of them overlap.

    The residual of a place is log(mean abs cross-difference / mean abs difference along x), which does not depend on
    contrast; its departure is that from the median place. Places without any texture are left out. An image below 256
    px in a side has none.

    Args:
        luma: float32 (H, W) in 0..255.
        count: at most so many.
    """
    if count < 1 or min(luma.shape) < CROP_PX:
        return ()
    first, cross = (_windows(means) for means in _block_means(luma))
    residual = np.log((cross + _LEVEL_FLOOR) / (first + _LEVEL_FLOOR))
    departure = np.where(first < _PLAIN_LEVEL, -1.0, np.abs(residual - np.median(residual)))
    chosen: list[Box] = []
    while len(chosen) < count and float(departure.max()) >= 0.0:
        row, column = np.unravel_index(int(departure.argmax()), departure.shape)
        chosen.append((int(column) * _BLOCK_PX, int(row) * _BLOCK_PX, CROP_PX, CROP_PX))
        near = (slice(max(0, int(at) - _BLOCKS_A_CROP + 1), int(at) + _BLOCKS_A_CROP) for at in (row, column))
        departure[tuple(near)] = -1.0
    return tuple(chosen)


def _block_means(luma: npt.NDArray[np.float32]) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.float64]]:
    """Mean abs difference along x and mean abs cross-difference of each whole 64 px block, float64 (rows, columns)."""
    rows, columns = (side // _BLOCK_PX for side in luma.shape)
    first, cross = np.empty((rows, columns)), np.empty((rows, columns))
    starts = np.arange(columns) * _BLOCK_PX
    for row in range(rows):  # a strip at a time, so that no second copy of a large image is made
        strip = luma[row * _BLOCK_PX : (row + 1) * _BLOCK_PX, : columns * _BLOCK_PX]
        right = np.diff(strip, axis=1)
        crossed = np.abs(np.diff(right, axis=0)).mean(axis=0, dtype=np.float64)
        along = np.abs(right).mean(axis=0, dtype=np.float64)
        counts = np.diff(np.append(starts, along.size))
        first[row] = np.add.reduceat(along, starts) / counts
        cross[row] = np.add.reduceat(crossed, starts) / counts
    return first, cross


def _windows(means: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    """Means over windows of a crop's size, at steps of a block."""
    views = np.lib.stride_tricks.sliding_window_view(means, (_BLOCKS_A_CROP, _BLOCKS_A_CROP))
    return np.asarray(views.mean(axis=(2, 3)), np.float64)


def _reduced(image: Image.Image) -> Image.Image:
    scale = MAX_SIDE_PX / max(image.size)
    if scale >= 1.0:
        return image
    width, height = (max(1, round(side * scale)) for side in image.size)
    return image.resize((width, height), Image.Resampling.LANCZOS)


def _part(image: DecodedImage, box: Box) -> Image.Image:
    left, top, width, height = box
    return Image.fromarray(np.ascontiguousarray(image.rgb[top : top + height, left : left + width]))


def _png(image: Image.Image) -> bytes:
    return encode_png(np.asarray(image))


def _sha256(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()
