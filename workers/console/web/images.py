"""Pictures for the pages: decoded in guarded children, made anew from pixels, so that no stranger's byte is served.

A preview of at most 1,024 px, and windows of native pixels that nothing has resampled.
"""

from __future__ import annotations

import io
import struct
from dataclasses import dataclass
from functools import partial
from typing import Final

import numpy as np
import numpy.typing as npt
from PIL import Image

from pipeline.guarded_process import ChildDied, ChildRaised, ChildTimeout, Limits
from pipeline.media.decode import DecodeLimits, decode_image
from pipeline.media.encode import encode
from pipeline.media.encode_png import encode_png
from pipeline.media.errors import MediaError
from pipeline.media.sandbox import DecodeSandbox
from workers.classifier.settings import SandboxSettings
from workers.explain.pictures import MAX_SIDE_PX

WINDOW_PX: Final = 512
"""Side of a window of native pixels."""

_WEBP_QUALITY = 88
_REQUEST = struct.Struct(">iii")
_WHOLE = _REQUEST.pack(-1, -1, 0)

Pixels = npt.NDArray[np.uint8]


class NoPicture(Exception):
    """The bytes are there and cannot be shown; the text is a sentence that says why."""


@dataclass(frozen=True, slots=True)
class Encoded:
    """A picture for a response; sizes in pixels."""

    data: bytes
    media_type: str
    width: int
    height: int


class Images:
    """`open` starts the decoders. Safe to use from several threads."""

    def __init__(self, limits: DecodeLimits, sandbox: SandboxSettings) -> None:
        self._sandbox: DecodeSandbox[Pixels] = DecodeSandbox(
            partial(_make_decoder, limits),
            workers=sandbox.workers,
            limits=Limits(sandbox.memory_bytes, sandbox.cpu_s, no_new_files=True),
            timeout_s=sandbox.timeout_s,
        )

    def open(self) -> None:
        """Start the decoders and wait for them; raises as `DecodeSandbox.open`."""
        self._sandbox.open()

    def close(self) -> None:
        """End them."""
        self._sandbox.close()

    def preview(self, data: bytes) -> Encoded:
        """WebP, at most 1,024 px a side, as stored: not turned, colours not managed.

        Raises:
            NoPicture: the bytes cannot be decoded.
        """
        pixels = self.pixels(data)
        return Encoded(encode(pixels, "webp", _WEBP_QUALITY), "image/webp", pixels.shape[1], pixels.shape[0])

    def pixels(self, data: bytes) -> Pixels:
        """Of the preview: uint8 (H, W, 3), at most 1,024 px a side. Raises NoPicture."""
        return self._decoded(_WHOLE + data, MAX_SIDE_PX)

    def window(self, data: bytes, left: int, top: int) -> Encoded:
        """PNG of native pixels, at most `WINDOW_PX` a side; the place is moved into the image where it lies outside.

        Raises:
            NoPicture: the bytes cannot be decoded.
        """
        request = _REQUEST.pack(max(0, left), max(0, top), WINDOW_PX)
        pixels = self._decoded(request + data, WINDOW_PX)
        return Encoded(encode_png(pixels), "image/png", pixels.shape[1], pixels.shape[0])

    def _decoded(self, request: bytes, max_side_px: int) -> Pixels:
        try:
            pixels = self._sandbox.call(request)
        except MediaError as error:
            raise NoPicture(
                f"The bytes are there, but they cannot be shown: {error.detail} ({error.code.value})."
            ) from error
        except (ChildDied, ChildRaised, ChildTimeout) as error:
            raise NoPicture(f"The bytes are there, but the decoder failed on them: {type(error).__name__}.") from error
        is_picture = pixels.dtype == np.uint8 and pixels.ndim == 3 and pixels.shape[2] == 3
        if not is_picture or not 0 < max(pixels.shape[:2]) <= max_side_px:
            raise NoPicture("The bytes are there, but the decoder's reply is no picture of the size agreed on.")
        return pixels


def _make_decoder(limits: DecodeLimits) -> _Decoder:
    """Runs in the sandbox's child, which can open no file later: every decoder is touched once before."""
    decoder = _Decoder(limits)
    for name in ("PNG", "JPEG", "WEBP", "TIFF", "BMP"):
        buffer = io.BytesIO()
        Image.new("RGB", (16, 16), (90, 120, 200)).save(buffer, name)
        decoder(_WHOLE + buffer.getvalue(), None)
    return decoder


@dataclass(frozen=True, slots=True)
class _Decoder:
    limits: DecodeLimits

    def __call__(self, request: bytes, declared: str | None) -> Pixels:
        """uint8 (H, W, 3): the whole image made smaller, or the window asked for."""
        left, top, side = _REQUEST.unpack_from(request)
        rgb = decode_image(request[_REQUEST.size :], self.limits, declared).rgb
        if side == 0:
            image = Image.fromarray(rgb)
            image.thumbnail((MAX_SIDE_PX, MAX_SIDE_PX), Image.Resampling.LANCZOS)
            return np.array(image)
        height, width = rgb.shape[:2]
        x, y = min(left, max(0, width - side)), min(top, max(0, height - side))
        return np.ascontiguousarray(rgb[y : y + side, x : x + side])
