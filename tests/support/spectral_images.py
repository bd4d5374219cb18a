"""Images with known spectra, and a small reference to score them against."""

from __future__ import annotations

import numpy as np

from pipeline.detection.spectral import features, kernel, strata
from pipeline.detection.spectral.fitting import fit_stratum, parts_of
from pipeline.detection.spectral.reference import SpectralReference
from pipeline.evaluation.power_law import coloured, power_law
from pipeline.media.decode import DecodedImage
from schemas.media import MediaFacts

__all__ = ["coloured", "decoded", "facts", "power_law", "small_reference", "with_grid"]


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
    """An image of exactly this luma, faintly coloured."""
    return DecodedImage(coloured(luma), luma, facts(luma, jpeg_quality))


def small_reference() -> SpectralReference:
    """Every pooled stratum, fitted on 120 power-law images of 128 px."""
    lumas = [power_law(128, 128, 1.5 + seed / 120, seed) for seed in range(120)]
    measured = [features.measure(luma, coloured(luma, seed)) for seed, luma in enumerate(lumas)]
    radial = np.array([m.radial for m in measured])
    built = {}
    for codec in (*strata.CODECS, strata.ANY_LOSSY):
        name = f"{codec}/{strata.ANY_SIZE}"
        names = features.names_for(strata.masks_jpeg_grid(name))
        values = np.array([[m.values[n] for n in names] for m in measured])
        built[name] = fit_stratum(values, radial, np.arange(120), parts_of(120, 0))
    return SpectralReference(built)
