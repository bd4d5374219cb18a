"""Nested cross-fitting over the folds of a split manifest.

For every outer fold the head's ridge, the calibration, the weights of the fusion and the cut are all chosen on
the other folds, each of which is again scored by heads that have not seen it. So every number of a fold rests on
sources and decoder families that had no part in any choice.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import NamedTuple, TypeAlias

import numpy as np
import numpy.typing as npt

from pipeline.detection.calibration import Bools, Floats
from pipeline.evaluation.metrics import roc_auc
from pipeline.training.probe.discriminant import (
    RIDGES,
    Examples,
    Float32,
    Linear,
    Names,
    balanced,
    fit,
    logistic_fit,
)
from pipeline.training.probe.pair_store import PairFeatures
from pipeline.training.splits import FOLDS, REAL_FOLDS, SplitRow, fold_of_family

MINING_RIDGE = 1.0
"""Of the first of two heads, when photographs are mined."""

Ints = npt.NDArray[np.int64]
Fit: TypeAlias = Callable[[Examples, Sequence[float]], list[Linear]]


@dataclass(frozen=True)
class Images:
    """What the split manifest and the data manifests say of M images, each array (M,).

    `packaged` images are in no headline test; the generated ones among them, mostly web thumbnails, enter a training
    set in the views of thumbnails only. `unusable` ones are tested and never trained on (None: no such image).
    """

    sha256: Names
    synthetic: Bools
    unit: Names
    source: Names
    fold: Ints
    packaged: Bools
    unusable: Bools | None = None

    @property
    def thumbnail_only(self) -> Bools:
        """Generated images that come as web thumbnails, (M,)."""
        return self.packaged & self.synthetic

    @classmethod
    def of(cls, split: Sequence[SplitRow], packaged: Sequence[bool]) -> Images:
        """From rows of a split manifest."""
        return cls(
            np.array([row.sha256 for row in split]),
            np.array([row.synthetic for row in split]),
            np.array([row.unit for row in split]),
            np.array([row.source for row in split]),
            np.array([row.fold for row in split]),
            np.array(packaged),
        )


@dataclass(frozen=True)
class Channel:
    """Features of one backbone by view, and those of pairs.

    A view is float32 (M, D), the mean over an image's crops, or (M, C, D) with each crop's own.
    """

    views: Mapping[str, Float32]
    pairs: PairFeatures | None = None


@dataclass(frozen=True)
class Recipe:
    """How a head is trained.

    `views` of the images that are trained on; `thumbnail_views` also take the packaged generated images, and
    `photograph_views` photographs alone; `packaged_photographs` says whether those out of packages are trained on;
    `columns` of the features (None: all); `power` as in `balanced`; `pair_share` of the weight goes to decoder
    pairs, and `softened` adds photographs softened to the same PSNR as negatives; `mined` is how much more the tenth
    of the photographs that a first head likes best then counts (1: no second head).
    """

    name: str
    views: tuple[str, ...] = ("q90",)
    thumbnail_views: tuple[str, ...] = ()
    photograph_views: tuple[str, ...] = ()
    packaged_photographs: bool = False
    columns: int | None = None
    power: float = 1.0
    pair_share: float = 0.0
    softened: bool = True
    mined: float = 1.0
    worst_fold: bool = False
    ridges: tuple[float, ...] = RIDGES

    @property
    def all_views(self) -> list[str]:
        """Every view that is trained on."""
        return sorted({*self.views, *self.thumbnail_views, *self.photograph_views})


@dataclass(frozen=True)
class CrossFit:
    """`outer[view]` (M,): logits by heads that saw neither source nor family; NaN for the final split.

    `inner[k][view]` (M,): logits of the images outside fold k by heads that saw neither fold k nor the image's own
    fold; NaN inside it. `ridges[k]`: what was chosen.
    """

    outer: Mapping[str, Floats]
    inner: Sequence[Mapping[str, Floats]]
    ridges: Sequence[float]
    heads: Sequence[Linear] = field(repr=False, default=())


def crossfit(
    channel: Channel, images: Images, recipe: Recipe, tests: Sequence[str], *, logistic: bool = False
) -> CrossFit:
    """Fit and score every fold; the ridge is chosen by the AUC on the first of the views `tests`.

    `logistic` fits the plain probe instead of the discriminant: what is to be beaten.
    """
    fitted = logistic_fit if logistic else fit
    outer = {view: np.full(len(images.fold), np.nan) for view in tests}
    inner: list[dict[str, Floats]] = []
    ridges, heads = [], []
    for fold in range(FOLDS):
        path = {view: np.full((len(recipe.ridges), len(images.fold)), np.nan) for view in tests}
        scores = []
        for other in (f for f in range(FOLDS) if f != fold):
            rows = images.fold == other
            for number, head in enumerate(train(channel, images, recipe, (fold, other), fitted)):
                for view in tests:
                    path[view][number, rows] = _logits(head, channel.views[view][rows], recipe)
            scores.append(_aucs(path[tests[0]], images, rows & ~images.packaged))
        best = int(np.argmax(np.min(scores, 0) if recipe.worst_fold else np.mean(scores, 0)))
        inner.append({view: path[view][best] for view in tests})
        head = train(channel, images, recipe, (fold,), fitted)[best]
        rows = images.fold == fold
        for view in tests:
            outer[view][rows] = _logits(head, channel.views[view][rows], recipe)
        ridges.append(recipe.ridges[best])
        heads.append(head)
    return CrossFit(outer, inner, ridges, heads)


def train(channel: Channel, images: Images, recipe: Recipe, held_out: Sequence[int], fitted: Fit = fit) -> list[Linear]:
    """Heads by ridge or penalty, trained without these folds and without every source that appears in them."""
    absent = np.isin(images.fold, held_out) | (images.fold < 0)
    absent |= np.isin(images.source, images.source[np.isin(images.fold, held_out) & ~images.packaged])
    if images.unusable is not None:
        absent |= images.unusable
    if not recipe.packaged_photographs:
        absent |= images.packaged & ~images.synthetic
    shown = {
        **dict.fromkeys(recipe.photograph_views, ~absent & ~images.synthetic),
        **dict.fromkeys(recipe.views, ~absent & ~images.thumbnail_only),
        **dict.fromkeys(recipe.thumbnail_views, ~absent),
    }
    parts = [_examples(channel.views[view], images, recipe, rows) for view, rows in shown.items()]
    if recipe.pair_share and channel.pairs is not None:
        parts.append(_pair_examples(channel.pairs, recipe, held_out, sum(p.weight.sum() for p in parts)))
    examples = Examples.joined(parts)
    if recipe.mined != 1.0:
        (first,) = fitted(examples, (MINING_RIDGE,))
        examples = mine(examples, first, recipe.mined)
    return fitted(examples, recipe.ridges)


def mine(examples: Examples, head: Linear, factor: float) -> Examples:
    """Photographs among the highest tenth of `head`'s logits weigh `factor` times as much."""
    logits = head.logits(examples.x)
    cut = float(np.quantile(logits[~examples.synthetic], 0.9))
    hard = ~examples.synthetic & (logits > cut)
    return replace(examples, weight=np.where(hard, factor * examples.weight, examples.weight))


