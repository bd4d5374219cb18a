"""How far a spectrum lies from those of photographs: two distances in standardised, whitened features."""

from __future__ import annotations

import numpy as np

from pipeline.detection.spectral.kernel import Float64

MAX_Z = 10.0
"""Standardised features are clipped here, so that one strange statistic cannot decide alone without bound."""

NEIGHBOURS = 5


def standardised(values: Float64, median: Float64, scale: Float64) -> Float64:
    """Robust z-scores of (..., F), clipped to +-`MAX_Z`."""
    return np.clip((values - median) / scale, -MAX_Z, MAX_Z)


def mahalanobis(whitened: Float64) -> Float64:
    """Distance of each whitened row (n, F) from the photographs' mean, (n,)."""
    result: Float64 = np.sqrt(np.square(whitened).sum(axis=1))
    return result


def neighbour_distance(whitened: Float64, photographs: Float64) -> Float64:
    """Mean distance of each row (n, F) to the `NEIGHBOURS` nearest of the photographs (m, F), m >= 5, (n,)."""
    squares = np.square(whitened).sum(axis=1)[:, None] + np.square(photographs).sum(axis=1)[None]
    distances = np.sqrt(np.maximum(squares - 2.0 * whitened @ photographs.T, 0.0))
    result: Float64 = np.partition(distances, NEIGHBOURS - 1, axis=1)[:, :NEIGHBOURS].mean(axis=1)
    return result


def whitening_of(covariance: Float64) -> Float64:
    """W (F, F) with W W^T the inverse covariance: rows x @ W have unit covariance."""
    result: Float64 = np.linalg.inv(np.linalg.cholesky(covariance)).T
    return result


def ledoit_wolf(centred: Float64) -> Float64:
    """Covariance of centred rows (n, F), shrunk towards a multiple of the identity, (F, F).

    Source: Ledoit & Wolf 2004, A well-conditioned estimator for large-dimensional covariance matrices,
    Journal of Multivariate Analysis 88(2), equations 6 to 16: d2 is the dispersion of the sample covariance
    around its target, b2 the part of it that is estimation error.
    """
    n, p = centred.shape
    sample = centred.T @ centred / n
    target = np.trace(sample) / p * np.eye(p)
    d2 = np.square(sample - target).sum()
    fourth = np.square(np.square(centred).sum(axis=1)).sum()
    b2 = min((fourth / n - np.square(sample).sum()) / n, d2)
    shrinkage = b2 / d2 if d2 > 0 else 1.0
    result: Float64 = shrinkage * target + (1.0 - shrinkage) * sample
    return result
