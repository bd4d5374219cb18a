"""Logits and probabilities: safe conversions, and the temperature and bias between them."""

from __future__ import annotations

from typing import Annotated, TypeAlias

import numpy as np
import numpy.typing as npt
from pydantic import BaseModel, ConfigDict, Field
from scipy.special import expit

LOGIT_LIMIT = 13.8
"""About logit(1 - 1e-6): no single score may outweigh all other evidence without bound."""

Floats: TypeAlias = npt.NDArray[np.float64]
Bools: TypeAlias = npt.NDArray[np.bool_]


def sigmoid(logit: float) -> float:
    """1 / (1 + exp(-logit)) without overflow; NaN stays NaN."""
    return float(expit(logit))


def logit(probability: float) -> float:
    """log(p / (1 - p)), clipped to +-`LOGIT_LIMIT`.

    Raises:
        ValueError: not a number within [0, 1].
    """
    if not 0.0 <= probability <= 1.0:
        raise ValueError(f"a probability must lie within [0, 1], got {probability!r}")
    if probability in {0.0, 1.0}:
        return LOGIT_LIMIT if probability else -LOGIT_LIMIT
    return float(np.clip(np.log(probability) - np.log1p(-probability), -LOGIT_LIMIT, LOGIT_LIMIT))


class Calibration(BaseModel):
    """P(synthetic) = sigmoid(logit / temperature + bias), at the prior for which it was fitted."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    temperature: Annotated[float, Field(gt=0.0, le=1e3, description="divides the raw logit")] = 1.0
    bias: Annotated[float, Field(ge=-50.0, le=50.0, description="added after the division")] = 0.0

    def probability(self, raw_logit: float) -> float:
        """P(synthetic) of one raw logit; NaN stays NaN."""
        return sigmoid(raw_logit / self.temperature + self.bias)

    def probabilities(self, raw_logits: Floats) -> Floats:
        """P(synthetic) of many raw logits, float64 of the same shape."""
        scaled: Floats = expit(np.asarray(raw_logits, np.float64) / self.temperature + self.bias)
        return scaled


def fit(raw_logits: Floats, synthetic: Bools, prior: float = 0.5) -> Calibration:
    """Temperature and bias of least log loss, the classes weighted to `prior` (Platt scaling, slope > 0).

    The targets are Platt's (n+1)/(n+2) and 1/(n+2), so that separable scores get a finite temperature.

    Args:
        raw_logits: float (N,), of images that the model was not fitted on.
        synthetic: bool (N,), the labels.
        prior: the share of synthetic media at which the result is a probability.

    Raises:
        ValueError: one class only, or logits that do not rise with the label, so that no temperature exists.
    """
    count, others = int(synthetic.sum()), int((~synthetic).sum())
    if not count or not others:
        raise ValueError("synthetic: calibration needs images of both classes")
    weights = np.where(synthetic, prior / count, (1.0 - prior) / others)
    targets = np.where(synthetic, (count + 1) / (count + 2), 1 / (others + 2))

    def loss(parameters: Floats) -> float:
        slope, bias = parameters
        z = slope * raw_logits + bias
        return float(np.sum(weights * (np.logaddexp(0.0, z) - targets * z)))

    from scipy.optimize import minimize  # noqa: PLC0415 - half a second that only fitting needs

    slope, bias = minimize(loss, np.array([1.0, 0.0]), method="Nelder-Mead", options={"maxiter": 4000}).x
    if slope <= 0.0:
        raise ValueError(f"raw_logits: they fall as the label rises (slope {slope:.3g}); retrain the model")
    return Calibration(temperature=1.0 / float(slope), bias=float(bias))
