"""The tables of a model card, from what `pipeline.training.probe.results` computed."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from pipeline.training.probe.held_out import STAGES, VIEW_CODECS

VIEW_NAMES = {
    "png": "lossless",
    "q90": "JPEG q90",
    "q90-384": "JPEG q90, 384 px",
    "q75": "JPEG q75",
    "thumbnail": "400 px WebP q80",
}

Results = Mapping[str, Any]


def markdown(results: Results) -> str:
    """Every table under its title."""
    parts = {
        "Stages": stage_rows(results),
        "Frozen cut for FPR 10 %": frozen_rows(results, "10%"),
        "Packaged thumbnails": thumbnail_rows(results),
        "What the spectral tier adds": paired_rows(results),
        "Against the baseline": baseline_rows(results),
        "Generators": generator_rows(results),
        "Blocks": block_rows(results),
        "Content-free": content_free_rows(results),
    }
    return "\n\n".join(f"## {title}\n\n" + "\n".join(rows) for title, rows in parts.items()) + "\n"


def stage_rows(results: Results) -> list[str]:
    """By view and stage: AUC, and FNR for FPR 1 % at the oracle and at the frozen cut."""
    rows = _head(
        "saved as", "stage", "AUC by fold", "macro", "worst", "FNR, oracle cut, FPR 1 %", "FNR, frozen cut", "its FPR"
    )
    for view, stage, found in _stages(results):
        cut = found["cuts"]["1%"]
        rows.append(
            _row(
                VIEW_NAMES[view],
                stage,
                _folds(found["auc_by_fold"]),
                f"{found['macro']:.3f}",
                f"{found['worst']:.3f}",
                cut["oracle_fnr"],
                cut["frozen_fnr"],
                cut["frozen_realised_fpr"],
            )
        )
    return rows


def frozen_rows(results: Results, rate: str) -> list[str]:
    """By view and stage: FNR and realised FPR at the cut that is frozen on the other folds for this rate."""
    rows = _head("saved as", "stage", f"FNR, frozen cut for FPR {rate}", "its FPR")
    for view, stage, found in _stages(results):
        cut = found["cuts"][rate]
        rows.append(_row(VIEW_NAMES[view], stage, cut["frozen_fnr"], cut["frozen_realised_fpr"]))
    return rows


def thumbnail_rows(results: Results) -> list[str]:
    """Packaged generated thumbnails against the folds' photographs."""
    rows = _head("stage", "AUC by fold", "macro", "worst")
    for stage in STAGES:
        found = results["packaged_thumbnails"][stage]
        rows.append(_row(stage, _folds(found["auc_by_fold"]), f"{found['macro']:.3f}", f"{found['worst']:.3f}"))
    return rows


def paired_rows(results: Results) -> list[str]:
    """Classifier against fused, DeLong's paired comparison by fold."""
    rows = _head("saved as", "fold", "classifier -> fused")
    for view in VIEW_CODECS:
        for fold, text in enumerate(results[view]["spectral_adds"]):
            rows.append(_row(VIEW_NAMES[view], fold, text))
    return rows


def baseline_rows(results: Results) -> list[str]:
    """The logistic probe against the shipped recipe."""
    rows = _head("fold", "logistic probe -> shipped recipe")
    return rows + [_row(fold, text) for fold, text in enumerate(results["against_baseline"])]


def generator_rows(results: Results) -> list[str]:
    """Leave-one-family-out, by generator."""
    rows = _head(
        "generator", "held out with", "images", "classifier AUC", "fused AUC", "fused FNR, frozen cut for FPR 10 %"
    )
    for found in results["generators"]:
        rows.append(
            _row(
                found["generator"],
                found["unit"],
                found["images"],
                _with_interval(found["classifier"]),
                _with_interval(found["fused"]),
                found["fused"]["frozen_fnr"],
            )
        )
    return rows


def block_rows(results: Results) -> list[str]:
    """Photographs that could be blocked, by view."""
    rows = _head("saved as", "photographs", "could be blocked", "upper limit, 95 %")
    for view in VIEW_CODECS:
        found = results[view]["blocks"]
        limit = f"{found['upper_limit']:.2%}"
        rows.append(_row(VIEW_NAMES[view], found["photographs"], found["could_be_blocked"], limit))
    return rows


def content_free_rows(results: Results) -> list[str]:
    """A photograph against its own reconstruction by unseen weights."""
    rows = _head("both saved as", "features", "pairs", "AUC by unseen family", "macro", "worst")
    for saved, tables in results.get("content_free", {}).items():
        for name, found in tables.items():
            by_family = ", ".join(f"{family} {auc:.3f}" for family, auc in found["auc_by_unseen_family"].items())
            pairs = sum(found["pairs"].values())
            rows.append(_row(saved, name, pairs, by_family, f"{found['macro']:.3f}", f"{found['worst']:.3f}"))
    return rows


def _stages(results: Results) -> Iterable[tuple[str, str, Mapping[str, Any]]]:
    return ((view, stage, results[view][stage]) for view in VIEW_CODECS for stage in STAGES)


def _folds(values: Sequence[float]) -> str:
    return " ".join(f"{value:.3f}" for value in values)


def _with_interval(found: Mapping[str, Any]) -> str:
    low, high = found["auc_interval"]
    return f"{found['auc']:.3f} ({low:.3f}-{high:.3f})"


def _head(*names: str) -> list[str]:
    return [_row(*names), "|" + "---|" * len(names)]


def _row(*cells: object) -> str:
    return "| " + " | ".join(str(cell) for cell in cells) + " |"
