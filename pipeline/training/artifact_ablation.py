"""Does a network on spectral maps add to the spectral statistics, on sources and decoder families it has not seen?

    python -m pipeline.training.artifact_ablation DATA [DATA ...] --split FILE --maps DIR --statistics DIR --out DIR

`--maps` was filled by `pipeline.training.artifact_examples`, `--statistics` by `pipeline.training.probe.embed` with
`--backbone spectral`. Cross-fitting is nested as in `probe.held_out`: the weights of the fusion that a fold is
judged by come from the other folds, each scored by heads that saw neither it nor the fold. Kept is the network only
if the fused macro AUC exceeds that of the statistics by `MIN_GAIN` on q90 and loses at most `MAX_LOSS` on png, both
as means over the seeds; then `OUT/artifact.onnx` is one trained on all folds. Needs the `torch` extra.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, fields
from itertools import combinations
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt
import orjson

from pipeline.detection.calibration import Bools, Floats
from pipeline.evaluation.comparison import PairedAuc, delong
from pipeline.training import artifact_examples
from pipeline.training.artifact_examples import PairMaps
from pipeline.training.artifact_network import MapExamples, NetworkSettings, export, image_logits, train
from pipeline.training.backbone import required
from pipeline.training.dataset import Labelled
from pipeline.training.probe.crossfit import CrossFit, Images
from pipeline.training.probe.discriminant import Names, balanced
from pipeline.training.probe.embed import SPECTRAL, load
from pipeline.training.probe.held_out import VIEW_CODECS, spectral_logits
from pipeline.training.probe.load import Study
from pipeline.training.spectral_head import fit_logistic, sample_weights
from pipeline.training.splits import FOLDS, REAL_FOLDS, SEEDS, fold_of_family

TRAINED_ON = ("q90", "high")
TESTS = ("q90", "png")
MIN_GAIN = 0.01
MAX_LOSS = 0.01
PAIR_SHARE = 0.3
"""Share of the draws that are sides of decoder pairs."""

UNIT_POWER = 0.5
"""As in `balanced`: a source or family counts as the square root of its number of images."""

FUSION_L2 = 1e-3
METHODS = ("statistics", "network", "fused")

Maps: TypeAlias = npt.NDArray[np.float16]
Scorer: TypeAlias = Callable[[Sequence[int]], Mapping[str, Floats]]
"""Folds held out -> view -> logits (M,) of all images by a network that saw none of these folds."""


@dataclass(frozen=True)
class Comparison:
    """One view and fold: number of images, AUC by method, and the paired differences to the statistics."""

    view: str
    fold: int
    real: int
    synthetic: int
    auc: dict[str, float]
    network_gain: PairedAuc
    fused_gain: PairedAuc


def only(images: Images, kept: Sequence[int]) -> Images:
    """Some of the images, in that order."""
    columns = {field.name: getattr(images, field.name) for field in fields(Images)}
    chosen: dict[str, Any] = {name: None if column is None else column[kept] for name, column in columns.items()}
    return Images(**chosen)


def training_rows(images: Images, held_out: Sequence[int]) -> Bools:
    """Images that a network may see: of none of these folds, nor of a source that appears in one."""
    absent = np.isin(images.fold, held_out) | (images.fold < 0)
    if images.unusable is not None:
        absent |= images.unusable
    return ~(absent | np.isin(images.source, images.source[np.isin(images.fold, held_out)]))


def training_pairs(unit: Names, source: Names, held_out: Sequence[int]) -> Bools:
    """Pairs of a photograph and a decoder family that are in none of these folds."""
    return np.array(
        [REAL_FOLDS[s] not in held_out and fold_of_family(u) not in held_out for u, s in zip(unit, source, strict=True)]
    )


def crossfit(scorer: Scorer, images: Images, views: Sequence[str]) -> CrossFit:
    """Nested: four networks for the outer folds and one for each two folds, which scores both."""
    nan = np.full(len(images.fold), np.nan)
    outer = {view: nan.copy() for view in views}
    inner = [{view: nan.copy() for view in views} for _ in range(FOLDS)]
    for fold in range(FOLDS):
        found = scorer((fold,))
        for view in views:
            rows = images.fold == fold
            outer[view][rows] = found[view][rows]
    for pair in combinations(range(FOLDS), 2):
        found = scorer(pair)
        for fold, other in (pair, pair[::-1]):
            rows = images.fold == other
            for view in views:
                inner[fold][view][rows] = found[view][rows]
    return CrossFit(outer, inner, [])


def fuse(first: CrossFit, second: CrossFit, images: Images, rows: Sequence[Labelled], view: str) -> Floats:
    """Logits (M,) of a logistic on both, its three weights fitted on the inner scores of the other folds."""
    fused = np.full(len(images.fold), np.nan)
    for fold in range(FOLDS):
        others = np.flatnonzero((images.fold >= 0) & (images.fold != fold))
        z = np.stack([first.inner[fold][view][others], second.inner[fold][view][others]], axis=1)
        scale = np.maximum(z.std(axis=0), 1e-6)
        share = sample_weights([rows[int(i)] for i in others])
        weights, intercept = fit_logistic(z / scale, images.synthetic[others], share, FUSION_L2)
        mine = images.fold == fold
        outer = np.stack([first.outer[view][mine], second.outer[view][mine]], axis=1)
        fused[mine] = outer / scale @ weights + intercept
    return fused


def compare(logits: Mapping[str, Floats], images: Images, view: str) -> list[Comparison]:
    """By fold; `logits` by the names of `METHODS`, (M,) each."""
    found = []
    for fold in range(FOLDS):
        real = (images.fold == fold) & ~images.synthetic
        synthetic = (images.fold == fold) & images.synthetic
        first, network, fused = ((logits[name][real], logits[name][synthetic]) for name in METHODS)
        of_network, of_fused = delong(*first, *network), delong(*first, *fused)
        auc = dict(zip(METHODS, (of_fused.auc_a, of_network.auc_b, of_fused.auc_b), strict=True))
        found.append(Comparison(view, fold, int(real.sum()), int(synthetic.sum()), auc, of_network, of_fused))
    return found


def macro(found: Sequence[Comparison], view: str, method: str) -> float:
    """Mean AUC over folds."""
    return float(np.mean([c.auc[method] for c in found if c.view == view]))


def is_kept(by_seed: Sequence[Sequence[Comparison]]) -> bool:
    """The rule that was fixed beforehand, see the module."""
    gain = {view: np.mean([macro(f, view, "fused") - macro(f, view, "statistics") for f in by_seed]) for view in TESTS}
    return bool(gain["q90"] >= MIN_GAIN and gain["png"] >= -MAX_LOSS)


def table(found: Sequence[Comparison]) -> str:
    """Markdown of one seed."""
    lines = [
        "| view | fold | photographs | generated | statistics | network | fused | fused - statistics (DeLong) |",
        "|---|---|---|---|---|---|---|---|",
    ]
    for view in TESTS:
        for c in (c for c in found if c.view == view):
            low, high = c.fused_gain.interval
            change = f"{c.fused_gain.difference:+.3f} ({low:+.3f} to {high:+.3f}, p {c.fused_gain.p_value:.2g})"
            scores = " | ".join(f"{c.auc[name]:.3f}" for name in METHODS)
            lines.append(f"| {view} | {c.fold} | {c.real} | {c.synthetic} | {scores} | {change} |")
        means = [macro(found, view, name) for name in METHODS]
        scores = " | ".join(f"{mean:.3f}" for mean in means)
        lines.append(f"| {view} | macro | | | {scores} | {means[2] - means[0]:+.3f} |")
    return "\n".join(lines) + "\n"


def statistics(study: Study, kept: Sequence[int]) -> CrossFit:
    """The head on the spectral features, trained as it is shipped; of the kept images, by view."""
    outer: dict[str, Floats] = {}
    inner: list[dict[str, Floats]] = [{} for _ in range(FOLDS)]
    for view in TESTS:
        x = load(study.cache, SPECTRAL, view, study.rows).mean(1, dtype=np.float32)
        found = spectral_logits(x, study.rows, study.images, VIEW_CODECS[view])
        outer[view] = found.outer[VIEW_CODECS[view]][kept]
        for fold in range(FOLDS):
            inner[fold][view] = found.inner[fold][VIEW_CODECS[view]][kept]
    return CrossFit(outer, inner, [])


def training_examples(
    views: Mapping[str, Maps], pairs: PairMaps | None, images: Images, held_out: Sequence[int]
) -> MapExamples:
    """All crops of the images outside these folds in the views `TRAINED_ON`, and the sides of the decoder pairs.

    `views` hold maps (M, crops, *SHAPE).
    """
    rows = training_rows(images, held_out)
    weight = balanced(images.unit[rows], images.synthetic[rows], UNIT_POWER)
    x, synthetic, weights = [], [], []
    for view in TRAINED_ON:
        crops = views[view][rows]
        x.append(crops.reshape(-1, *crops.shape[2:]))
        synthetic.append(np.repeat(images.synthetic[rows], crops.shape[1]))
        weights.append(np.repeat(weight, crops.shape[1]) / weight.sum() / crops.shape[1] / len(TRAINED_ON))
    usable = training_pairs(pairs.unit, pairs.source, held_out) if pairs else np.zeros(0, np.bool_)
    if pairs and usable.any():
        weights = [w * (1.0 - PAIR_SHARE) for w in weights]
        for side, share in enumerate((0.25, 0.25, 0.5)):  # photograph, softened photograph, reconstruction
            x.append(pairs.sides[usable, side])
            synthetic.append(np.full(int(usable.sum()), side == 2))
            weights.append(np.full(int(usable.sum()), PAIR_SHARE * share / usable.sum()))
    return MapExamples(np.concatenate(x), np.concatenate(synthetic), np.concatenate(weights))


def network_scorer(
    views: Mapping[str, Maps], pairs: PairMaps | None, images: Images, settings: NetworkSettings
) -> Scorer:
    """Trains anew for every call."""

    def scored(held_out: Sequence[int]) -> Mapping[str, Floats]:
        examples = training_examples(views, pairs, images, held_out)
        net = train(examples, settings)
        sys.stdout.write(f"seed {settings.seed}: trained without folds {held_out} on {len(examples.x)} maps\n")
        sys.stdout.flush()
        return {view: image_logits(net, views[view]) for view in TESTS}

    return scored


def main(arguments: Sequence[str] | None = None) -> None:
    """See the module."""
    parser = argparse.ArgumentParser(prog="python -m pipeline.training.artifact_ablation")
    parser.add_argument("data", type=Path, nargs="+")
    parser.add_argument("--split", type=Path, required=True)
    parser.add_argument("--maps", type=Path, required=True)
    parser.add_argument("--statistics", type=Path, required=True)
    parser.add_argument("--pairs", type=int, default=200, help="how many of the cached ones; 0 for none")
    parser.add_argument("--seeds", type=int, nargs="+", default=SEEDS)
    parser.add_argument("--steps", type=int, default=400)
    parser.add_argument("--out", type=Path, required=True)
    options = parser.parse_args(arguments)
    required("torch").set_num_threads(1)
    options.out.mkdir(parents=True, exist_ok=True)
    study = Study.open(options.data, options.split, options.statistics)
    kept = [i for i, row in enumerate(study.rows) if study.images.fold[i] >= 0 and not row.packaged]
    images = only(study.images, kept)
    rows = [study.rows[i] for i in kept]
    first = statistics(study, kept)
    views = artifact_examples.load_images(options.maps, rows)
    pairs = artifact_examples.load_pairs(options.maps, options.pairs) if options.pairs else None
    by_seed = []
    for seed in options.seeds:
        settings = NetworkSettings(seed=seed, steps=options.steps)
        second = crossfit(network_scorer(views, pairs, images, settings), images, TESTS)
        found = []
        for view in TESTS:
            fused = fuse(first, second, images, rows, view)
            logits = dict(zip(METHODS, (first.outer[view], second.outer[view], fused), strict=True))
            found += compare(logits, images, view)
        by_seed.append(found)
        sys.stdout.write(table(found))
        _write(options.out, options.seeds[: len(by_seed)], by_seed)
    if is_kept(by_seed):
        settings = NetworkSettings(seed=options.seeds[0], steps=options.steps)
        net = train(training_examples(views, pairs, images, ()), settings)
        export(net, options.out / "artifact.onnx", views["q90"][:8, 0].astype(np.float32))


def _write(out: Path, seeds: Sequence[int], by_seed: Sequence[Sequence[Comparison]]) -> None:
    """Table and numbers of the seeds so far."""
    verdict = "kept" if is_kept(by_seed) else "not kept"
    parts = [f"seed {seed}\n\n{table(found)}" for seed, found in zip(seeds, by_seed, strict=True)]
    (out / "artifact.md").write_text("\n".join([*parts, f"The network is {verdict}.\n"]), encoding="utf-8")
    content = {
        "kept": is_kept(by_seed),
        "seeds": {str(seed): [asdict(c) for c in found] for seed, found in zip(seeds, by_seed, strict=True)},
    }
    (out / "artifact.json").write_bytes(orjson.dumps(content, default=list, option=orjson.OPT_INDENT_2))


if __name__ == "__main__":
    main()