def _logits(head: Linear, features: Float32, recipe: Recipe) -> Floats:
    """Of images: features (N, D), or (N, C, D) when the highest third of the crops' logits is averaged."""
    logits = head.logits(_columns(features, recipe))
    if features.ndim == 2:
        return logits
    highest = np.sort(logits, axis=1)[:, -max(1, logits.shape[1] // 3) :]
    return np.asarray(highest.mean(1), np.float64)


def _examples(features: Float32, images: Images, recipe: Recipe, rows: Bools) -> Examples:
    if features.ndim == 3:
        features = features.mean(1)
    unit, synthetic = images.unit[rows], images.synthetic[rows]
    return Examples(_columns(features[rows], recipe), synthetic, unit, balanced(unit, synthetic, recipe.power))


def _pair_examples(pairs: PairFeatures, recipe: Recipe, held_out: Sequence[int], others: float) -> Examples:
    kept = np.array(
        [
            REAL_FOLDS[source] not in held_out and fold_of_family(unit) not in held_out
            for source, unit in zip(pairs.source, pairs.unit, strict=True)
        ]
    )
    sides = [(pairs.real, False, "photograph of "), (pairs.synthetic, True, "decoder ")]
    if recipe.softened:
        sides.append((pairs.matched, False, "softened "))
    parts = []
    for features, synthetic, prefix in sides:
        names = (pairs.unit if synthetic else pairs.source)[kept]
        unit = np.char.add(prefix, names.astype(str))
        label = np.full(len(unit), synthetic)
        parts.append(Examples(_columns(features[kept].astype(np.float32), recipe), label, unit, np.ones(len(unit))))
    joined = Examples.joined(parts)
    weight = balanced(joined.unit, joined.synthetic, 0.5)
    weight *= others * recipe.pair_share / (1.0 - recipe.pair_share) / weight.sum()
    return Examples(joined.x, joined.synthetic, joined.unit, weight)


class Scores(NamedTuple):
    """Of one fold: real (R,), synthetic (S,)."""

    real: Floats
    synthetic: Floats


def fold_scores(scores: Floats, images: Images, fold: int, shown: Bools | None = None) -> Scores:
    """Of the images shown, (M,); None: all but packaged ones, which have no place in the headline."""
    rows = (images.fold == fold) & (~images.packaged if shown is None else shown)
    return Scores(scores[rows & ~images.synthetic], scores[rows & images.synthetic])


def _columns(features: Float32, recipe: Recipe) -> Float32:
    return features if recipe.columns is None else features[..., : recipe.columns]


def _aucs(path: Floats, images: Images, rows: Bools) -> list[float]:
    real, synthetic = rows & ~images.synthetic, rows & images.synthetic
    return [roc_auc(logits[real], logits[synthetic]) for logits in path]
