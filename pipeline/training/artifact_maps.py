"""Maps for the artifact network: log spectra of the luma and of two residuals, averaged over small windows.

A spectrum of one large area has a sample a frequency, each as noisy as its own mean; the mean over overlapping
windows (Welch 1967, IEEE Trans. Audio Electroacoustics 15) gives up resolution for a map that a small network can
read. Windows of 64 px still hold every k/64 cycle/px, so every k/8 and k/16.
"""

from __future__ import annotations

import numpy as np
import scipy.fft

from pipeline.detection.spectral import kernel
from pipeline.detection.spectral.kernel import Float32
from pipeline.detection.spectral.residuals import cross_difference

WINDOW_PX = 64
STRIDE_PX = 32
CHANNELS = ("luma", "cross_difference", "neighbouring_pixels")
SHAPE = (len(CHANNELS), WINDOW_PX, WINDOW_PX // 2 + 1)
"""Channel, vertical frequency as in `numpy.fft.fftfreq`, horizontal frequency 0 ... 1/2 cycle/px.

A real field has a Hermitian spectrum: the other half plane would say the same again.
"""

_FLOOR = 1e-2  # well below the 1/12 that rounding to whole grey levels leaves
_SMALLEST_SPREAD = 1e-3


def maps(luma: Float32) -> Float32:
    """Maps of one crop, float32 `SHAPE`, each channel with mean 0 and standard deviation 1.

    Args:
        luma: float32 (H, W) in 0..255, native pixels.

    Raises:
        ValueError: a side below 64 px.
    """
    if min(luma.shape) < WINDOW_PX:
        raise ValueError(f"luma: {luma.shape[1]}x{luma.shape[0]} px is below {WINDOW_PX} px; such a crop has no maps")
    fields = (luma, cross_difference(luma), neighbour_residual(luma))
    found: Float32 = np.log(np.stack([_mean_power(field) for field in fields]) + np.float32(_FLOOR))
    found -= found.mean(axis=(1, 2), keepdims=True)
    found /= np.maximum(found.std(axis=(1, 2), keepdims=True), np.float32(_SMALLEST_SPREAD))
    return found


def neighbour_residual(luma: Float32) -> Float32:
    """Each 2 x 2 block minus its first pixel (Tan et al. 2024), float32, cut to even sides."""
    even = luma[: luma.shape[0] // 2 * 2, : luma.shape[1] // 2 * 2]
    residual: Float32 = even - np.repeat(np.repeat(even[::2, ::2], 2, axis=0), 2, axis=1)
    return residual


def _mean_power(field: Float32) -> Float32:
    """Mean half-plane power of all windows at a stride of half a window; white noise of variance v gives v."""
    size = (WINDOW_PX, WINDOW_PX)
    windows = np.lib.stride_tricks.sliding_window_view(field, size)[::STRIDE_PX, ::STRIDE_PX].reshape(-1, *size)
    weights = kernel.window(*size, "f")
    means = np.tensordot(windows, weights, 2) / weights.sum()
    spectra = scipy.fft.rfft2((windows - means[:, None, None]) * weights)
    power: Float32 = (np.square(spectra.real) + np.square(spectra.imag)).mean(axis=0)
    power /= np.square(weights).sum()
    return power
