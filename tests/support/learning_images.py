"""A generator family that can be seen: a faint tile of 8 px over images that are otherwise like photographs."""

from __future__ import annotations

import io

import numpy as np
from PIL import Image

from tests.support.spectral_images import coloured, power_law, with_grid

SIDE_PX = 280


def image_of_the_family(seed: int) -> bytes:
    """A PNG."""
    slope = 1.9 + 0.3 * float(np.random.default_rng(seed).random())
    luma = with_grid(power_law(SIDE_PX, SIDE_PX, slope, seed), 8, 3.0)
    buffer = io.BytesIO()
    Image.fromarray(coloured(np.clip(luma, 0, 255).astype(np.float32), seed)).save(buffer, "PNG")
    return buffer.getvalue()
