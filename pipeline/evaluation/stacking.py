"""Fusion weights by stacking: a logistic on the two stages' logits, cross-fitted by source.

The weights of a codec bucket are shrunk toward the common ones, and classes are weighted to the prior within each
bucket: that one codec holds more generated images than another is a fact of the sample, and must not be learned.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass

import numpy as np
from scipy.special import expit
from scipy.special import logit as unbounded_logit

from pipeline.detection.calibration import LOGIT_LIMIT, Bools, Floats
from pipeline.detection.policy import Fusion, FusionWeights

FOLDS = 5
SHRINKAGE = 5.0
"""A codec's weights have a normal prior around the common ones, of this precision (1/variance)."""
POOLED_SHRINKAGE = 1.0
"""The same of the common weights around the default ones; it keeps them finite where the scores separate."""
MIN_PER_CLASS = 20
"""A codec bucket with fewer images of a class uses the common weights."""
_BOUNDS = ((0.0, 4.0), (0.0, 4.0), (-10.0, 10.0))


class StackingError(Exception):
    """Scores on which no weights can be fitted; the text says what is missing."""


@dataclass(frozen=True, slots=True)
class Scored:
    """What both stages said of N images: s1, s2 float (N,) in [0, 1], labels, codec buckets and sources."""

    s1: Floats
    s2: Floats
    synthetic: Bools
    codec: tuple[str, ...]
    source: tuple[str, ...]

    def take(self, chosen: Bools) -> Scored:
        """The chosen images."""
        where = np.flatnonzero(chosen)
        return Scored(
            self.s1[where],
            self.s2[where],
            self.synthetic[where],
            tuple(self.codec[i] for i in where),
            tuple(self.source[i] for i in where),
        )


@dataclass(frozen=True, slots=True)
class Stacked:
    """`fusion` is fitted on all images; `held_out` (N,) is P(synthetic) of each by weights of other sources.

    `log_loss` is that of the held-out scores, classes weighted to the prior, of every candidate; the lowest is used.
    """

    fusion: Fusion
    held_out: Floats
    chosen: str
    log_loss: dict[str, float]


def fit_fusion(scored: Scored, base: Fusion) -> Stacked:
    """Fit common weights and weights by codec, and keep what does best on sources that had no part in the fit.

    Candidates: the weights of `base`, common weights, common weights and weights by codec.

    Raises:
        StackingError: fewer than two sources of a class.
    """
    fold = folds_by_source(scored)
    candidates = {"given": base, "common": base, "by_codec": base}
    held_out = {name: np.zeros(len(scored.s1)) for name in candidates}
    for number in range(int(fold.max()) + 1):
        test = fold == number
        for name, fusion in _fitted(scored.take(~test), base).items():
            held_out[name][test] = fuse(scored.take(test), fusion)
    losses = {name: _log_loss(found, scored.synthetic, base.prior) for name, found in held_out.items()}
    chosen = min(losses, key=lambda name: losses[name])
    return Stacked(_fitted(scored, base)[chosen], held_out[chosen], chosen, losses)


def fuse(scored: Scored, fusion: Fusion) -> Floats:
    """P(synthetic) of every image, as `Policy.fuse12` gives it."""
    weights = [fusion.by_codec.get(codec, fusion) for codec in scored.codec]
    rows = np.array([(w.w1, w.w2, w.bias) for w in weights]).reshape(-1, 3)
    fused: Floats = expit((_inputs(scored) * rows).sum(axis=1))
    return fused


def folds_by_source(scored: Scored) -> np.ndarray[tuple[int], np.dtype[np.int64]]:
    """Fold of every image: no source is cut, each fold has both classes, the largest sources are dealt out first.

    Raises:
        StackingError: fewer than two sources of a class.
    """
    sizes: dict[bool, Counter[str]] = {False: Counter(), True: Counter()}
    for name, label in zip(scored.source, scored.synthetic.tolist(), strict=True):
        sizes[label][name] += 1
    for label, found in sizes.items():
        if len(found) < 2:
            kind = "generated" if label else "real"
            raise StackingError(f"{kind} images of {len(found)} source: give two or more, to fit and to test on")
    count = min(FOLDS, *(len(found) for found in sizes.values()))
    number_of: dict[tuple[bool, str], int] = {}
    for label, found in sizes.items():
        held = [0] * count
        for name, size in sorted(found.items(), key=lambda entry: (-entry[1], entry[0])):
            number_of[label, name] = number = held.index(min(held))
            held[number] += size
    pairs = zip(scored.synthetic.tolist(), scored.source, strict=True)
    return np.array([number_of[pair] for pair in pairs], np.int64)


def _fitted(scored: Scored, base: Fusion) -> dict[str, Fusion]:
    x, y = _inputs(scored), scored.synthetic
    common = _fit(x, y, base.prior, FusionWeights(), POOLED_SHRINKAGE)
    pooled = base.model_copy(update={**common.model_dump(), "by_codec": {}})
    codecs = np.asarray(scored.codec, dtype=object).astype(str)
    own = {}
    for codec in sorted(set(scored.codec)):
        mine = codecs == codec
        if min(int((y & mine).sum()), int((~y & mine).sum())) >= MIN_PER_CLASS:
            own[codec] = _fit(x[mine], y[mine], base.prior, common, SHRINKAGE)
    return {"given": base, "common": pooled, "by_codec": pooled.model_copy(update={"by_codec": own})}


def _fit(x: Floats, y: Bools, prior: float, toward: FusionWeights, strength: float) -> FusionWeights:
    """Least weighted log loss plus strength/2 times the squared distance from `toward`; no negative weight."""
    from scipy.optimize import minimize  # noqa: PLC0415 - half a second that only fitting needs

    weight, centre = _class_weights(y, prior), np.array([toward.w1, toward.w2, toward.bias])

    def loss(parameters: Floats) -> tuple[float, Floats]:
        z, away = x @ parameters, parameters - centre
        value = float(weight @ (np.logaddexp(0.0, z) - y * z)) + strength / 2.0 * float(away @ away)
        slope: Floats = x.T @ (weight * (expit(z) - y)) + strength * away
        return value, slope

    found = minimize(loss, centre, jac=True, method="L-BFGS-B", bounds=_BOUNDS).x
    w1, w2, bias = (round(float(value), 6) for value in found)
    return FusionWeights(w1=w1, w2=w2, bias=bias)


def _inputs(scored: Scored) -> Floats:
    """(N, 3): both logits, bounded as the policy bounds them, and 1."""
    with np.errstate(divide="ignore"):
        bounded = [np.clip(unbounded_logit(s), -LOGIT_LIMIT, LOGIT_LIMIT) for s in (scored.s1, scored.s2)]
    return np.column_stack([*bounded, np.ones(len(scored.s1))])


def _class_weights(y: Bools, prior: float) -> Floats:
    """As if `prior` of the images were generated; the sum is the number of images."""
    weights: Floats = len(y) * np.where(y, prior / max(1, int(y.sum())), (1.0 - prior) / max(1, int((~y).sum())))
    return weights


def _log_loss(p: Floats, y: Bools, prior: float) -> float:
    clipped = np.clip(p, 1e-12, 1.0 - 1e-12)
    return float(_class_weights(y, prior) @ -np.log(np.where(y, clipped, 1.0 - clipped)) / len(y))
