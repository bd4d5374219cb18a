"""One row an idea, all on the same folds: what was tried for the classifier, and what it gave.

    python -m pipeline.training.probe.ablation DATA [DATA ...] --split FILE --cache DIR --pairs FILE \
        --upsampled FILE --out DIR

Every row that is listed is printed, whatever it gave. What was tried outside this list is in the model card. The
last line says what choosing by this table is worth: each fold is scored by the row that is best on the other three.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path

import numpy as np
import orjson

from pipeline.detection.calibration import Floats
from pipeline.evaluation.metrics import fnr_at_fpr, roc_auc
from pipeline.training.probe.crossfit import Channel, CrossFit, Images, Recipe, crossfit, fold_scores
from pipeline.training.probe.discriminant import RIDGES
from pipeline.training.probe.load import Study
from pipeline.training.splits import FOLDS

LITE0, LITE1 = "efficientnet_lite0", "efficientnet_lite1"
POOLED = 1280
DEGRADED = ("q90", "high", "resized", "low")
THUMBNAIL = "thumbnail"
_worst = partial(Recipe, views=DEGRADED, worst_fold=True)
_photographs = partial(_worst, packaged_photographs=True)
_thumbnails = partial(_photographs, thumbnail_views=(THUMBNAIL,))
SHIPPED = _worst("degraded views, worst inner fold")


@dataclass(frozen=True)
class Idea:
    """A recipe on the features of some backbones; `number` is that of the list of ideas that it tries.

    `copies`: further views whose logits are averaged with those of `test`. `per_crop`: logits are pooled over crops
    by their highest third, and not features by their mean.
    """

    number: str
    recipe: Recipe
    backbones: tuple[str, ...] = (LITE0,)
    logistic: bool = False
    test: str = "q90"
    copies: tuple[str, ...] = ()
    per_crop: bool = False
    upsampled: bool = False

    @property
    def shows_thumbnails(self) -> bool:
        """Whether this idea is also tested on thumbnails, and so can be chosen."""
        return self.test == "q90" and not self.copies


IDEAS = (
    Idea("baseline", Recipe("logistic probe on pooled features", columns=POOLED, power=0.0), logistic=True),
    Idea("6", Recipe("logistic, every source alike", columns=POOLED), logistic=True),
    Idea("2", Recipe("logistic, all blocks", power=0.0), logistic=True),
    Idea("2+6", Recipe("logistic, all blocks, every source alike"), logistic=True),
    Idea("5", Recipe("within-source covariance, pooled features", columns=POOLED)),
    Idea("5+2", Recipe("within-source covariance, all blocks")),
    Idea("5+2, no 6", Recipe("the same, every image alike", power=0.0)),
    Idea("9", Recipe("and saved at q80-96", ("q90", "high"))),
    Idea("9", Recipe("and resized, and low quality", DEGRADED)),
    Idea("6", SHIPPED),
    Idea("4", _worst("and packaged thumbnails", thumbnail_views=(THUMBNAIL,))),
    Idea("7", _worst("and decoder pairs, 10 %", pair_share=0.1)),
    Idea("7", _worst("and decoder pairs, 30 %", pair_share=0.3)),
    Idea("7+4", _worst("decoder pairs 30 % and thumbnails", thumbnail_views=(THUMBNAIL,), pair_share=0.3)),
    Idea("11", Recipe("and spectral features beside", ("q90",), worst_fold=True), (LITE0, "spectral")),
    Idea("1", _photographs("and packaged photographs")),
    Idea("1", _photographs("the same, sources by the root of their size", power=0.5)),
    Idea("1", _photographs("the same, every image alike", power=0.0)),
    Idea("1", _photographs("and photographs worked on", photograph_views=("hard",))),
    Idea("1", _photographs("and hard photographs mined", photograph_views=("hard",), mined=3.0)),
    Idea("3", _photographs("half the crops by texture"), test="textured"),
    Idea("3", _photographs("highest third of the crops"), per_crop=True),
    Idea("8", _photographs("and upsamplers' pairs, 10 %", pair_share=0.1), upsampled=True),
    Idea("8", _photographs("and upsamplers' pairs, 30 %", pair_share=0.3), upsampled=True),
    Idea("10", _photographs("a re-encoded copy beside"), copies=("q90-q75",)),
    Idea("10", _photographs("two backbones"), (LITE0, LITE1)),
    Idea("1+4", _thumbnails("packaged photographs and thumbnails")),
    Idea("1+4+7", _thumbnails("and decoder pairs, 10 %", pair_share=0.1)),
    Idea("1+4+7", _thumbnails("and decoder pairs, 30 %", pair_share=0.3)),
    Idea("1+4+8", _thumbnails("and upsamplers' pairs, 10 %", pair_share=0.1), upsampled=True),
    Idea("1+4+10", _thumbnails("two backbones"), (LITE0, LITE1)),
    Idea("control", Recipe("content only: 48 px and back", ("content",)), test="content"),
)
"""In the order tried."""


@dataclass(frozen=True)
class Result:
    """AUC and FNR (at the oracle cut of each fold) by fold.

    `thumbnails`: packaged generated images against the fold's photographs; `packaged`: the fold's generated images
    against packaged photographs, which are newer and worked on.
    """

    number: str
    name: str
    backbones: str
    auc: tuple[float, ...]
    fnr10: tuple[float, ...]
    fnr1: tuple[float, ...]
    ridges: tuple[float, ...]
    thumbnails: tuple[float, ...] = ()
    packaged: tuple[float, ...] = ()

    @property
    def macro(self) -> float:
        """Mean AUC over folds."""
        return float(np.mean(self.auc))


def run(study: Study, idea: Idea, channel: Channel) -> tuple[Result, CrossFit]:
    """Cross-fit one idea."""
    tests = (idea.test, THUMBNAIL) if idea.shows_thumbnails else (idea.test, *idea.copies)
    found = crossfit(channel, study.images, idea.recipe, tests, logistic=idea.logistic)
    images = study.images
    logits = np.mean([found.outer[view] for view in (idea.test, *idea.copies)], axis=0)
    points = [fold_scores(logits, images, fold) for fold in range(FOLDS)]
    thumbnails: tuple[float, ...] = ()
    if idea.shows_thumbnails:
        thumbnails = thumbnail_aucs(found.outer[THUMBNAIL], images)
    result = Result(
        idea.number,
        idea.recipe.name,
        " + ".join(idea.backbones),
        tuple(roc_auc(*p) for p in points),
        tuple(fnr_at_fpr(*p, 0.10).fnr.share for p in points),
        tuple(fnr_at_fpr(*p, 0.01).fnr.share for p in points),
        tuple(found.ridges),
        thumbnails,
        packaged_aucs(logits, images) if idea.shows_thumbnails else (),
    )
    return result, found


def packaged_aucs(scores: Floats, images: Images) -> tuple[float, ...]:
    """By fold: generated images of the data as such against packaged photographs."""
    shown = images.packaged ^ images.synthetic
    return tuple(roc_auc(*fold_scores(scores, images, fold, shown)) for fold in range(FOLDS))


def thumbnail_aucs(scores: Floats, images: Images) -> tuple[float, ...]:
    """By fold: packaged generated images, web thumbnails all, against the fold's photographs of the data as such.

    NaN where the final split has taken all thumbnails of a fold's families.
    """
    shown = images.thumbnail_only | (~images.synthetic & ~images.packaged)
    return tuple(roc_auc(*fold_scores(scores, images, fold, shown)) for fold in range(FOLDS))


def nested(results: Sequence[Result]) -> list[tuple[Result, float, float]]:
    """By fold: the row that is best on the other folds, and its AUC on this one, and on its thumbnails.

    Best is the highest mean of the three AUC over the other folds. What such a choice gives on the fold that it has not
    seen is free of the optimism of choosing by the whole table.
    """
    candidates = [r for r in results if r.thumbnails]
    chosen = []
    for fold in range(FOLDS):
        others = [f for f in range(FOLDS) if f != fold]
        best = max(
            candidates, key=lambda r: _mean(r.auc, others) + _mean(r.thumbnails, others) + _mean(r.packaged, others)
        )
        chosen.append((best, best.auc[fold], best.thumbnails[fold]))
    return chosen


def _mean(values: Sequence[float], folds: Sequence[int]) -> float:
    return float(np.nanmean([values[fold] for fold in folds]))


def table(results: Sequence[Result]) -> str:
    """Markdown."""
    lines = [
        "| idea | what | backbone | AUC by fold | macro | worst | FNR at FPR 10 % | at 1 % | thumbnails | packaged |",
        "|---|---|---|---|---|---|---|---|---|---|",
    ]
    for r in results:
        folds = " ".join(f"{a:.3f}" for a in r.auc)
        small, packaged = (f"{np.nanmean(a):.3f}" if a else "-" for a in (r.thumbnails, r.packaged))
        lines.append(
            f"| {r.number} | {r.name} | {r.backbones} | {folds} | {r.macro:.3f} | {min(r.auc):.3f} |"
            f" {np.mean(r.fnr10):.0%} | {np.mean(r.fnr1):.0%} | {small} | {packaged} |"
        )
    return "\n".join(lines) + "\n"


def _channel(study: Study, idea: Idea, pairs: Path) -> Channel:
    recipe = idea.recipe
    views = {*recipe.all_views, idea.test, *idea.copies}
    if idea.shows_thumbnails:
        views.add(THUMBNAIL)
    if recipe.pair_share or idea.per_crop:
        return study.channel(LITE0, sorted(views), pairs if recipe.pair_share else None, per_crop=idea.per_crop)
    return study.joined(idea.backbones, sorted(views))


def main(arguments: Sequence[str] | None = None) -> None:
    """See the module."""
    parser = argparse.ArgumentParser(prog="python -m pipeline.training.probe.ablation")
    parser.add_argument("data", type=Path, nargs="+")
    parser.add_argument("--split", type=Path, required=True)
    parser.add_argument("--cache", type=Path, required=True)
    parser.add_argument("--pairs", type=Path, required=True, help="written by pipeline.training.probe.pair_features")
    parser.add_argument("--upsampled", type=Path, required=True, help="the same, with upsamplers among the families")
    parser.add_argument("--out", type=Path, required=True)
    options = parser.parse_args(arguments)
    options.out.mkdir(parents=True, exist_ok=True)
    study = Study.open(options.data, options.split, options.cache)
    results = []
    for idea in IDEAS:
        channel = _channel(study, idea, options.upsampled if idea.upsampled else options.pairs)
        result, _ = run(study, idea, channel)
        results.append(result)
        sys.stdout.write(table([result]).splitlines()[-1] + "\n")
        sys.stdout.flush()
    (options.out / "ablation.md").write_text(table(results), encoding="utf-8")
    content = [{**asdict(result), "macro": result.macro} for result in results]
    (options.out / "ablation.json").write_bytes(orjson.dumps(content, option=orjson.OPT_INDENT_2))
    for fold, (best, auc, thumbnails) in enumerate(nested(results)):
        sys.stdout.write(
            f"fold {fold}: chosen elsewhere {best.number} {best.name}: {auc:.3f}, thumbnails {thumbnails:.3f}\n"
        )
    sys.stdout.write(f"{len(results)} configurations, {len(RIDGES)} ridges each\n")


if __name__ == "__main__":
    main()
