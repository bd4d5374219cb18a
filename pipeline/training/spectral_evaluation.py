"""What the spectral reference is worth: false positive rates, ranking on unseen sources and families, few-shot.

    python -m pipeline.training.spectral_evaluation DATA [DATA ...] --cache DIR --out reference.json --text reference.md

DATA holds `manifest.jsonl`; images of the final split are left out. Everything is drawn by fixed seeds.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from pipeline.detection.spectral import features, strata
from pipeline.detection.spectral.fitting import MIN_PHOTOGRAPHS
from pipeline.detection.spectral.kernel import Float64
from pipeline.evaluation.metrics import auc_interval, fnr_at_fpr, roc_auc
from pipeline.training import spectral_families, spectral_rates
from pipeline.training.dataset import Labelled, read_manifest, source_folds
from pipeline.training.spectral_copies import ALIKE, Copies, measure_copies, readable
from pipeline.training.spectral_rates import scored
from pipeline.training.spectral_reference import build
from pipeline.training.splits import FINAL, assign

ALPHA = 0.05
REPEATS = 5
"""Of the cross-fit, each with another division into folds and parts; the rates are averaged."""

SOURCE_FOLDS = 5
SPLIT_STRATA = tuple(f"{codec}/{strata.ANY_SIZE}" for codec in (strata.LOSSLESS, strata.JPEG_85, strata.JPEG_LOW))

Json = dict[str, Any]


@dataclass(frozen=True)
class Settings:
    """How much is repeated: random `splits`, few-shot `seeds` and `samples` by `families`."""

    splits: int = 200
    seeds: int = 20
    samples: int = 10
    families: tuple[str, ...] = ("SDXL", "SD1/2", "FLUX")


def evaluate(rows: Sequence[Labelled], copies: Copies, settings: Settings) -> Json:
    """All tables as plain data."""
    photographs = spectral_rates.of_photographs(rows, copies)
    return {
        "photographs": len({row.sha256 for row in rows if not row.synthetic}),
        "generated": len({row.sha256 for row in rows if row.synthetic}),
        "alpha": ALPHA,
        "features": len(features.NAMES),
        "false_positives": false_positive_tables(rows, photographs),
        "random_splits": random_splits(rows, photographs, settings.splits),
        "source_left_out": {
            source: {codec: asdict(rate) for codec, rate in by_codec.items()}
            for source, by_codec in spectral_rates.by_source_left_out(rows, photographs, ALPHA).items()
        },
        "ranking": {
            "5 folds of whole sources": ranking(rows, copies, source_folds(rows, SOURCE_FOLDS)),
            "4 folds of sources and decoder families": ranking(rows, copies, _split_folds(rows)),
        },
        "few_shot": few_shot(rows, copies, settings),
    }


def false_positive_tables(rows: Sequence[Labelled], photographs: Copies) -> Json:
    """By stratum and by encoding, with compensation and without, cross-fitted by photograph."""
    stratum = np.array([f"{c}/{s}" for c, s in zip(photographs.codec.tolist(), photographs.size.tolist(), strict=True)])
    scale = np.where(photographs.scale == 1.0, "x1", np.where(photographs.scale < 1.0, "x0.5-1", "x1-1.5"))
    encoding = np.array([f"{e} {s}" for e, s in zip(photographs.setting.tolist(), scale.tolist(), strict=True)])
    variants = {
        "compensated": spectral_rates.compensated,
        "off: one pooled reference, no mask": spectral_rates.uncompensated_pooled,
        "off: a reference of lossless files at x1, no mask": spectral_rates.uncompensated_native,
    }
    result: Json = {}
    for name, fit in variants.items():
        below = [
            spectral_rates.cross_fitted(rows, photographs, partial(fit, rows, seed), seed) <= ALPHA
            for seed in range(REPEATS)
        ]
        flagged = np.mean(below, axis=0)
        by_stratum = spectral_rates.by_group(photographs, flagged, stratum)
        own = {key: rate for key, rate in by_stratum.items() if rate.photographs >= MIN_PHOTOGRAPHS}
        result[name] = {
            "mean": asdict(spectral_rates.false_positives(photographs.image, flagged)),
            "largest_departure": max(abs(rate.share - ALPHA) for rate in own.values()),
            "by_stratum": {key: asdict(rate) for key, rate in by_stratum.items()},
            "by_encoding": {
                key: asdict(rate) for key, rate in spectral_rates.by_group(photographs, flagged, encoding).items()
            },
        }
    return result


def random_splits(rows: Sequence[Labelled], photographs: Copies, splits: int) -> Json:
    """Mean and spread of the realised rate when `CALIBRATION_PHOTOGRAPHS` make the reference and the rest is tested."""
    result: Json = {}
    for name in SPLIT_STRATA:
        rates, left = spectral_rates.over_splits(rows, photographs, name, ALPHA, splits)
        result[name] = {"splits": splits, "tested": left, "mean": float(rates.mean()), "std": float(rates.std(ddof=1))}
    return result


def ranking(rows: Sequence[Labelled], copies: Copies, fold_of_row: Sequence[int]) -> Json:
    """AUC and misses at FPR 10 % of copies treated alike, by references that saw neither source nor family."""
    alike = copies[copies.kind == ALIKE]
    synthetic = np.array([row.synthetic for row in rows])
    folds = np.array(fold_of_row)
    logit, fold = np.empty(len(alike)), folds[alike.image]
    for held_out in np.unique(folds).tolist():
        reference = build(rows, copies[folds[copies.image] != held_out])
        logit[fold == held_out] = scored(reference, alike[fold == held_out])[0]
    made = synthetic[alike.image]
    result: Json = {}
    for codec in strata.CODECS:
        for size in strata.SIZES:
            here = (alike.codec == codec) & (alike.size == size)
            if (here & made).any() and (here & ~made).any():
                result[f"{codec}/{size}"] = _ranked(logit[here], made[here], fold[here])
    return result


def few_shot(rows: Sequence[Labelled], copies: Copies, settings: Settings) -> Json:
    """Trials summed up by family: how many were accepted, and what they changed."""
    trials = spectral_families.run(rows, copies, settings.families, settings.samples, range(settings.seeds))
    result: Json = {}
    for family, tried in trials.items():
        accepted = [trial for trial in tried if trial.accepted]
        rises = np.array([trial.after - trial.before for trial in accepted])
        result[family] = {
            "trials": len(tried),
            "accepted": len(accepted),
            "before": float(np.mean([trial.before for trial in tried])),
            "after": float(np.mean([trial.after for trial in tried])),
            "rise_of_accepted": float(rises.mean()) if accepted else None,
            "accepted_with_rise_of_0.02": int((rises >= 0.02).sum()),
            "gate": [asdict(trial.gate) for trial in tried],
        }
    return result


def text(found: Mapping[str, Any]) -> str:
    """The tables as markdown."""
    return "\n".join(_lines(found)) + "\n"


def _ranked(logit: Float64, made: np.ndarray, fold: np.ndarray) -> Json:
    real, synthetic = logit[~made], logit[made]
    by_fold = [roc_auc(logit[~made & (fold == f)], logit[made & (fold == f)]) for f in np.unique(fold).tolist()]
    interval = auc_interval(real, synthetic)
    return {
        "photographs": real.size,
        "generated": synthetic.size,
        "auc": roc_auc(real, synthetic),
        "auc_low": interval.low,
        "auc_high": interval.high,
        "mean_of_folds": float(np.nanmean(by_fold)),
        "worst_fold": float(np.nanmin(by_fold)),
        "fnr_at_fpr_10": fnr_at_fpr(real, synthetic, 0.1).fnr.share,
    }


def _split_folds(rows: Sequence[Labelled]) -> list[int]:
    fold = {row.sha256: row.fold for row in assign(rows)}
    return [fold[row.sha256] for row in rows]


def _lines(found: Mapping[str, Any]) -> Iterator[str]:
    rates = found["false_positives"]
    yield f"{found['photographs']} photographs, {found['generated']} generated images, {found['features']} features"
    yield ""
    yield f"### Photographs below p = {ALPHA:g}: {spectral_rates.FOLDS}-fold cross-fit by photograph, {REPEATS} times"
    yield ""
    yield f"Strata of fewer than {MIN_PHOTOGRAPHS} photographs are served by their codec's pooled reference."
    for key in ("by_stratum", "by_encoding"):
        yield ""
        yield f"| {key.removeprefix('by_')} | photographs | {' | '.join(rates)} |"
        yield f"|---|---|{'---|' * len(rates)}"
        for name, rate in rates["compensated"][key].items():
            yield f"| {name} | {rate['photographs']} | {' | '.join(_rate(v[key][name]) for v in rates.values())} |"
    yield ""
    for name, variant in rates.items():
        yield (
            f"{name}: mean {_rate(variant['mean'])}; largest departure of a stratum of"
            f" {MIN_PHOTOGRAPHS} photographs or more from {ALPHA:.0%}:"
            f" {variant['largest_departure'] * 100:.1f} pp"
        )
    yield ""
    yield f"### Random splits, {spectral_rates.CALIBRATION_PHOTOGRAPHS} photographs behind the reference"
    yield ""
    yield "| stratum | splits | tested each | mean realised rate | std |"
    yield "|---|---|---|---|---|"
    for name, split in found["random_splits"].items():
        yield f"| {name} | {split['splits']} | {split['tested']} | {split['mean']:.2%} | {split['std']:.2%} |"
    yield ""
    yield "### Source left out"
    yield ""
    yield f"| source | photographs | all | {' | '.join(strata.CODECS)} |"
    yield f"|---|---|---|{'---|' * len(strata.CODECS)}"
    for source, by_codec in found["source_left_out"].items():
        cells = [_rate(by_codec[codec]) for codec in ("all", *strata.CODECS)]
        yield f"| {source} | {by_codec['all']['photographs']} | {' | '.join(cells)} |"
    for name, ranked in found["ranking"].items():
        yield ""
        yield f"### Head, {name}"
        yield ""
        yield "| stratum | photographs / generated | AUC pooled (DeLong) | mean of folds | worst | FNR at FPR 10 % |"
        yield "|---|---|---|---|---|---|"
        for stratum, r in ranked.items():
            yield (
                f"| {stratum} | {r['photographs']} / {r['generated']} | {r['auc']:.3f} ({r['auc_low']:.3f}-"
                f"{r['auc_high']:.3f}) | {r['mean_of_folds']:.3f} | {r['worst_fold']:.3f} | {r['fnr_at_fpr_10']:.1%} |"
            )
    yield ""
    yield "### Few-shot"
    yield ""
    yield "| samples from | trials | accepted | AUC before | after | mean rise of accepted | accepted with >= .02 |"
    yield "|---|---|---|---|---|---|---|"
    for family, f in found["few_shot"].items():
        rise = "-" if f["rise_of_accepted"] is None else f"{f['rise_of_accepted']:+.3f}"
        yield (
            f"| {family} | {f['trials']} | {f['accepted']} | {f['before']:.3f} | {f['after']:.3f} | {rise} |"
            f" {f['accepted_with_rise_of_0.02']} |"
        )


def _rate(rate: Mapping[str, float]) -> str:
    return f"{rate['share']:.1%} ({rate['low']:.1%}-{rate['high']:.1%})"


def main(arguments: Sequence[str] | None = None) -> None:
    """Measure, evaluate, write JSON and markdown."""
    parser = argparse.ArgumentParser(prog="python -m pipeline.training.spectral_evaluation")
    parser.add_argument("data", type=Path, nargs="+", help="directory with manifest.jsonl")
    parser.add_argument("--cache", type=Path, required=True, help="directory that keeps measurements")
    parser.add_argument("--out", type=Path, required=True, help="the JSON to write")
    parser.add_argument("--text", type=Path, required=True, help="the markdown to write")
    parser.add_argument("--splits", type=int, default=Settings.splits)
    parser.add_argument("--seeds", type=int, default=Settings.seeds)
    parser.add_argument("--samples", type=int, default=Settings.samples)
    parser.add_argument("--families", nargs="+", default=list(Settings.families), help="decoder families, few-shot")
    options = parser.parse_args(arguments)
    everything = readable([row for data in options.data for row in read_manifest(data)])
    folds = _split_folds(everything)
    rows = [row for row, fold in zip(everything, folds, strict=True) if fold != FINAL]
    settings = Settings(options.splits, options.seeds, options.samples, tuple(options.families))
    found = evaluate(rows, measure_copies(rows, options.cache), settings)
    options.out.write_text(json.dumps(found, indent=1) + "\n", encoding="utf-8")
    options.text.write_text(text(found), encoding="utf-8")


if __name__ == "__main__":
    main()
