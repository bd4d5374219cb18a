"""What the shipped recipe is worth on images whose source and decoder family it has not seen: tables and scores.

    python -m pipeline.training.probe.results DATA [DATA ...] --split FILE --cache DIR [--pairs DIR] --out DIR

Writes `results.json`, `results.md` and, for `mediasieve plan`, `scores.jsonl` with one variant a view.
"""

from __future__ import annotations

import argparse
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import orjson

from pipeline.detection.calibration import Bools, Floats
from pipeline.evaluation.comparison import delong
from pipeline.evaluation.intervals import Rate, cluster_bootstrap
from pipeline.evaluation.metrics import WeightedAuc, at_threshold, auc_interval, fnr_at_fpr, roc_auc, threshold_at_fpr
from pipeline.evaluation.score_row import write_rows
from pipeline.training.dataset import Labelled
from pipeline.training.probe.ablation import IDEAS, LITE0, SHIPPED, run, thumbnail_aucs
from pipeline.training.probe.card_tables import markdown
from pipeline.training.probe.content_free import content_free
from pipeline.training.probe.crossfit import Channel, Images, Scores, crossfit, fold_scores, train
from pipeline.training.probe.embed import SPECTRAL
from pipeline.training.probe.held_out import STAGES, VIEW_CODECS, HeldOut, held_out, score_rows, spectral_logits
from pipeline.training.probe.load import Study
from pipeline.training.probe.pair_store import PairFeatures
from pipeline.training.splits import FOLDS

VIEWS = tuple(VIEW_CODECS)
LICENSED = ("alexeygrigorev/clothing-dataset-small", "google/dreambooth")
LICENSED_RIDGE = 1.0
MIN_OF_GENERATOR = 3
UNLICENSED_GENERATED = ("agwmon/MuDI", "AUTOMATIC1111/stable-diffusion-webui-feature-showcase")


def stage_table(scores: Floats, inner: Sequence[Floats], images: Images) -> dict[str, Any]:
    """AUC by fold with DeLong's interval, and FNR at the oracle cut and at the cut frozen on the other folds."""
    parts = [fold_scores(scores, images, fold) for fold in range(FOLDS)]
    shown = (images.fold >= 0) & ~images.packaged
    real, synthetic = shown & ~images.synthetic, shown & images.synthetic
    aucs = [roc_auc(*part) for part in parts]
    clustered = cluster_bootstrap(
        WeightedAuc(scores[real], scores[synthetic]), images.source[real].tolist(), images.source[synthetic].tolist()
    )
    return {
        "auc_by_fold": aucs,
        "delong_by_fold": [list(auc_interval(*part)) for part in parts],
        "macro": float(np.mean(aucs)),
        "worst": min(aucs),
        "pooled_calibrated": roc_auc(scores[real], scores[synthetic]),
        "pooled_by_source": list(clustered) if clustered else None,
        "cuts": {f"{fpr:.0%}": _cuts(parts, inner, images, fpr) for fpr in (0.01, 0.05, 0.10)},
    }


def _cuts(parts: Sequence[Scores], inner: Sequence[Floats], images: Images, fpr: float) -> dict[str, Any]:
    oracle = [fnr_at_fpr(*part, fpr) for part in parts]
    frozen = []
    for fold, part in enumerate(parts):
        others = (images.fold >= 0) & (images.fold != fold) & ~images.synthetic
        frozen.append(at_threshold(*part, threshold_at_fpr(inner[fold][others], fpr)))
    missed, flagged = (_total([getattr(p, name) for p in frozen]) for name in ("fnr", "fpr"))
    return {
        "oracle_fnr": str(_total([p.fnr for p in oracle])),
        "frozen_fnr": str(missed),
        "frozen_realised_fpr": str(flagged),
        "frozen_by_fold": [[str(p.fnr), str(p.fpr)] for p in frozen],
    }


def _total(rates: Sequence[Rate]) -> Rate:
    return Rate(sum(r.count for r in rates), sum(r.total for r in rates))


def paired(a: Floats, b: Floats, images: Images) -> list[str]:
    """DeLong's paired comparison a -> b in every fold."""
    found = []
    for fold in range(FOLDS):
        before, after = fold_scores(a, images, fold), fold_scores(b, images, fold)
        found.append(str(delong(before.real, before.synthetic, after.real, after.synthetic)))
    return found


def thumbnail_table(found: HeldOut, images: Images) -> dict[str, Any]:
    """AUC of packaged generated thumbnails against the photographs of each fold, by stage."""
    table = {}
    for stage in STAGES:
        aucs = thumbnail_aucs(found.outer[stage], images)
        table[stage] = {"auc_by_fold": list(aucs), "macro": float(np.nanmean(aucs)), "worst": float(np.nanmin(aucs))}
    return table


def generator_table(found: HeldOut, rows: Sequence[Labelled], images: Images) -> list[dict[str, Any]]:
    """Every generator of three images or more, against the photographs of the fold that held its family out.

    FNR is at the cut for FPR 10 % frozen on the photographs of the other folds.
    """
    generator = np.array([row.generator or row.source for row in rows])
    shown = (images.fold >= 0) & ~images.packaged
    table = []
    for name in np.unique(generator[shown & images.synthetic]).tolist():
        mine = shown & (generator == name)
        if mine.sum() < MIN_OF_GENERATOR:
            continue
        folds = np.unique(images.fold[mine])
        entry: dict[str, Any] = {"generator": name, "unit": str(images.unit[mine][0]), "images": int(mine.sum())}
        for stage in STAGES:
            scores = found.outer[stage]
            real = scores[shown & ~images.synthetic & np.isin(images.fold, folds)]
            missed = 0
            for fold in folds.tolist():
                others = (images.fold >= 0) & (images.fold != fold) & ~images.synthetic
                cut = threshold_at_fpr(found.inner[fold][stage][others], 0.10)
                missed += int((scores[mine & (images.fold == fold)] < cut).sum())
            entry[stage] = {
                "auc": roc_auc(real, scores[mine]),
                "auc_interval": list(auc_interval(real, scores[mine])),
                "frozen_fnr": str(Rate(missed, int(mine.sum()))),
            }
        table.append(entry)
    return table


