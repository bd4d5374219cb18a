"""A weighted logistic head on standardised features."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from scipy.optimize import minimize
from scipy.special import expit

from pipeline.detection.calibration import Bools, Floats

Float32 = npt.NDArray[np.float32]

PENALTIES = (3.0, 1.0, 0.3, 0.1, 0.03, 0.01, 0.003)
"""Strengths of the L2 penalty that cross-validation chooses from, strongest first."""


@dataclass(frozen=True, slots=True)
class Linear:
    """logit = x . weights + bias, on features as the backbone gives them; float64 (D,)."""

    weights: Floats
    bias: float

    def logits(self, x: npt.NDArray[np.generic]) -> Floats:
        """Raw logits, float64 (...,), of features (..., D)."""
        result: Floats = x.astype(np.float32) @ self.weights.astype(np.float32) + self.bias
        return result.astype(np.float64)


def fit_path(x: Float32, synthetic: Bools, sample: Floats, penalties: Sequence[float] = PENALTIES) -> list[Linear]:
    """One head a penalty: least weighted mean log loss + penalty/2 |w|^2 on standardised features.

    Args:
        x: features, float32 (N, D).
        synthetic: labels, (N,).
        sample: weights, (N,), any scale; they also weight the standardisation.
        penalties: in descending order: each fit starts from the one before.
    """
    share = (sample / sample.sum()).astype(np.float32)
    mean = share @ x
    spread = np.sqrt(share @ np.square(x - mean)) + 1e-3 * float(np.abs(x).mean())
    z = (x - mean) / spread
    sign = np.where(synthetic, 1.0, -1.0).astype(np.float32)

    def loss(parameters: Floats, penalty: float) -> tuple[float, Floats]:
        w, bias = parameters[:-1].astype(np.float32), parameters[-1]
        margin = sign * (z @ w + np.float32(bias))
        slope = -share * sign * expit(-margin)
        value = float(share @ np.logaddexp(0.0, -margin)) + penalty / 2.0 * float(w @ w)
        return value, np.append(z.T @ slope + penalty * w, slope.sum()).astype(np.float64)

    start = np.zeros(x.shape[1] + 1)
    heads = []
    for penalty in penalties:
        start = minimize(loss, start, (penalty,), jac=True, method="L-BFGS-B", options={"maxiter": 150}).x
        weights = start[:-1] / spread
        heads.append(Linear(weights, float(start[-1] - weights @ mean)))
    return heads


def balanced(unit: npt.NDArray[np.str_], synthetic: Bools, power: float = 1.0) -> Floats:
    """Weights that give both classes the same sum and, within a class, every unit n^(1 - power) of it.

    `power` 1: every source or family counts alike, 0: every image does.
    """
    weights = np.zeros(len(unit))
    for label in (False, True):
        names, index, counts = np.unique(unit[synthetic == label], return_inverse=True, return_counts=True)
        if len(names):
            each = counts[index] ** -power
            weights[synthetic == label] = each / each.sum()
    return weights
