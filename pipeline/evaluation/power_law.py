"""Images with a known spectrum, made by code: for measuring speed and for tests."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

Luma = npt.NDArray[np.float32]
Pixels = npt.NDArray[np.uint8]


def power_law(height: int, width: int, alpha: float = 2.0, seed: int = 0) -> Luma:
    """Luma (H, W) whose power falls as f**-alpha, as that of photographs does, without any grid."""
    fy, fx = np.fft.fftfreq(height)[:, None], np.fft.rfftfreq(width)[None]
    frequency = np.hypot(fy, fx)
    frequency[0, 0] = 1.0
    noise = np.random.default_rng(seed).normal(size=(height, width))
    spectrum = np.fft.rfft2(noise) * frequency ** (-alpha / 2)
    spectrum[0, 0] = 0.0
    field = np.fft.irfft2(spectrum, (height, width))
    luma: Luma = (128 + field / field.std() * 25).astype(np.float32)
    return luma


def coloured(luma: Luma, seed: int = 0) -> Pixels:
    """RGB of this luma with two smooth fields of colour, uint8 (H, W, 3)."""
    height, width = luma.shape
    tints = [0.2 * (power_law(height, width, 2.5, 1000 * (seed + 1) + part) - 128) for part in range(2)]
    planes = np.stack([luma + tints[0], luma, luma + tints[1]], axis=2)
    rgb: Pixels = np.clip(planes, 0, 255).astype(np.uint8)
    return rgb
