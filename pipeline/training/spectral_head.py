"""The head of the spectral tier: a logistic regression on standardised features that must carry over to new sources."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import scipy.optimize
import scipy.special

from pipeline.detection.spectral.kernel import Float64
from pipeline.training.dataset import Labelled, source_folds

L2_PENALTY = 1.0
INNER_FOLDS = 4

Flags = npt.NDArray[np.bool_]


@dataclass(frozen=True, slots=True)
class Head:
    """Logit of P(synthetic) at prior 0.5 = weights (F,) @ z + intercept."""

    weights: Float64
    intercept: float


def fit_head(rows: Sequence[Labelled], z: Float64, chosen: Sequence[int], l2: float = L2_PENALTY) -> Head:
    """Fit to the chosen columns of standardised features z (n, F), a row of `rows` each; other weights are 0.

    Scale and offset are calibrated on folds of held-out sources. Where the evidence does not carry over to unseen
    sources at all, the head is zero: it says 0.5 to everything, which is what is known.
    """
    labels = np.array([row.synthetic for row in rows])
    weights = sample_weights(rows)
    folds = np.array(source_folds(rows, INNER_FOLDS))
    used = z[:, list(chosen)]
    held_out = np.zeros(len(labels))
    for fold in range(INNER_FOLDS):
        train, test = folds != fold, folds == fold
        w, b = fit_logistic(used[train], labels[train], weights[train], l2)
        held_out[test] = used[test] @ w + b
    slope, offset = fit_logistic(held_out[:, None], labels, weights, 0.0)
    embedded = np.zeros(z.shape[1])
    if slope[0] <= 0.0:
        return Head(embedded, 0.0)
    w, b = fit_logistic(used, labels, weights, l2)
    embedded[list(chosen)] = slope[0] * w
    return Head(embedded, float(slope[0] * b + offset))


def fit_logistic(z: Float64, labels: Flags, weights: Float64, l2: float) -> tuple[Float64, float]:
    """Minimise the weighted mean log loss + l2/2 * |w|^2 over weights (F,) and an unpenalised intercept."""
    signs = np.where(labels, 1.0, -1.0)
    mass = weights / weights.sum()

    def loss(parameters: Float64) -> tuple[float, Float64]:
        w, b = parameters[:-1], parameters[-1]
        margin = signs * (z @ w + b)
        pull = -mass * signs * scipy.special.expit(-margin)
        value = float(mass @ np.logaddexp(0.0, -margin) + 0.5 * l2 * (w @ w))
        return value, np.append(z.T @ pull + l2 * w, pull.sum())

    found = scipy.optimize.minimize(loss, np.zeros(z.shape[1] + 1), jac=True, method="L-BFGS-B")
    return found.x[:-1], float(found.x[-1])


def sample_weights(rows: Sequence[Labelled]) -> Float64:
    """Both classes weigh 1/2; within one a source weighs as the square root of its number of copies."""
    counts: dict[tuple[bool, str], int] = {}
    for row in rows:
        counts[row.synthetic, row.source] = counts.get((row.synthetic, row.source), 0) + 1
    weights = np.array([counts[row.synthetic, row.source] ** -0.5 for row in rows])
    labels = np.array([row.synthetic for row in rows])
    for label in (False, True):
        weights[labels == label] *= 0.5 / weights[labels == label].sum()
    return weights
