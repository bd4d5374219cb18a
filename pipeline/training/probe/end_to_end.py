"""A network trained end to end, fold by fold: what fine-tuning, or a curriculum from scratch, gives beside a probe.

    python -m pipeline.training.probe.end_to_end DATA --split FILE --decoders DIR --run DIR --out FILE

Each fold's network sees no source and no decoder family of that fold; the fold's images are then scored like those
of the other ideas, nine native crops saved as JPEG q90.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import orjson
from rich.progress import track

from pipeline.detection.calibration import Floats
from pipeline.evaluation.metrics import roc_auc
from pipeline.training.backbone import required
from pipeline.training.dataset import Labelled, read_pixels
from pipeline.training.decoders import load_tiny_directory
from pipeline.training.degrade import STAGES
from pipeline.training.networks import CropsToLogits
from pipeline.training.pairs import LabelledSampler, MixedSampler, PairSampler, PairSettings, Reconstruct
from pipeline.training.probe.crossfit import Images, fold_scores
from pipeline.training.probe.load import Study
from pipeline.training.probe.pair_features import DECODER_UNITS
from pipeline.training.probe.views import VIEWS
from pipeline.training.splits import FOLDS, fold_of_family
from pipeline.training.train_network import Phase, TrainSettings, train

CURRICULUM = ("lossless", "q98", "q90", "mixed")


def trained_on(rows: Sequence[Labelled], images: Images, fold: int) -> list[Labelled]:
    """Rows outside the fold and outside every source that appears in it; no final split, no web thumbnails."""
    absent = (images.fold < 0) | (images.fold == fold) | images.thumbnail_only
    absent |= np.isin(images.source, images.source[(images.fold == fold) & ~images.packaged])
    return [row for row, gone in zip(rows, absent, strict=True) if not gone]


def samplers(
    rows: Sequence[Labelled], families: Mapping[str, Reconstruct], stage: str, size_px: int, labelled_share: float
) -> MixedSampler:
    """Labelled pairs and decoder pairs of one stage of degradation."""
    settings = PairSettings(size_px=size_px, degrade=STAGES[stage])  # type: ignore[index]  # a name out of CURRICULUM
    return MixedSampler(PairSampler(rows, families, settings), LabelledSampler(rows, settings), labelled_share)


def score(net: Any, rows: Sequence[Labelled]) -> Floats:
    """Mean logit of an image's crops, float64 (N,); `net` maps uint8 crops to logits."""
    torch = required("torch")
    found = []
    with torch.inference_mode():
        for row in track(rows, "scoring"):
            crops = torch.from_numpy(VIEWS["q90"](read_pixels(row), row.sha256))
            found.append(float(net(crops).mean()))
    return np.array(found)


def main(arguments: Sequence[str] | None = None) -> None:
    """See the module."""
    parser = argparse.ArgumentParser(prog="python -m pipeline.training.probe.end_to_end")
    parser.add_argument("data", type=Path, nargs="+")
    parser.add_argument("--split", type=Path, required=True)
    parser.add_argument("--decoders", type=Path, required=True)
    parser.add_argument("--architecture", choices=("efficientnet_lite0", "small"), default="efficientnet_lite0")
    parser.add_argument("--labelled-share", type=float, default=0.7)
    parser.add_argument("--curriculum", action="store_true")
    parser.add_argument("--steps", type=int, default=300)
    parser.add_argument("--pairs-per-step", type=int, default=8)
    parser.add_argument("--learning-rate", type=float, default=3e-4)
    parser.add_argument("--run", type=Path, required=True, help="checkpoints and curves")
    parser.add_argument("--out", type=Path, required=True, help="JSON")
    options = parser.parse_args(arguments)
    required("torch").set_num_threads(1)
    study = Study.open(options.data, options.split, options.run)
    settings = TrainSettings(
        architecture=options.architecture,
        pretrained=options.architecture != "small",
        pairs_per_step=options.pairs_per_step,
        learning_rate=options.learning_rate,
        held_out_pairs=32,
    )
    decoders = load_tiny_directory(options.decoders)
    aucs = []
    for fold in range(FOLDS):
        rows = trained_on(study.rows, study.images, fold)
        kept = {name: one for name, one in decoders.items() if fold_of_family(DECODER_UNITS[name]) != fold}
        stages = CURRICULUM if options.curriculum else ("mixed",)
        phases = [
            Phase(stage, samplers(rows, kept, stage, settings.size_px, options.labelled_share), steps)
            for stage, steps in zip(stages, _shared_out(options.steps, len(stages)), strict=True)
        ]
        shown = [row for row, f in zip(study.rows, study.images.fold, strict=True) if f == fold and not row.packaged]
        # For the curves alone: nothing is chosen by them.
        held_out = samplers(shown, decoders, "mixed", settings.size_px, 1.0)
        found = train(phases, held_out, settings, options.run / f"fold{fold}")
        logits = np.full(len(study.rows), np.nan)
        at = {row.sha256: i for i, row in enumerate(study.rows)}
        net = CropsToLogits(found.net, found.normalisation).eval()
        logits[[at[row.sha256] for row in shown]] = score(net, shown)
        aucs.append(roc_auc(*fold_scores(logits, study.images, fold)))
        sys.stdout.write(f"fold {fold}: {aucs[-1]:.3f}, loss {found.curves.loss[-1]:.3f}\n")
        sys.stdout.flush()
    result = {"architecture": options.architecture, "steps": options.steps, "auc": aucs, "macro": float(np.mean(aucs))}
    options.out.write_bytes(orjson.dumps(result, option=orjson.OPT_INDENT_2))


def _shared_out(steps: int, parts: int) -> list[int]:
    return [steps * (place + 1) // parts - steps * place // parts for place in range(parts)]


if __name__ == "__main__":
    main()