def blocks(found: HeldOut, images: Images) -> dict[str, Any]:
    """Photographs whose fused score reaches cuts at which no photograph of the other folds could be blocked."""
    flagged = 0
    for fold in range(FOLDS):
        others = (images.fold >= 0) & (images.fold != fold) & ~images.synthetic
        cut = max(0.5, float(np.nextafter(found.inner[fold]["fused"][others].max(), np.inf)))
        flagged += int((fold_scores(found.outer["fused"], images, fold).real >= cut).sum())
    total = int(((images.fold >= 0) & ~images.packaged & ~images.synthetic).sum())
    rate = Rate(flagged, total)
    return {"photographs": total, "could_be_blocked": flagged, "upper_limit": rate.upper_limit}


def licensed_only(study: Study) -> Images:
    """The same images, but those without a stated or with a non-commercial licence are trained on in no fold."""
    images = study.images
    unusable: Bools = ~images.synthetic & ~np.isin(images.source, LICENSED)
    unusable |= np.isin(images.source, UNLICENSED_GENERATED)
    return replace(images, unusable=unusable)


def pair_tables(folder: Path) -> dict[str, Any]:
    """Content-free results by how both sides were saved and by backbone."""
    tables: dict[str, Any] = {}
    for path in sorted(folder.glob("*/*.npz")):
        pairs = PairFeatures.load(path)
        for softened in (True, False):
            found = content_free(pairs, softened=softened)
            name = path.stem if softened else f"{path.stem}, no softened negatives"
            tables.setdefault(path.parent.name, {})[name] = {
                "auc_by_unseen_family": dict(found.auc),
                "against_softened": dict(found.against_softened),
                "pairs": dict(found.pairs),
                "macro": found.macro,
                "worst": found.worst,
            }
    return tables


def compute(study: Study, pairs: Path | None) -> tuple[dict[str, Any], Mapping[str, HeldOut]]:
    """Everything; the held-out scores by view beside it."""
    images = study.images
    channel = study.channel(LITE0, sorted({*SHIPPED.all_views, *VIEWS}))
    spectral_channel = study.channel(SPECTRAL, VIEWS)
    classifier = crossfit(channel, images, SHIPPED, VIEWS)
    spectral = {
        view: spectral_logits(spectral_channel.views[view], study.rows, images, VIEW_CODECS[view]) for view in VIEWS
    }
    found = held_out(classifier, spectral, images, VIEWS)
    baseline = run(study, IDEAS[0], study.channel(LITE0, ("q90", "thumbnail")))[1]
    results: dict[str, Any] = {"ridges": list(classifier.ridges)}
    for view in VIEWS:
        outer = found[view].outer
        results[view] = {
            stage: stage_table(outer[stage], [inner[stage] for inner in found[view].inner], images) for stage in STAGES
        } | {
            "spectral_adds": paired(outer["classifier"], outer["fused"], images),
            "blocks": blocks(found[view], images),
        }
    results["packaged_thumbnails"] = thumbnail_table(found["thumbnail"], images)
    results["generators"] = generator_table(found["q90"], study.rows, images)
    results["against_baseline"] = paired(baseline.outer["q90"], found["q90"].outer["classifier"], images)
    results["licensed_only"] = _licensed(study, channel)
    if pairs:
        results["content_free"] = pair_tables(pairs)
    return results, found


def _licensed(study: Study, channel: Channel) -> dict[str, Any]:
    """At one ridge, because two sources of photographs leave none to choose it on."""
    recipe = replace(SHIPPED, ridges=(LICENSED_RIDGE,))
    images = study.images
    logits = {}
    for name, trained in (("all", images), ("licensed", licensed_only(study))):
        logits[name] = np.full(len(images.fold), np.nan)
        for fold in range(FOLDS):
            rows = images.fold == fold
            (head,) = train(channel, trained, recipe, (fold,))
            logits[name][rows] = head.logits(channel.views["q90"][rows])
    aucs = {
        name: [roc_auc(*fold_scores(found, images, fold)) for fold in range(FOLDS)] for name, found in logits.items()
    }
    return {
        "auc_by_fold": aucs,
        "macro": {name: float(np.mean(found)) for name, found in aucs.items()},
        "licensed_against_all": paired(logits["all"], logits["licensed"], images),
    }


def main(arguments: Sequence[str] | None = None) -> None:
    """See the module."""
    parser = argparse.ArgumentParser(prog="python -m pipeline.training.probe.results")
    parser.add_argument("data", type=Path, nargs="+")
    parser.add_argument("--split", type=Path, required=True)
    parser.add_argument("--cache", type=Path, required=True)
    parser.add_argument("--pairs", type=Path, help="directories of pipeline.training.probe.pair_features")
    parser.add_argument("--out", type=Path, required=True)
    options = parser.parse_args(arguments)
    options.out.mkdir(parents=True, exist_ok=True)
    study = Study.open(options.data, options.split, options.cache)
    results, found = compute(study, options.pairs)
    (options.out / "results.json").write_bytes(orjson.dumps(results, option=orjson.OPT_INDENT_2))
    (options.out / "results.md").write_text(markdown(results), encoding="utf-8")
    rows = [row for view in VIEWS for row in score_rows(found, study.rows, study.images, view)]
    write_rows(options.out / "scores.jsonl", rows)


if __name__ == "__main__":
    main()
