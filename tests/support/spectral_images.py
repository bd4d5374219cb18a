"""Images with known spectra, and a small reference to score them against."""

from __future__ import annotations

import numpy as np

from pipeline.detection.spectral import features, kernel, strata
from pipeline.detection.spectral.reference import SpectralReference, fit_stratum
from pipeline.media.decode import DecodedImage
from schemas.media import MediaFacts


def power_law(height: int, width: int, alpha: float = 2.0, seed: int = 0) -> kernel.Float32:
    """Luma whose power falls as f**-alpha, without any grid."""
    fy, fx = np.fft.fftfreq(height)[:, None], np.fft.rfftfreq(width)[None]
    frequency = np.hypot(fy, fx)
    frequency[0, 0] = 1.0
    noise = np.random.default_rng(seed).normal(size=(height, width))
    spectrum = np.fft.rfft2(noise) * frequency ** (-alpha / 2)
    spectrum[0, 0] = 0.0
    field = np.fft.irfft2(spectrum, (height, width))
    return (128 + field / field.std() * 25).astype(np.float32)


def with_grid(luma: kernel.Float32, period: int, amplitude: float = 12.0) -> kernel.Float32:
    """A decoder's footprint: one random tile of `period` pixels, repeated over the luma."""
    tile = np.random.default_rng(period).normal(0, amplitude, (period, period)).astype(np.float32)
    repeats = [-(-side // period) for side in luma.shape]
    return luma + np.tile(tile, repeats)[: luma.shape[0], : luma.shape[1]]


def facts(luma: kernel.Float32, jpeg_quality: int | None = None) -> MediaFacts:
    """Facts of a PNG, or of a JPEG of this quality."""
    return MediaFacts(
        sha256="0" * 64,
        size_bytes=1,
        format="png" if jpeg_quality is None else "jpeg",
        lossless=jpeg_quality is None,
        width=luma.shape[1],
        height=luma.shape[0],
        jpeg_quality=jpeg_quality,
    )


def decoded(luma: kernel.Float32, jpeg_quality: int | None = None) -> DecodedImage:
    """A grey image of this luma."""
    grey = np.clip(luma, 0, 255).astype(np.uint8)
    return DecodedImage(np.repeat(grey[..., None], 3, axis=2), luma, facts(luma, jpeg_quality))


def small_reference() -> SpectralReference:
    """Every pooled stratum, fitted on 60 power-law images of 128 px."""
    measured = [features.measure(power_law(128, 128, 1.5 + seed / 60, seed)) for seed in range(60)]
    radial = np.array([m.radial for m in measured])
    built = {}
    for codec in (*strata.CODECS, strata.ANY_LOSSY):
        name = f"{codec}/{strata.ANY_SIZE}"
        names = features.names_for(strata.masks_jpeg_grid(name))
        values = np.array([[m.values[n] for n in names] for m in measured])
        built[name] = fit_stratum(values, radial, seed=0)
    return SpectralReference(built)
