"""The MLLM's map and its weight w3, fitted on what it said of labelled images; cross-fitted by source.

The MLLM reads the numbers of stage 2, so what it says is not independent of the fused score p12. w3 is therefore its
coefficient beside free ones of p12: logit P = bias + slope logit(p12) + w3 logit(q), where q is the mapped probability
of an image by a map that its source had no part in. It counts only when its lower bound is above 0 and it
lowers the loss on sources that had no part in the fit.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy.special import expit

from pipeline.detection.calibration import LOGIT_LIMIT, Bools, Calibration, Floats, fit_calibration, logit
from pipeline.evaluation.intervals import Interval, cluster_bootstrap
from pipeline.evaluation.stacking import POOLED_SHRINKAGE, Scored, folds_by_source

MIN_PER_CLASS = 50
MAX_WEIGHT = 4.0
_TOWARD = np.array([0.0, 1.0, 0.0])
"""Bias, slope and w3 of a model that says nothing new."""
_NEWTON_STEPS = 50
_ROUNDS = 1000


class TooFewAnswers(Exception):
    """Answers on which nothing may be fitted; the text says what is missing."""


@dataclass(frozen=True, slots=True)
class Answers:
    """What the model said of N images: p12 and raw P(synthetic) float (N,), labels bool (N,), sources."""

    p12: Floats
    raw: Floats
    synthetic: Bools
    source: tuple[str, ...]

    def __len__(self) -> int:
        return len(self.source)


@dataclass(frozen=True, slots=True)
class FittedWeight:
    """`map` is fitted on all answers. `estimate` and `interval` are of w3; `weight` is what the policy gets.

    `loss_without`, `loss_with`: log loss of p12 alone and with w3 under the clip, on sources that had no part in
    the fit, classes weighted to the prior; the second uses w3 whatever its bound.
    """

    map: Calibration
    estimate: float
    interval: Interval
    weight: float
    loss_without: float
    loss_with: float


def fit_weight(answers: Answers, prior: float, clip: tuple[float, float], rounds: int = _ROUNDS) -> FittedWeight:
    """Fit map and weight.

    Args:
        answers: of images that neither the model nor the first two stages were trained on.
        prior: the share of synthetic media at which scores are probabilities.
        clip: the policy's `mllm_clip`.
        rounds: of the bootstrap over sources.

    Raises:
        TooFewAnswers: fewer than `MIN_PER_CLASS` of a class.
        StackingError: fewer than two sources of a class.
        ValueError: what the model says does not rise with the label, so that no map exists.
    """
    y = answers.synthetic
    for kind, count in (("generated", int(y.sum())), ("real", int((~y).sum()))):
        if count < MIN_PER_CLASS:
            raise TooFewAnswers(f"{count} answers on {kind} images: calibration needs {MIN_PER_CLASS} of each class")
    said = np.array([logit(p) for p in answers.raw.tolist()])
    before = np.array([logit(p) for p in answers.p12.tolist()])
    fold = folds_by_source(Scored(answers.p12, answers.raw, y, ("",) * len(answers), answers.source))
    mapped, after = np.zeros(len(answers)), np.zeros(len(answers))
    for number in range(int(fold.max()) + 1):
        test = fold == number
        mapped[test] = _mapped(said[~test], y[~test], prior, said[test])
    for number in range(int(fold.max()) + 1):
        test = fold == number
        weights = _class_weights(y[~test], prior)
        w3 = max(0.0, _fit(before[~test], mapped[~test], y[~test], weights)[2])
        after[test] = before[test] + np.clip(w3 * mapped[test], *clip)
    estimate = float(_fit(before, mapped, y, _class_weights(y, prior))[2])
    interval = _bootstrap(before, mapped, answers, prior, rounds)
    loss_without, loss_with = _log_loss(before, y, prior), _log_loss(after, y, prior)
    counts = interval.low > 0.0 and loss_with < loss_without
    return FittedWeight(
        map=fit_calibration(said, y, prior),
        estimate=estimate,
        interval=interval,
        weight=round(min(MAX_WEIGHT, estimate), 6) if counts else 0.0,
        loss_without=loss_without,
        loss_with=loss_with,
    )


def _bootstrap(before: Floats, mapped: Floats, answers: Answers, prior: float, rounds: int) -> Interval:
    """95 % of w3 when whole sources are drawn; its low end is the bound, so the bound's own level is 97.5 %."""
    y = answers.synthetic
    real, generated = np.flatnonzero(~y), np.flatnonzero(y)

    def statistic(real_weights: Floats, generated_weights: Floats) -> float:
        drawn = np.zeros(len(answers))
        drawn[real] = real_weights * (1.0 - prior) / max(1.0, real_weights.sum())
        drawn[generated] = generated_weights * prior / max(1.0, generated_weights.sum())
        return float(_fit(before, mapped, y, drawn * len(answers))[2])

    sources = np.asarray(answers.source, dtype=object).astype(str)
    found = cluster_bootstrap(statistic, list(sources[real]), list(sources[generated]), rounds=rounds)
    assert found is not None  # noqa: S101 - `folds_by_source` has refused fewer than two sources of a class
    return found


def _fit(before: Floats, mapped: Floats, y: Bools, weights: Floats) -> Floats:
    """Bias, slope and w3 of least weighted log loss with a normal prior around `_TOWARD`, by Newton's method.

    w3 is the coefficient of what p12 does not explain of `mapped` (least squares), which without the prior is the same
    (Frisch and Waugh 1933). With it, a mere repeater of p12 gets 0, and not a part of what p12's own slope lacks. The
    loss is strictly convex, so the damped steps end at its one minimum.
    """
    own = np.column_stack([np.ones(len(y)), before])
    root = np.sqrt(weights)[:, None]
    explained = np.linalg.lstsq(own * root, mapped * root[:, 0], rcond=None)[0]
    x = np.column_stack([own, mapped - own @ explained])
    beta = _TOWARD.copy()
    for _ in range(_NEWTON_STEPS):
        p = expit(x @ beta)
        gradient = x.T @ (weights * (p - y)) + POOLED_SHRINKAGE * (beta - _TOWARD)
        hessian = (x.T * (weights * p * (1.0 - p))) @ x + POOLED_SHRINKAGE * np.eye(3)
        step = np.linalg.solve(hessian, gradient)
        length = float(np.abs(step).max())
        beta = beta - step * min(1.0, 1.0 / length if length else 1.0)
        if length < 1e-9:
            break
    return np.asarray(beta, np.float64)


def _mapped(said_elsewhere: Floats, y: Bools, prior: float, said: Floats) -> Floats:
    """Logits by a map of other sources; 0, which says nothing, where there the answers do not rise with the label."""
    try:
        p = fit_calibration(said_elsewhere, y, prior).probabilities(said)
    except ValueError:
        return np.zeros(said.size)
    with np.errstate(divide="ignore"):
        return np.asarray(np.clip(np.log(p) - np.log1p(-p), -LOGIT_LIMIT, LOGIT_LIMIT), np.float64)


def _class_weights(y: Bools, prior: float) -> Floats:
    """As if `prior` of the images were generated; the sum is the number of images."""
    weights: Floats = len(y) * np.where(y, prior / max(1, int(y.sum())), (1.0 - prior) / max(1, int((~y).sum())))
    return weights


def _log_loss(logits: Floats, y: Bools, prior: float) -> float:
    return float(_class_weights(y, prior) @ (np.logaddexp(0.0, logits) - y * logits) / len(y))
