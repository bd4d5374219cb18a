"""Pictures for the page, made anew from pixels: no byte of a stranger's file gets into it.

A guarded child decodes and shrinks, this process encodes what comes back.
"""

from __future__ import annotations

import base64
import io
from dataclasses import dataclass
from functools import partial

import numpy as np
import numpy.typing as npt
from PIL import Image

from pipeline.guarded_process import ChildDied, ChildRaised, ChildTimeout, Limits
from pipeline.media.decode import DecodeLimits, decode_image
from pipeline.media.encode import encode
from pipeline.media.errors import MediaError
from pipeline.media.sandbox import DecodeSandbox
from workers.classifier.settings import SandboxSettings

MAX_SIDE_PX = 1024
_WEBP_QUALITY = 88

Pixels = npt.NDArray[np.uint8]


@dataclass(frozen=True, slots=True)
class Picture:
    """WebP for a page; sizes in pixels, as shown."""

    webp: bytes
    width: int
    height: int

    @property
    def data_uri(self) -> str:
        """For the `src` of an `img`."""
        return f"data:image/webp;base64,{base64.b64encode(self.webp).decode()}"


@dataclass(frozen=True, slots=True)
class Pictures:
    """What can be shown; where one is None, `absent` says why under the same name."""

    original: Picture | None = None
    panel: Picture | None = None
    absent_original: str = ""
    absent_panel: str = ""


class PictureMaker:
    """Decodes in one sandboxed process, which starts at the first picture."""

    def __init__(self, limits: DecodeLimits, sandbox: SandboxSettings) -> None:
        self._sandbox: DecodeSandbox[Pixels] = DecodeSandbox(
            partial(_make_shrinker, limits),
            workers=1,
            limits=Limits(sandbox.memory_bytes, sandbox.cpu_s, no_new_files=True),
            timeout_s=sandbox.timeout_s,
        )
        self._is_open = False

    def make(self, data: bytes) -> tuple[Picture | None, str]:
        """The picture, at most `MAX_SIDE_PX` a side, or None and a sentence that says why not."""
        try:
            if not self._is_open:
                self._sandbox.open()
                self._is_open = True
            return _encoded(self._sandbox.call(data)), ""
        except MediaError as error:
            return None, f"The bytes are there, but they cannot be shown: {error.detail} ({error.code.value})."
        except (ChildDied, ChildRaised, ChildTimeout, ValueError) as error:
            return None, f"The bytes are there, but the decoder failed on them: {type(error).__name__}."

    def close(self) -> None:
        """End the process."""
        if self._is_open:
            self._sandbox.close()
            self._is_open = False


def _encoded(pixels: Pixels) -> Picture:
    """Raises ValueError for a reply that is no picture of the size agreed on: the child has read hostile bytes."""
    if pixels.dtype != np.uint8 or pixels.ndim != 3 or pixels.shape[2] != 3 or not 0 < max(pixels.shape) <= MAX_SIDE_PX:
        raise ValueError(f"the decoder's reply is no picture: {pixels.dtype} {pixels.shape}")
    height, width, _ = pixels.shape
    return Picture(encode(pixels, "webp", _WEBP_QUALITY), width, height)


def _make_shrinker(limits: DecodeLimits) -> _Shrinker:
    """Runs in the sandbox's child, which can open no file later: every decoder is touched once before."""
    shrinker = _Shrinker(limits)
    for name in ("PNG", "JPEG", "WEBP", "TIFF", "BMP"):
        buffer = io.BytesIO()
        Image.new("RGB", (16, 16), (90, 120, 200)).save(buffer, name)
        shrinker(buffer.getvalue(), None)
    return shrinker


@dataclass(frozen=True, slots=True)
class _Shrinker:
    limits: DecodeLimits

    def __call__(self, data: bytes, declared: str | None) -> Pixels:
        """uint8 (H, W, 3) as stored: not turned, colours not managed."""
        image = Image.fromarray(decode_image(data, self.limits, declared).rgb)
        image.thumbnail((MAX_SIDE_PX, MAX_SIDE_PX), Image.Resampling.LANCZOS)
        return np.array(image)
