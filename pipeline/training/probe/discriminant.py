"""A linear discriminant whose covariance is taken within sources: what tells sources apart is no evidence.

Between a source of photographs and a generator there are more differences than traces: subject, camera, size,
compression. Directions along which one and the same source varies much are shrunk, so that the head rests on
those that are steady within every source and differ between the classes (Fisher 1936, with a ridge on the pooled
within-group covariance as in Friedman 1989, Regularized Discriminant Analysis, JASA 84).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from scipy.optimize import minimize
from scipy.special import expit

from pipeline.detection.calibration import Bools, Floats

Float32 = npt.NDArray[np.float32]
Names = npt.NDArray[np.str_]

RIDGES = (10.0, 3.0, 1.0, 0.3, 0.1, 0.03)
"""Ridge strengths that cross-validation chooses from, in units of ten mean eigenvalues; strongest first."""

_EIGENVALUE_FLOOR = 1e-9


@dataclass(frozen=True, slots=True)
class Linear:
    """logit = x . weights + bias, on features as the backbone gives them; weights float64 (D,)."""

    weights: Floats
    bias: float

    def logits(self, x: npt.NDArray[np.generic]) -> Floats:
        """Raw logits, float64 (...,), of features (..., D)."""
        return np.asarray(x.astype(np.float32) @ self.weights.astype(np.float32) + self.bias, np.float64)


@dataclass(frozen=True, slots=True)
class Examples:
    """Features float32 (N, D); labels (N,); the unit (source or decoder family) of each (N,); weights (N,)."""

    x: Float32
    synthetic: Bools
    unit: Names
    weight: Floats

    @staticmethod
    def joined(parts: Sequence[Examples]) -> Examples:
        """All parts together, their weights as they are."""
        return Examples(
            np.concatenate([p.x for p in parts]),
            np.concatenate([p.synthetic for p in parts]),
            np.concatenate([p.unit for p in parts]),
            np.concatenate([p.weight for p in parts]),
        )


def fit(examples: Examples, ridges: Sequence[float] = RIDGES) -> list[Linear]:
    """One head a ridge, from one eigendecomposition.

    Raises:
        ValueError: one class only.
    """
    synthetic = examples.synthetic
    if synthetic.all() or not synthetic.any():
        raise ValueError("synthetic: a discriminant needs images of both classes")
    mean, spread, share = _standard(examples)
    z = (examples.x - mean) / spread
    apart = _mean(z, share, synthetic) - _mean(z, share, ~synthetic)
    values, vectors = _eigen(_within(z, share, examples.unit))
    projected = vectors.T @ apart
    rest = apart - vectors @ projected
    unit_ridge = 10.0 * values.sum() / min(z.shape)
    heads = []
    for ridge in ridges:
        strength = ridge * unit_ridge
        weights = (vectors @ (projected / (values + strength)) + rest / strength) / spread
        heads.append(Linear(weights, -float(weights @ mean)))
    return heads


def logistic_fit(examples: Examples, penalties: Sequence[float] = RIDGES) -> list[Linear]:
    """The plain probe: least weighted log loss + penalty/20 |w|^2 on standardised features, one head a penalty.

    The penalties are read on the scale of the ridges divided by ten, so that both search the same list.
    """
    mean, spread, share = _standard(examples)
    z = (examples.x - mean) / spread
    sign = np.where(examples.synthetic, 1.0, -1.0).astype(np.float32)

    def loss(parameters: Floats, penalty: float) -> tuple[float, Floats]:
        w, bias = parameters[:-1].astype(np.float32), parameters[-1]
        margin = sign * (z @ w + np.float32(bias))
        pull = -share * sign * expit(-margin)
        value = float(share @ np.logaddexp(0.0, -margin)) + penalty / 20.0 * float(w @ w)
        return value, np.append(z.T @ pull + penalty / 10.0 * w, pull.sum()).astype(np.float64)

    start = np.zeros(z.shape[1] + 1)
    heads = []
    for penalty in penalties:
        start = minimize(loss, start, (penalty,), jac=True, method="L-BFGS-B", options={"maxiter": 150}).x
        weights = start[:-1] / spread
        heads.append(Linear(weights, float(start[-1] - weights @ mean)))
    return heads


def balanced(unit: Names, synthetic: Bools, power: float) -> Floats:
    """Weights that give both classes the same sum and, within a class, every unit n^(1 - power) of it.

    `power` 1: every source or family counts alike, 0: every image does.
    """
    weights = np.zeros(len(unit))
    for label in (False, True):
        of_class = synthetic == label
        if of_class.any():
            _, index, counts = np.unique(unit[of_class], return_inverse=True, return_counts=True)
            each = counts[index] ** -power
            weights[of_class] = each / each.sum()
    return weights


def _standard(examples: Examples) -> tuple[Float32, Float32, Float32]:
    """Weighted mean and spread of every feature, (D,), and the weights with sum 1, (N,)."""
    share = (examples.weight / examples.weight.sum()).astype(np.float32)
    mean = share @ examples.x
    spread = np.sqrt(share @ np.square(examples.x - mean)) + np.float32(1e-3 * float(np.abs(examples.x).mean()))
    return mean, spread, share


def _mean(z: Float32, share: Float32, chosen: Bools) -> Floats:
    return np.asarray(share[chosen] @ z[chosen] / share[chosen].sum(), np.float64)


def _within(z: Float32, share: Float32, unit: Names) -> Float32:
    """Weighted deviations from each unit's own mean, (N, D): their Gram matrix is the pooled covariance."""
    deviations = z.copy()
    for name in np.unique(unit):
        of_unit = unit == name
        deviations[of_unit] -= share[of_unit] @ z[of_unit] / share[of_unit].sum()
    deviations *= np.sqrt(share)[:, None]
    return deviations


def _eigen(deviations: Float32) -> tuple[Floats, Floats]:
    """Eigenvalues (R,) and vectors (D, R) of the covariance, by the smaller of the two Gram matrices."""
    count, dimensions = deviations.shape
    if count > dimensions:
        values, vectors = np.linalg.eigh((deviations.T @ deviations).astype(np.float64))
        return np.clip(values, 0.0, None), vectors
    values, inner = np.linalg.eigh((deviations @ deviations.T).astype(np.float64))
    kept = values > values[-1] * _EIGENVALUE_FLOOR
    return values[kept], (deviations.T.astype(np.float64) @ inner[:, kept]) / np.sqrt(values[kept])
