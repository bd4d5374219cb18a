"""Logits and probabilities: safe conversions, and the calibration between them.

Few labelled scores (under `ISOTONIC_FROM`) carry a temperature and a bias, or a bias alone; many carry a monotone
table (isotonic regression).
"""

from __future__ import annotations

from typing import Annotated, Literal, Self, TypeAlias

import numpy as np
import numpy.typing as npt
from pydantic import BaseModel, ConfigDict, Field, SerializerFunctionWrapHandler, model_serializer, model_validator
from scipy.special import expit

LOGIT_LIMIT = 13.8
"""About logit(1 - 1e-6): no single score may outweigh all other evidence without bound."""

ISOTONIC_FROM = 1000
"""Items from which a table is fitted; with fewer its steps would be noise."""

MAX_KNOTS = 64

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


Method: TypeAlias = Literal["temperature", "bias", "isotonic"]


class Knot(BaseModel):
    """One point of the table: this scaled logit means this logit of P(synthetic)."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    x: Annotated[float, Field(ge=-1e6, le=1e6)]
    y: Annotated[float, Field(ge=-LOGIT_LIMIT, le=LOGIT_LIMIT)]


class Calibration(BaseModel):
    """P(synthetic) = sigmoid(g(logit / temperature + bias)), at the prior for which it was fitted.

    g is the identity, or the line through `table`; beyond its ends g goes on at slope 1, so that no two scores
    that differ become equal there.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    temperature: Annotated[float, Field(gt=0.0, le=1e3, description="divides the raw logit")] = 1.0
    bias: Annotated[float, Field(ge=-50.0, le=50.0, description="added after the division")] = 0.0
    table: Annotated[
        tuple[Knot, ...], Field(max_length=MAX_KNOTS, description="monotone, of isotonic regression; empty for none")
    ] = ()

    @model_validator(mode="after")
    def _is_monotone(self) -> Self:
        pairs = list(zip(self.table, self.table[1:], strict=False))
        if any(a.x >= b.x or a.y > b.y for a, b in pairs):
            raise ValueError("table: x must rise from knot to knot, and y must not fall")
        return self

    @model_serializer(mode="wrap")
    def _without_an_empty_table(self, handler: SerializerFunctionWrapHandler) -> dict[str, object]:
        """The form that was written before tables existed, where there is none."""
        content: dict[str, object] = handler(self)
        return content if self.table else {name: value for name, value in content.items() if name != "table"}

    def probability(self, raw_logit: float) -> float:
        """P(synthetic) of one raw logit; NaN stays NaN."""
        return float(self.probabilities(np.array([raw_logit]))[0])

    def probabilities(self, raw_logits: Floats) -> Floats:
        """P(synthetic) of many raw logits, float64 of the same shape."""
        scaled = np.asarray(raw_logits, np.float64) / self.temperature + self.bias
        found: Floats = expit(self._through_table(scaled) if self.table else scaled)
        return found

    def _through_table(self, scaled: Floats) -> Floats:
        x = np.array([knot.x for knot in self.table])
        y = np.array([knot.y for knot in self.table])
        beyond = scaled - np.clip(scaled, x[0], x[-1])
        return np.asarray(np.interp(scaled, x, y) + beyond, np.float64)


def fit_calibration(
    raw_logits: Floats, synthetic: Bools, prior: float = 0.5, method: Method | None = None
) -> Calibration:
    """The calibration that the number of items can carry: a table from `ISOTONIC_FROM`, else a temperature and bias.

    Args:
        raw_logits: float (N,), of images that the model was not fitted on.
        synthetic: bool (N,), the labels.
        prior: the share of synthetic media at which the result is a probability.
        method: to choose by hand; `isotonic` under `ISOTONIC_FROM` items is refused.

    Raises:
        ValueError: one class only, scores that do not rise with the label, or too few items for a table.
    """
    chosen = method or ("isotonic" if raw_logits.size >= ISOTONIC_FROM else "temperature")
    if chosen == "temperature":
        return fit(raw_logits, synthetic, prior)
    if chosen == "bias":
        return fit_bias(raw_logits, synthetic, prior)
    if raw_logits.size < ISOTONIC_FROM:
        raise ValueError(f"method isotonic needs {ISOTONIC_FROM} items, got {raw_logits.size}; use temperature or bias")
    return fit_isotonic(raw_logits, synthetic, prior)


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
    weights, targets = _weights_and_targets(synthetic, prior)

    def loss(parameters: Floats) -> float:
        slope, bias = parameters
        z = slope * raw_logits + bias
        return float(np.sum(weights * (np.logaddexp(0.0, z) - targets * z)))

    from scipy.optimize import minimize  # noqa: PLC0415 - half a second that only fitting needs

    slope, bias = minimize(loss, np.array([1.0, 0.0]), method="Nelder-Mead", options={"maxiter": 4000}).x
    if slope <= 0.0:
        raise ValueError(f"raw_logits: they fall as the label rises (slope {slope:.3g}); retrain the model")
    return Calibration(temperature=1.0 / float(slope), bias=float(bias))


