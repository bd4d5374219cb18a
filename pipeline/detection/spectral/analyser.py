"""The spectral tier on one image."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from pipeline.detection.spectral import features, kernel, strata
from pipeline.detection.spectral.features import Measurement
from pipeline.detection.spectral.kernel import Float64
from pipeline.detection.spectral.reference import SpectralReference, StratumReference
from pipeline.detection.spectral.score import score
from pipeline.media.decode import DecodedImage, bt601_luma
from pipeline.media.encode import reencode
from schemas.media import Feature

DELIVERY_QUALITY = 90
DELIVERY_SHIFT = 0.25
"""A score that a JPEG copy of quality 90 without chroma subsampling moves by more is delivery-sensitive."""


@dataclass(frozen=True, slots=True)
class SpectralAnalysis:
    """What the spectrum says of one image.

    `score` is P(synthetic) at prior 0.5 and `p_value` that of the photograph hypothesis; both are None when
    `not_applicable` holds a reason. `features` are all that count in the stratum, `contributions` theirs to
    the logit. `reference_stratum` is the reference used, pooled when the stratum has none. `measurement` is
    None only for images under 128 px; `radial_band` (5, 64) are the photographs' curves at 5, 25, ..., 95 %.

    `upscaled`: an isolated peak at 1/2 cycle/px, as a twofold enlargement leaves; a flag, not evidence.
    `delivery_sensitive`: re-encoding alone moves the score by more than `DELIVERY_SHIFT`; None when not asked for
    or without a score.
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
    upscaled: bool = False
    delivery_sensitive: bool | None = None

    @property
    def flags(self) -> tuple[str, ...]:
        """What a reader must know beside the score."""
        named = (("enlarged", self.upscaled), ("delivery-sensitive", bool(self.delivery_sensitive)))
        return tuple(name for name, raised in named if raised)

    @property
    def radial_deviation(self) -> Float64 | None:
        """The radial curve without the stratum's median log spectrum, (64,): what codec and optics do not explain.

        The features that are linear in the curve need no such step: standardising by the stratum's median does it.
        """
        if self.measurement is None:
            return None
        deviation: Float64 = self.measurement.radial - self.radial_band[len(self.radial_band) // 2]
        return deviation

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

    @property
    def reference_hash(self) -> str:
        """Content hash of the reference: equal hashes give equal scores."""
        return self._reference.content_hash

    def analyse(self, image: DecodedImage, *, delivery: bool = False) -> SpectralAnalysis:
        """Measure and score one decoded image; the facts choose the stratum and enter no feature.

        With `delivery` a canonical copy, JPEG of quality 90 4:4:4, is scored as well, at twice the cost.
        """
        analysis = self._analyse(image)
        if not delivery or analysis.score is None:
            return analysis
        copied = self._analyse(_canonical_copy(image)).score
        sensitive = copied is None or abs(copied - analysis.score) > DELIVERY_SHIFT
        return replace(analysis, delivery_sensitive=sensitive)

    def score_of(self, analysis: SpectralAnalysis) -> float | None:
        """What this reference makes of an image that another analyser has measured; a fraction of the cost."""
        if analysis.measurement is None or analysis.not_applicable is not None:
            return None
        name, reference = self._reference.lookup(analysis.stratum)
        names = features.names_for(strata.masks_jpeg_grid(name))
        return score(_values(analysis.measurement, names, reference), reference).probability

    def _analyse(self, image: DecodedImage) -> SpectralAnalysis:
        area = kernel.analysed_area(image.luma)
        stratum = strata.stratum(image.facts, (area.shape[0], area.shape[1]))
        reference_stratum, reference = self._reference.lookup(stratum)
        reason = features.not_applicable(image.luma)
        large = min(area.shape) >= features.MIN_SIDE_PX
        measurement = features.measure(image.luma, image.rgb) if large else None
        if reason is not None or measurement is None:
            scored = None
            named: tuple[Feature, ...] = ()
        else:
            names = features.names_for(strata.masks_jpeg_grid(reference_stratum))
            values = _values(measurement, names, reference)
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
            upscaled=scored is not None and measurement is not None and measurement.upscaled,
        )


def _values(measurement: Measurement, names: tuple[str, ...], reference: StratumReference) -> Float64:
    """Features in the order of `names`; an image without colour takes the photographs' median for those of colour."""
    values = np.array([measurement.values[name] for name in names])
    if measurement.colourless:
        absent = np.array([name in features.COLOUR for name in names])
        values = np.where(absent, reference.median, values)
    return values


def _canonical_copy(image: DecodedImage) -> DecodedImage:
    rgb = reencode(image.rgb, "jpeg", DELIVERY_QUALITY, "4:4:4")
    encoding = {"format": "jpeg", "lossless": False, "jpeg_quality": DELIVERY_QUALITY, "chroma_subsampling": "4:4:4"}
    return DecodedImage(rgb, bt601_luma(rgb), image.facts.model_copy(update=encoding))


def _extremeness(feature: Feature) -> float:
    return abs((feature.percentile if feature.percentile is not None else 50.0) - 50.0)
