"""From feature values to a distance, a p-value, percentiles and a probability."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import scipy.special

from pipeline.detection.spectral.kernel import Float64
from pipeline.detection.spectral.reference import (
    QUANTILE_LEVELS,
    StratumReference,
    mahalanobis,
    standardised,
)


@dataclass(frozen=True, slots=True)
class Scored:
    """`probability` of synthetic at prior 0.5, `p_value` of the photograph hypothesis.

    `percentiles` (F,) among the photographs, 0-100; `contributions` (F,) to the logit.
    """

    probability: float
    p_value: float
    percentiles: Float64
    contributions: Float64


def score(values: Float64, reference: StratumReference) -> Scored:
    """Score one image's features (F,), in the order of `features.names_for`."""
    z = standardised(values, reference.median, reference.scale)
    distance = float(mahalanobis((z - reference.mean)[None], reference.precision)[0])
    contributions = reference.weights * z
    return Scored(
        probability=float(scipy.special.expit(contributions.sum() + reference.intercept)),
        p_value=conformal_p_value(distance, reference.calibration),
        percentiles=percentiles(values, reference.quantiles),
        contributions=contributions,
    )


def conformal_p_value(distance: float, sorted_calibration: Float64) -> float:
    """(1 + #{calibration >= distance}) / (n + 1), split-conformal; the smallest is 1 / (n + 1).

    Valid only while photographs are exchangeable with those of the calibration half.
    """
    n = sorted_calibration.size
    at_least = n - int(np.searchsorted(sorted_calibration, distance, side="left"))
    return (1 + at_least) / (n + 1)


def percentiles(values: Float64, quantiles: Float64) -> Float64:
    """Place of each value (F,) among the photographs, 0-100, linear between the stored quantiles (9, F)."""
    return np.array([np.interp(v, column, QUANTILE_LEVELS) for v, column in zip(values, quantiles.T, strict=True)])
