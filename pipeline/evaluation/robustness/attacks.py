"""What someone does to a generated image so that it passes, and to a photograph so that it does not."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import lru_cache, partial
from typing import TypeAlias

import numpy as np
import numpy.typing as npt
import scipy.fft
from PIL import Image, ImageFilter

from pipeline.evaluation.robustness.degradations import rescaled
from pipeline.evaluation.robustness.transform import Repixel, Variant, as_pixels
from pipeline.media.encode import Pixels

Reconstruct: TypeAlias = Callable[[Pixels], Pixels]
"""uint8 (H, W, 3) -> uint8 (H, W, 3): an image through an autoencoder, given by the caller that has one."""

PEAK_RADIUS_PX = 10.0
REFERENCE_SIDE_PX = 1024
"""The radius of a disk is 10 frequency samples at 1,024 px and shrinks with the image."""

_Int64: TypeAlias = npt.NDArray[np.int64]


def remove_peaks(rgb: Pixels, _random: np.random.Generator, grid: int = 16) -> Pixels:
    """Cut the spectral peaks of a decoder down to their surroundings.

    On every channel, the magnitude in a disk around each harmonic (m / grid, n / grid), frequency 0 left out, is
    limited to the median of the ring from one to two radii; the phase stays. Source: the mask of
    polimi-ispl/beyond-spectral-peaks, with a limit in place of zeros, which would be a trace of their own.

    Args:
        rgb: uint8 (H, W, 3), any size.
        grid: 8 or 16 px period.
    """
    inside, around = _masks(rgb.shape[0], rgb.shape[1], grid)
    changed = np.empty(rgb.shape, np.float32)
    for channel in range(rgb.shape[2]):
        spectrum = scipy.fft.fft2(rgb[..., channel].astype(np.float32), workers=1).ravel()
        magnitude = np.abs(spectrum)
        limits = np.median(magnitude[around], axis=1, keepdims=True)
        spectrum[inside] *= np.minimum(1.0, limits / np.maximum(magnitude[inside], 1e-6))
        changed[..., channel] = scipy.fft.ifft2(spectrum.reshape(rgb.shape[:2]), workers=1).real
    return as_pixels(changed)


def sharpen_and_add_noise(
    rgb: Pixels, random: np.random.Generator, radius_px: float = 2.0, percent: int = 120, noise_std: float = 3.0
) -> Pixels:
    """Unsharp mask, then white Gaussian noise of this standard deviation in grey levels."""
    sharp = Image.fromarray(rgb).filter(ImageFilter.UnsharpMask(radius_px, percent, threshold=0))
    return as_pixels(np.asarray(sharp, np.float32) + random.normal(0.0, noise_std, rgb.shape))


@dataclass(frozen=True, slots=True)
class Reconstructed:
    """Pixels through the caller's autoencoder; sides are cut to a multiple that it can take."""

    reconstruct: Reconstruct
    multiple_px: int = 16

    def __call__(self, rgb: Pixels, _random: np.random.Generator) -> Pixels:
        """uint8 (H, W, 3) -> uint8, at most 15 rows and columns fewer at the bottom and right.

        Raises:
            ValueError: the autoencoder changed the shape or dtype.
        """
        height, width = (max(self.multiple_px, side // self.multiple_px * self.multiple_px) for side in rgb.shape[:2])
        cut = np.ascontiguousarray(rgb[:height, :width])
        result = self.reconstruct(cut)
        if result.shape != cut.shape or result.dtype != np.uint8:
            raise ValueError(f"reconstruct: expected uint8 {cut.shape}, got {result.dtype} {result.shape}")
        return result


ATTACKS: tuple[Variant, ...] = (
    Variant("attack peaks removed Q=8", Repixel("peaks8", partial(remove_peaks, grid=8))),
    Variant("attack peaks removed Q=16", Repixel("peaks16", partial(remove_peaks, grid=16))),
    Variant("attack x0.8 jpeg q75", Repixel("x08", partial(rescaled, factor=0.8), "jpeg", 75)),
    Variant("attack unsharp + noise", Repixel("unsharp", sharpen_and_add_noise)),
)


def decoder_attacks(decoders: Mapping[str, Reconstruct]) -> tuple[Variant, ...]:
    """A generated image passed through other decoders, one variant each, by name.

    That is how a swapped decoder is tested without its generator, and a decoder that was fine-tuned against
    `spectral_loss` as adversary. Decoders that need torch come from the caller.
    """
    return _through(decoders, "attack decoder")


def laundering(decoders: Mapping[str, Reconstruct]) -> tuple[Variant, ...]:
    """A photograph passed through an autoencoder, as the weakest img2img would: its label stays real.

    The share that is flagged is a figure of its own: the pixels are a decoder's, the picture is not.
    """
    return _through(decoders, "laundered by")


def _through(decoders: Mapping[str, Reconstruct], verb: str) -> tuple[Variant, ...]:
    return tuple(
        Variant(f"{verb} {name}", Repixel(f"decoder {name}", Reconstructed(decoders[name])))
        for name in sorted(decoders)
    )


@lru_cache(maxsize=8)
def _masks(height: int, width: int, grid: int) -> tuple[_Int64, _Int64]:
    """Flat indices of the disk (P, K) and of the ring around it (P, R) for each of the P harmonics."""
    radius = max(1.0, PEAK_RADIUS_PX * min(height, width) / REFERENCE_SIDE_PX)
    reach = int(2 * radius)
    offsets_y, offsets_x = np.mgrid[-reach : reach + 1, -reach : reach + 1].reshape(2, -1)
    distance = np.hypot(offsets_y, offsets_x)
    harmonics = [(m, n) for m in range(-grid // 2, grid // 2) for n in range(-grid // 2, grid // 2) if m or n]
    centre_y = np.array([round(m * height / grid) for m, _ in harmonics])[:, None]
    centre_x = np.array([round(n * width / grid) for _, n in harmonics])[:, None]

    def flat(chosen: npt.NDArray[np.bool_]) -> _Int64:
        rows = (centre_y + offsets_y[chosen]) % height
        columns = (centre_x + offsets_x[chosen]) % width
        indices: _Int64 = rows * width + columns
        indices.flags.writeable = False
        return indices

    return flat(distance <= radius), flat((distance > radius) & (distance <= 2 * radius))
