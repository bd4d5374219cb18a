"""A logistic head on frozen features, its regularisation and its calibration chosen by source."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TypeAlias

import numpy as np
import numpy.typing as npt
from scipy.optimize import minimize
from scipy.special import expit

from pipeline.detection.calibration import Bools, Calibration, Floats, fit

Ints: TypeAlias = npt.NDArray[np.int64]

PENALTIES = tuple(10.0**e for e in (-5, -4.5, -4, -3.5, -3, -2.5, -2, -1.5, -1))
"""Strengths of the L2 penalty on standardised features that inner cross-validation chooses from."""


@dataclass(frozen=True)
class Crops:
    """Features of crops, float32 (N, D); the image each was cut from, (N,); each image's label, (M,)."""

    features: npt.NDArray[np.float32]
    image: Ints
    synthetic: Bools

    def of(self, images: Bools) -> Bools:
        """Which crops belong to the chosen images."""
        chosen: Bools = images[self.image]
        return chosen


@dataclass(frozen=True)
class Head:
    """logit = features . weights + bias, on features as the backbone gives them."""

    weights: Floats
    bias: float

    def image_logits(self, crops: Crops) -> Floats:
        """Mean logit over each image's crops, float64 (M,)."""
        logits = crops.features.astype(np.float64) @ self.weights + self.bias
        return np.bincount(crops.image, logits) / np.bincount(crops.image)


@dataclass(frozen=True)
class Model:
    """A head with the penalty it was fitted at, and the calibration of its kind."""

    head: Head
    penalty: float
    calibration: Calibration


def fit_heads(crops: Crops, images: Bools, penalties: Sequence[float] = PENALTIES) -> list[Head]:
    """Least mean log loss + penalty/2 |w|^2 on standardised features; one head a penalty, strongest first.

    Every image counts alike within its class, however many crops it gave, and both classes count alike.
    """
    rows = crops.of(images)
    x = crops.features[rows].astype(np.float64)
    mean, spread = x.mean(axis=0), x.std(axis=0) + 1e-6
    x = (x - mean) / spread
    image = crops.image[rows]
    label = crops.synthetic[image]
    per_image = 1.0 / np.bincount(crops.image)[image]
    sample = np.where(label, per_image / per_image[label].sum(), per_image / per_image[~label].sum()) / 2.0
    sign = np.where(label, 1.0, -1.0)
    start = np.zeros(x.shape[1] + 1)
    heads = []
    for penalty in sorted(penalties, reverse=True):
        start = minimize(_loss, start, (x, sign, sample, penalty), jac=True, method="L-BFGS-B").x
        weights = start[:-1] / spread
        heads.append(Head(weights, float(start[-1] - weights @ mean)))
    return heads


def fit_model(crops: Crops, fold: Ints, images: Bools) -> Model:
    """Choose the penalty and the calibration by leaving out one fold of `images` after another; refit on all.

    Args:
        crops: features and labels.
        fold: (M,), the fold of each image; a source lies in one fold.
        images: which images may be used at all.
    """
    penalties = sorted(PENALTIES, reverse=True)
    held_out = np.full((len(penalties), images.size), np.nan)
    for number in np.unique(fold[images]):
        test = images & (fold == number)
        for row, head in enumerate(fit_heads(crops, images & ~test)):
            held_out[row, test] = head.image_logits(crops)[test]
    losses = [_balanced_log_loss(row[images], crops.synthetic[images]) for row in held_out]
    best = int(np.argmin(losses))
    calibration = fit(held_out[best, images], crops.synthetic[images])
    return Model(fit_heads(crops, images)[best], penalties[best], calibration)


def _loss(parameters: Floats, x: Floats, sign: Floats, sample: Floats, penalty: float) -> tuple[float, Floats]:
    weights, bias = parameters[:-1], parameters[-1]
    margin = sign * (x @ weights + bias)
    value = float(sample @ np.logaddexp(0.0, -margin)) + penalty / 2.0 * float(weights @ weights)
    slope = -sample * sign * expit(-margin)
    return value, np.append(x.T @ slope + penalty * weights, slope.sum())


def _balanced_log_loss(logits: Floats, synthetic: Bools) -> float:
    """Log loss after the best temperature and bias: what will be shipped is calibrated, too."""
    calibration = fit(logits, synthetic)
    p = np.clip(calibration.probabilities(logits), 1e-12, 1.0 - 1e-12)
    return float(-np.log(p[synthetic]).mean() - np.log1p(-p[~synthetic]).mean()) / 2.0
