"""A 256-bit difference hash: the same picture resized, recompressed or brightened keeps nearly all of its bits."""

from __future__ import annotations

import numpy as np
from PIL import Image

from pipeline.media.encode import Pixels

SIDE = 16
BITS = SIDE * SIDE
NEAR_DUPLICATE_BITS = 22
"""Two hashes that differ in at most this many bits are the same picture."""


def dhash256(rgb: Pixels) -> int:
    """Hash of uint8 (H, W, 3): bit 1 where a pixel of the 17 x 16 grey thumbnail is darker than its right neighbour.

    Bits are in reading order, the first one highest. Source: N. Krawetz, "Kind of like that" (2013), at 16 x 16.
    """
    grey = Image.fromarray(rgb).convert("L")
    small = np.asarray(grey.resize((SIDE + 1, SIDE), Image.Resampling.LANCZOS, reducing_gap=3.0), dtype=np.int16)
    return int.from_bytes(np.packbits(small[:, 1:] > small[:, :-1]).tobytes(), "big")


def distance_bits(one: int, other: int) -> int:
    """How many of the 256 bits differ."""
    return (one ^ other).bit_count()


def is_informative(dhash: int) -> bool:
    """Whether the hash tells pictures apart: a flat picture has (nearly) all bits 0, whatever it shows."""
    return NEAR_DUPLICATE_BITS < dhash.bit_count() < BITS - NEAR_DUPLICATE_BITS