def fit_bias(raw_logits: Floats, synthetic: Bools, prior: float = 0.5) -> Calibration:
    """The bias of least log loss at temperature 1, as `fit` weights it: one number, for a handful of items.

    Raises:
        ValueError: one class only.
    """
    weights, targets = _weights_and_targets(synthetic, prior)
    from scipy.optimize import brentq  # noqa: PLC0415 - half a second that only fitting needs

    def slope(bias: float) -> float:
        return float(np.sum(weights * (expit(raw_logits + bias) - targets)))

    low, high = -50.0, 50.0
    if slope(low) > 0.0 or slope(high) < 0.0:
        raise ValueError("raw_logits: no bias within +-50 centres them; fit a temperature, or retrain the model")
    return Calibration(bias=float(brentq(slope, low, high)))


def fit_isotonic(raw_logits: Floats, synthetic: Bools, prior: float = 0.5) -> Calibration:
    """A monotone table over the temperature and bias of `fit`, by isotonic regression of the weighted labels.

    Pooled blocks become knots at their weighted mean score. Each block's share is drawn towards its class prior by
    one item, so that pure blocks stay finite; blocks beyond `MAX_KNOTS` are merged by equal weight.

    Raises:
        ValueError: as `fit`.
    """
    base = fit(raw_logits, synthetic, prior)
    weights, _ = _weights_and_targets(synthetic, prior)
    scaled = raw_logits / base.temperature + base.bias
    from scipy.optimize import isotonic_regression  # noqa: PLC0415 - half a second that only fitting needs

    order = np.argsort(scaled, kind="stable")
    x, w, label = scaled[order], weights[order], synthetic[order].astype(np.float64)
    groups = _groups(x, w)
    mass = np.bincount(groups, w)
    share = np.bincount(groups, w * label) / mass
    found = isotonic_regression(share, weights=mass)
    blocks = np.repeat(np.arange(len(found.blocks) - 1), np.diff(found.blocks))[groups]
    total = np.bincount(blocks, w)
    one = 1.0 / len(x)
    p = (np.bincount(blocks, w * label) + one * prior) / (total + one)
    centre = np.bincount(blocks, w * x) / total
    y = np.clip(np.log(p) - np.log1p(-p), -LOGIT_LIMIT, LOGIT_LIMIT)
    heights = np.maximum.accumulate(y)
    knots = tuple(Knot(x=float(a), y=float(b)) for a, b in zip(centre, heights, strict=True))
    return Calibration(temperature=base.temperature, bias=base.bias, table=knots)


def _groups(x: Floats, weights: Floats) -> npt.NDArray[np.int64]:
    """Number of the group of each sorted score: equal scores together, at most `MAX_KNOTS` of about equal weight."""
    before = np.cumsum(weights) - weights
    bins = np.minimum((before / weights.sum() * MAX_KNOTS).astype(np.int64), MAX_KNOTS - 1)
    first = np.concatenate([[True], np.diff(x) > 0.0])
    leader = np.maximum.accumulate(np.where(first, np.arange(x.size), 0))
    _, groups = np.unique(bins[leader], return_inverse=True)
    return np.asarray(groups, np.int64)


def _weights_and_targets(synthetic: Bools, prior: float) -> tuple[Floats, Floats]:
    """Weights that make the classes count by `prior`, and Platt's smoothed targets.

    Raises:
        ValueError: one class only.
    """
    count, others = int(synthetic.sum()), int((~synthetic).sum())
    if not count or not others:
        raise ValueError("synthetic: calibration needs images of both classes")
    weights = np.where(synthetic, prior / count, (1.0 - prior) / others)
    targets = np.where(synthetic, (count + 1) / (count + 2), 1 / (others + 2))
    return weights, targets
