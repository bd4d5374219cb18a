"""Equal treatment of both classes, so that neither codec, size nor subject can stand in for the generator's traces."""

from __future__ import annotations

from typing import Annotated, Literal

import numpy as np
from pydantic import BaseModel, ConfigDict, Field

from pipeline.evaluation.robustness.transform import NotTransformable, Variant, generator_for
from pipeline.media.decode import decode_image
from pipeline.media.encode import Codec, Pixels, Subsampling, encode, resize

GRID_PX = 16
"""Twice the block of JPEG: the period of 4:2:0 chroma and of a decoder's coarser grid."""

THUMBNAIL_SIDE_PX = 400
THUMBNAIL_QUALITY = 80
TRACE_FREE_SIDE_PX = 48

Quality = Annotated[int, Field(ge=1, le=100, description="of a lossy codec; PNG ignores it")]


class EqualCodec(BaseModel):
    """One native crop of a fixed size, saved in a fixed way, whatever the class.

    The crop lies within half the free play around the centre, at an offset drawn from the sample's key. Where there is
    room it is off the 16 px grid, so that blocks of an earlier JPEG do not fall onto those of the new one. Nothing is
    resized. Sides shorter than the crop are reflected, or the image is `NotTransformable`.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    size_px: Annotated[Literal[256, 384], Field(description="side of the crop, native pixels")] = 256
    codec: Annotated[Codec, Field(description="png, jpeg or webp")] = "jpeg"
    quality: Quality = 90
    subsampling: Annotated[Subsampling, Field(description="chroma of a JPEG")] = "4:2:0"
    too_small: Annotated[Literal["reflect", "skip"], Field(description="what becomes of smaller images")] = "reflect"

    @property
    def name(self) -> str:
        """Such as `equal 256 px jpeg q90`."""
        lossy = "" if self.codec == "png" else f" q{self.quality}"
        return f"equal {self.size_px} px {self.codec}{lossy}"

    def __call__(self, data: bytes, key: str) -> bytes:
        """The crop's bytes.

        Raises:
            MediaError: cannot be decoded.
            NotTransformable: smaller than the crop, with `too_small` = skip.
        """
        return self.save(self.crop(decode_image(data).rgb, key))

    def crop(self, rgb: Pixels, key: str) -> Pixels:
        """uint8 (H, W, 3) -> uint8 (size_px, size_px, 3)."""
        height, width = rgb.shape[:2]
        if min(height, width) < self.size_px:
            if self.too_small == "skip":
                raise NotTransformable(f"{width}x{height} px, smaller than the crop of {self.size_px} px")
            rgb = _reflect_to(rgb, self.size_px)
        random = generator_for(key, "equal codec crop")
        top, left = (_offset(side - self.size_px, random) for side in rgb.shape[:2])
        return rgb[top : top + self.size_px, left : left + self.size_px]

    def save(self, rgb: Pixels) -> bytes:
        """Encoded as the protocol says."""
        return encode(np.ascontiguousarray(rgb), self.codec, self.quality, self.subsampling)


class TraceFree(BaseModel):
    """The same crop without any trace: shrunk to 48 px and enlarged again, saved alike.

    What still tells the classes apart here is what the images show. An AUC gain that this control shows as well is
    content, not detection.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    equal: EqualCodec = EqualCodec()
    side_px: Annotated[int, Field(ge=16, le=128, description="side of the small copy")] = TRACE_FREE_SIDE_PX

    @property
    def name(self) -> str:
        """Such as `trace-free 48 px, equal 256 px jpeg q90`."""
        return f"trace-free {self.side_px} px, {self.equal.name}"

    def __call__(self, data: bytes, key: str) -> bytes:
        """The control's bytes; raises as `EqualCodec` does."""
        rgb = np.ascontiguousarray(self.equal.crop(decode_image(data).rgb, key))
        small = resize(rgb, self.side_px, self.side_px, "box")
        return self.equal.save(resize(small, self.equal.size_px, self.equal.size_px, "bicubic"))


class WebThumbnail(BaseModel):
    """As a gallery delivers it: at most 400 px on the long side, WebP q80. Smaller images are not enlarged."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    long_side_px: Annotated[int, Field(ge=64, le=1024, description="longest side at most")] = THUMBNAIL_SIDE_PX
    quality: Quality = THUMBNAIL_QUALITY

    @property
    def name(self) -> str:
        """Such as `thumbnail 400 px webp q80`."""
        return f"thumbnail {self.long_side_px} px webp q{self.quality}"

    def __call__(self, data: bytes, key: str) -> bytes:
        """The thumbnail's bytes.

        Raises:
            MediaError: cannot be decoded.
        """
        rgb = decode_image(data).rgb
        height, width = rgb.shape[:2]
        factor = min(1.0, self.long_side_px / max(height, width))
        if factor < 1.0:
            rgb = resize(rgb, max(1, round(height * factor)), max(1, round(width * factor)), "lanczos")
        return encode(rgb, "webp", self.quality)


def protocol_variants(equal: EqualCodec | None = None) -> tuple[Variant, ...]:
    """What is scored beside the images as delivered: equal codec, its trace-free control, web thumbnails."""
    chosen = equal or EqualCodec()
    control, thumbnail = TraceFree(equal=chosen), WebThumbnail()
    return (Variant(chosen.name, chosen), Variant(control.name, control), Variant(thumbnail.name, thumbnail))


def _reflect_to(rgb: Pixels, size_px: int) -> Pixels:
    down, right = (max(0, size_px - side) for side in rgb.shape[:2])
    return np.pad(rgb, ((down // 2, down - down // 2), (right // 2, right - right // 2), (0, 0)), mode="reflect")


def _offset(play: int, random: np.random.Generator) -> int:
    """Within the middle half of the free play, not a multiple of 16 if there is one that is none."""
    low, high = play // 4, play - play // 4
    candidates = [offset for offset in range(low, high + 1) if offset % GRID_PX]
    draw = random.random()
    return candidates[int(draw * len(candidates))] if candidates else low
