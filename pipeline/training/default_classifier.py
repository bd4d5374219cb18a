"""The classifier of the default bundle: a frozen backbone, a discriminant on all its blocks, a calibration.

    python -m pipeline.training.default_classifier DATA [DATA ...] --split FILE --cache DIR --spectral FILE --out DIR

Needs features embedded by `pipeline.training.probe.embed`. The head is fitted on every image outside the final
split; ridge and calibration come from held-out folds. The bundle gets a default policy: `mediasieve plan` on the
scores that `pipeline.training.probe.results` writes derives the real one.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from pipeline.detection.bundle import Bundle, SpectralEntry, read_manifest, seal, write_manifest
from pipeline.detection.calibration import Calibration, Floats, fit
from pipeline.detection.classifier.preprocess import CropSpec
from pipeline.evaluation.leakage import TrainingImage, write
from pipeline.evaluation.metrics import roc_auc
from pipeline.evaluation.perceptual_hash import dhash256
from pipeline.training.assemble import assemble
from pipeline.training.backbone import load_backbone, required
from pipeline.training.dataset import Labelled, read_pixels
from pipeline.training.networks import HALF
from pipeline.training.probe.ablation import LITE0, SHIPPED
from pipeline.training.probe.crossfit import Channel, Images, train
from pipeline.training.probe.discriminant import Linear
from pipeline.training.probe.embed import moments_module
from pipeline.training.probe.held_out import HEADLINE
from pipeline.training.probe.load import Study
from pipeline.training.splits import FOLDS

CROPS = CropSpec(size_px=256, max_crops=9)
MODEL = "tf_efficientnet_lite0-blocks-discriminant"
LICENCE = "Apache-2.0"
TRAINING_FILE = "training_images.jsonl"
SPECTRAL_FILE = "spectral_reference.npz"


def network(net: Any, head: Linear) -> Any:
    """A torch module: normalised pixels (N, 3, S, S) to one logit (N,), from the moments of every block."""
    torch = required("torch")

    class BlocksDiscriminant(torch.nn.Module):  # type: ignore[misc, name-defined]  # torch is optional, so untyped
        def __init__(self) -> None:
            super().__init__()
            self.moments = moments_module(net)
            self.head = torch.nn.Linear(head.weights.size, 1)
            with torch.no_grad():
                self.head.weight.copy_(torch.from_numpy(head.weights[None].astype(np.float32)))
                self.head.bias.fill_(head.bias)

        def forward(self, pixels: Any) -> Any:
            return self.head(self.moments(pixels)).squeeze(1)

    return BlocksDiscriminant().eval()


@dataclass(frozen=True)
class Chosen:
    """The head on all folds, its ridge, and the held-out logits at that ridge, (M,), NaN in the final split."""

    head: Linear
    ridge: float
    held_out: Floats


def choose(channel: Channel, images: Images) -> Chosen:
    """The ridge whose worst held-out fold is best, and the head that it gives on all folds."""
    path = np.full((len(SHIPPED.ridges), len(images.fold)), np.nan)
    worst = np.ones(len(SHIPPED.ridges))
    for fold in np.unique(images.fold[images.fold >= 0]).tolist():
        rows = images.fold == fold
        shown = rows & ~images.packaged
        for number, head in enumerate(train(channel, images, SHIPPED, (fold,))):
            path[number, rows] = head.logits(channel.views[HEADLINE][rows])
            of_fold = roc_auc(path[number, shown & ~images.synthetic], path[number, shown & images.synthetic])
            worst[number] = min(worst[number], of_fold)
    best = int(np.argmax(worst))
    return Chosen(train(channel, images, SHIPPED, ())[best], SHIPPED.ridges[best], path[best])


def _scaled(head: Linear, temperature: float) -> Linear:
    """With the temperature in the weights: a logit of the file is one of P(synthetic) but for the bias."""
    return Linear(head.weights / temperature, head.bias / temperature)


def training_images(rows: Sequence[Labelled], images: Images) -> list[TrainingImage]:
    """What the classifier, its calibration or the spectral reference has seen."""
    return [
        TrainingImage(
            sha256=row.sha256,
            dhash=f"{dhash256(read_pixels(row)):064x}",
            source=row.source,
            synthetic=row.synthetic,
        )
        for row, fold in zip(rows, images.fold, strict=True)
        if fold >= 0
    ]


def main(arguments: Sequence[str] | None = None) -> None:
    """See the module."""
    parser = argparse.ArgumentParser(prog="python -m pipeline.training.default_classifier")
    parser.add_argument("data", type=Path, nargs="+")
    parser.add_argument("--split", type=Path, required=True)
    parser.add_argument("--cache", type=Path, required=True)
    parser.add_argument(
        "--pairs", type=Path, help="made by pipeline.training.probe.pair_features, if the recipe has pairs"
    )
    parser.add_argument("--spectral", type=Path, required=True, help="made by pipeline.training.spectral_reference")
    parser.add_argument("--hold-out-fold", type=int, choices=range(FOLDS), help="a bundle to test on that fold")
    parser.add_argument("--version", required=True)
    parser.add_argument("--out", type=Path, required=True, help="new directory")
    options = parser.parse_args(arguments)
    study = Study.open(options.data, options.split, options.cache)
    if options.hold_out_fold is not None:
        study = study.without_fold(options.hold_out_fold)
    channel = study.channel(
        LITE0, sorted({*SHIPPED.views, *SHIPPED.thumbnail_views, *SHIPPED.photograph_views}), options.pairs
    )
    chosen = choose(channel, study.images)
    shown = (study.images.fold >= 0) & ~study.images.thumbnail_only
    calibration = fit(chosen.held_out[shown], study.images.synthetic[shown])
    gap = assemble(
        options.out,
        network(load_backbone(LITE0), _scaled(chosen.head, calibration.temperature)),
        HALF,
        model=MODEL,
        crops=CROPS,
        version=options.version,
        licence=LICENCE,
        calibration=Calibration(bias=calibration.bias),
        storage="single",  # in half precision a logit moves by .004, more than the export allows
    )
    (options.out / SPECTRAL_FILE).write_bytes(options.spectral.read_bytes())
    write(options.out / TRAINING_FILE, training_images(study.rows, study.images))
    manifest = read_manifest(options.out)
    updated = manifest.model_copy(update={"training": TRAINING_FILE, "spectral": SpectralEntry(file=SPECTRAL_FILE)})
    write_manifest(options.out, updated)
    seal(options.out)
    sys.stdout.write(f"{Bundle.load(options.out).version}: ridge {chosen.ridge:g}, largest logit gap {gap:.1e}\n")


if __name__ == "__main__":
    main()
