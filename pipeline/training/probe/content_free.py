"""A photograph against its own reconstruction: no difference of subject, size or codec is left to learn.

Decoder weights and sources of photographs that a pair is tested with are both unseen in training.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from pipeline.detection.calibration import Bools, Floats
from pipeline.evaluation.metrics import roc_auc
from pipeline.training.probe.discriminant import Examples, balanced, fit
from pipeline.training.probe.pair_store import PairFeatures
from pipeline.training.splits import FOLDS, REAL_FOLDS

RIDGE = 1.0
"""Fixed before any result: there are too few families to choose it on others."""


@dataclass(frozen=True)
class ContentFree:
    """By unseen decoder family: AUC of photographs against reconstructions, and how many pairs.

    `against_softened`: AUC of reconstructions against photographs softened to the same PSNR, which blur alone would
    give .5.
    """

    auc: Mapping[str, float]
    against_softened: Mapping[str, float]
    pairs: Mapping[str, int]

    @property
    def macro(self) -> float:
        """Mean over families."""
        return float(np.mean(list(self.auc.values())))

    @property
    def worst(self) -> float:
        """Lowest of the families."""
        return min(self.auc.values())


def content_free(pairs: PairFeatures, *, softened: bool = True) -> ContentFree:
    """Leave one decoder family and one fold of photographs out, train on the rest, score the pairs of both.

    `softened` adds photographs softened to the reconstruction's PSNR as negatives in training, so that blur alone is
    no evidence.
    """
    fold = np.array([REAL_FOLDS[source] for source in pairs.source])
    auc, against, count = {}, {}, {}
    for family in np.unique(pairs.unit).tolist():
        scores: list[tuple[Floats, Floats, Floats]] = []
        for number in range(FOLDS):
            test = (pairs.unit == family) & (fold == number)
            train = (pairs.unit != family) & (fold != number)
            if not test.any():
                continue
            (head,) = fit(_examples(pairs, train, softened), (RIDGE,))
            real, made, blurred = (
                head.logits(side[test].astype(np.float32)) for side in (pairs.real, pairs.synthetic, pairs.matched)
            )
            centre = float(np.median(real))  # one head a fold: only differences within it can be pooled
            scores.append((real - centre, made - centre, blurred - centre))
        real, made, blurred = (np.concatenate(side) for side in zip(*scores, strict=True))
        auc[family], against[family], count[family] = roc_auc(real, made), roc_auc(blurred, made), len(made)
    return ContentFree(auc, against, count)


def _examples(pairs: PairFeatures, rows: Bools, softened: bool) -> Examples:
    sides = [(pairs.real, False, "photograph "), (pairs.synthetic, True, "")]
    if softened:
        sides.append((pairs.matched, False, "softened "))
    x = np.concatenate([side[rows].astype(np.float32) for side, _, _ in sides])
    label = np.concatenate([np.full(int(rows.sum()), made) for _, made, _ in sides])
    names = [np.char.add(kind, (pairs.unit if made else pairs.source)[rows].astype(str)) for _, made, kind in sides]
    unit = np.concatenate(names)
    return Examples(x, label, unit, balanced(unit, label, 0.5))
