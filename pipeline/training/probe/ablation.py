"""One row an idea, all on the same folds: what was tried for the classifier, and what it gave.

    python -m pipeline.training.probe.ablation DATA [DATA ...] --split FILE --cache DIR --pairs FILE --out DIR

Every row that is listed is printed, whatever it gave. What was tried outside this list is in the model card.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import orjson

from pipeline.evaluation.metrics import fnr_at_fpr, roc_auc
from pipeline.training.probe.crossfit import Channel, CrossFit, Recipe, crossfit, fold_scores
from pipeline.training.probe.discriminant import RIDGES
from pipeline.training.probe.load import Study
from pipeline.training.splits import FOLDS

LITE0 = "efficientnet_lite0"
POOLED = 1280
DEGRADED = ("q90", "high", "resized", "low")
SHIPPED = Recipe("degraded views, worst inner fold", DEGRADED, worst_fold=True)


@dataclass(frozen=True)
class Idea:
    """A recipe on the features of some backbones; `number` is that of the list of ideas that it tries."""

    number: str
    recipe: Recipe
    backbones: tuple[str, ...] = (LITE0,)
    logistic: bool = False
    test: str = "q90"


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
    Idea("4", Recipe("and packaged thumbnails", DEGRADED, ("thumbnail",), worst_fold=True)),
    Idea("7", Recipe("and decoder pairs, 10 %", DEGRADED, pair_share=0.1, worst_fold=True)),
    Idea("7", Recipe("and decoder pairs, 30 %", DEGRADED, pair_share=0.3, worst_fold=True)),
    Idea("7+4", Recipe("decoder pairs and thumbnails", DEGRADED, ("thumbnail",), pair_share=0.3, worst_fold=True)),
    Idea("11", Recipe("and spectral features beside", ("q90",), worst_fold=True), (LITE0, "spectral")),
    Idea("control", Recipe("content only: 48 px and back", ("content",)), test="content"),
)
"""In the order tried."""


@dataclass(frozen=True)
class Result:
    """AUC and FNR (at the oracle cut of each fold) by fold; `thumbnails`: packaged images against all photographs."""

    number: str
    name: str
    backbones: str
    auc: tuple[float, ...]
    fnr10: tuple[float, ...]
    fnr1: tuple[float, ...]
    ridges: tuple[float, ...]
    thumbnails: tuple[float, ...] = ()

    @property
    def macro(self) -> float:
        """Mean AUC over folds."""
        return float(np.mean(self.auc))


def run(study: Study, idea: Idea, channel: Channel) -> tuple[Result, CrossFit]:
    """Cross-fit one idea."""
    tests = (idea.test, "thumbnail") if "thumbnail" in channel.views and idea.test != "content" else (idea.test,)
    found = crossfit(channel, study.images, idea.recipe, tests, logistic=idea.logistic)
    images, logits = study.images, found.outer[idea.test]
    points = [fold_scores(logits, images, fold) for fold in range(FOLDS)]
    thumbnails: tuple[float, ...] = ()
    if "thumbnail" in tests:
        shown = images.packaged | ~images.synthetic
        thumbnails = tuple(roc_auc(*fold_scores(found.outer["thumbnail"], images, f, shown)) for f in range(FOLDS))
    result = Result(
        idea.number,
        idea.recipe.name,
        " + ".join(idea.backbones),
        tuple(roc_auc(*p) for p in points),
        tuple(fnr_at_fpr(*p, 0.10).fnr.share for p in points),
        tuple(fnr_at_fpr(*p, 0.01).fnr.share for p in points),
        tuple(found.ridges),
        thumbnails,
    )
    return result, found


def table(results: Sequence[Result]) -> str:
    """Markdown."""
    lines = [
        "| idea | what | backbone | AUC by fold | macro | worst | FNR at FPR 10 % | at 1 % | thumbnails, macro |",
        "|---|---|---|---|---|---|---|---|---|",
    ]
    for r in results:
        folds = " ".join(f"{a:.3f}" for a in r.auc)
        small = f"{np.mean(r.thumbnails):.3f}" if r.thumbnails else "-"
        lines.append(
            f"| {r.number} | {r.name} | {r.backbones} | {folds} | {r.macro:.3f} | {min(r.auc):.3f} |"
            f" {np.mean(r.fnr10):.0%} | {np.mean(r.fnr1):.0%} | {small} |"
        )
    return "\n".join(lines) + "\n"


def main(arguments: Sequence[str] | None = None) -> None:
    """See the module."""
    parser = argparse.ArgumentParser(prog="python -m pipeline.training.probe.ablation")
    parser.add_argument("data", type=Path, nargs="+")
    parser.add_argument("--split", type=Path, required=True)
    parser.add_argument("--cache", type=Path, required=True)
    parser.add_argument("--pairs", type=Path, required=True, help="written by pipeline.training.probe.pair_features")
    parser.add_argument("--out", type=Path, required=True)
    options = parser.parse_args(arguments)
    options.out.mkdir(parents=True, exist_ok=True)
    study = Study.open(options.data, options.split, options.cache)
    results = []
    for idea in IDEAS:
        views = {*idea.recipe.views, *idea.recipe.thumbnail_views, idea.test}
        if idea.test != "content":
            views.add("thumbnail")
        channel = study.joined(idea.backbones, sorted(views))
        if idea.recipe.pair_share:
            channel = study.channel(LITE0, sorted(views), options.pairs)
        result, _ = run(study, idea, channel)
        results.append(result)
        sys.stdout.write(table([result]).splitlines()[-1] + "\n")
        sys.stdout.flush()
    (options.out / "ablation.md").write_text(table(results), encoding="utf-8")
    content = [{**asdict(result), "macro": result.macro} for result in results]
    (options.out / "ablation.json").write_bytes(orjson.dumps(content, option=orjson.OPT_INDENT_2))
    sys.stdout.write(f"{len(results)} configurations, {len(RIDGES)} ridges each\n")


if __name__ == "__main__":
    main()
