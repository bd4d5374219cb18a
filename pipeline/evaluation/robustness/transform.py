"""Bytes in, bytes out, the label unchanged: what every suite and protocol is made of.

A transform is called with an image's bytes and its sample's key. All that is random in it comes from the key, so that
a variant of an image is the same in every run and every process. Transforms are picklable.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from dataclasses import dataclass
from typing import NamedTuple, TypeAlias

import numpy as np

from pipeline.media.decode import decode_image
from pipeline.media.encode import Codec, Pixels, encode

Transform: TypeAlias = Callable[[bytes, str], bytes]
"""(data, key) -> data. Raises MediaError for bytes that cannot be decoded, NotTransformable for a bad fit."""

PixelChange: TypeAlias = Callable[[Pixels, np.random.Generator], Pixels]
"""uint8 (H, W, 3) -> uint8 (H', W', 3); pure, with all its randomness from the generator."""


class NotTransformable(Exception):
    """An image that this transform does not fit; the text says why. It stays in the denominator: not applicable."""


class Variant(NamedTuple):
    """`name` is what a score row's `variant` holds."""

    name: str
    transform: Transform


def generator_for(key: str, purpose: str) -> np.random.Generator:
    """Random numbers that belong to this image and purpose."""
    digest = hashlib.sha256(f"{purpose}\0{key}".encode()).digest()
    return np.random.default_rng(int.from_bytes(digest[:16], "big"))


@dataclass(frozen=True, slots=True)
class Repixel:
    """Decode, change the pixels, encode. `purpose` separates the random numbers of different variants."""

    purpose: str
    change: PixelChange
    codec: Codec = "png"
    quality: int = 90

    def __call__(self, data: bytes, key: str) -> bytes:
        """The changed image's bytes."""
        changed = self.change(decode_image(data).rgb, generator_for(key, self.purpose))
        return encode(changed, self.codec, self.quality)


@dataclass(frozen=True, slots=True)
class Chain:
    """One transform after the other, such as an attack and then the equal codec."""

    steps: tuple[Transform, ...]

    def __call__(self, data: bytes, key: str) -> bytes:
        """The last step's bytes."""
        for step in self.steps:
            data = step(data, key)
        return data


def unchanged(rgb: Pixels, _random: np.random.Generator) -> Pixels:
    """The pixels as they are: for a variant that is a codec only."""
    return rgb


def as_pixels(field: np.ndarray[tuple[int, ...], np.dtype[np.floating]]) -> Pixels:
    """Rounded and clipped to uint8."""
    pixels: Pixels = np.clip(np.rint(field), 0, 255).astype(np.uint8)
    return pixels
