"""The spectral tier on one image."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from pipeline.detection.spectral import features, kernel, strata
from pipeline.detection.spectral.features import Measurement
from pipeline.detection.spectral.kernel import Float64
from pipeline.detection.spectral.reference import SpectralReference
from pipeline.detection.spectral.score import score
from schemas.media import Feature

if TYPE_CHECKING:
    from pipeline.media.decode import DecodedImage


@dataclass(frozen=True, slots=True)
class SpectralAnalysis:
    """What the spectrum says of one image.

    `score` is P(synthetic) at prior 0.5 and `p_value` that of the photograph hypothesis; both are None when
    `not_applicable` holds a reason. `features` are all that count in the stratum, `contributions` theirs to
    the logit. `reference_stratum` is the reference used, pooled when the stratum has none. `measurement` is
    None only for images under 16 px; `radial_band` (5, 64) are the photographs' curves at 5, 25, ..., 95 %.
    """

    score: float | None
    p_value: float | None
    stratum: str
    features: tuple[Feature, ...]
    contributions: tuple[float, ...]
    not_applicable: str | None
    reference_stratum: str
    photographs: int
    measurement: Measurement | None
    radial_band: Float64

    def top_features(self, n: int) -> tuple[Feature, ...]:
        """The n features farthest from the photographs' median percentile; ties by contribution."""
        order = sorted(
            range(len(self.features)),
            key=lambda i: (-_extremeness(self.features[i]), -abs(self.contributions[i]), i),
        )
        return tuple(self.features[i] for i in order[:n])


class SpectralAnalyser:
    """Holds one reference, read once; safe to share between threads and the same in every process."""

    def __init__(self, reference_path: Path) -> None:
        """Read the reference.

        Raises:
            SpectralReferenceError: the file cannot be used.
        """
        self._reference = SpectralReference.load(reference_path)

    def analyse(self, image: DecodedImage) -> SpectralAnalysis:
        """Measure and score one decoded image; only `luma` (H, W) float32 0..255 and `facts` are read.

        The facts choose the stratum and enter no feature.
        """
        area = kernel.analysed_area(image.luma)
        stratum = strata.stratum(image.facts, area.shape)
        reference_stratum, reference = self._reference.lookup(stratum)
        reason = features.not_applicable(image.luma)
        measurement = features.measure(image.luma) if min(area.shape) >= kernel.GRID else None
        if reason is not None or measurement is None:
            scored = None
            named: tuple[Feature, ...] = ()
        else:
            names = features.names_for(strata.masks_jpeg_grid(reference_stratum))
            values = np.array([measurement.values[name] for name in names])
            scored = score(values, reference)
            named = tuple(
                Feature(name=name, value=float(value), percentile=float(percentile))
                for name, value, percentile in zip(names, values, scored.percentiles, strict=True)
            )
        return SpectralAnalysis(
            score=scored.probability if scored else None,
            p_value=scored.p_value if scored else None,
            stratum=stratum,
            features=named,
            contributions=tuple(scored.contributions.tolist()) if scored else (),
            not_applicable=reason,
            reference_stratum=reference_stratum,
            photographs=int(reference.photographs),
            measurement=measurement,
            radial_band=reference.radial_band,
        )


def _extremeness(feature: Feature) -> float:
    return abs((feature.percentile if feature.percentile is not None else 50.0) - 50.0)
