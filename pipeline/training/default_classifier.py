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
from pathlib import Path
from typing import Any

import numpy as np

from pipeline.detection.bundle import Bundle, SpectralEntry, read_manifest, seal, write_manifest
from pipeline.detection.calibration import fit
from pipeline.detection.classifier.preprocess import CropSpec
from pipeline.evaluation.leakage import TrainingImage, write
from pipeline.evaluation.perceptual_hash import dhash256
from pipeline.training.assemble import assemble
from pipeline.training.backbone import load_backbone, required
from pipeline.training.dataset import Labelled, read_pixels
from pipeline.training.networks import HALF
from pipeline.training.probe.ablation import LITE0, SHIPPED
from pipeline.training.probe.crossfit import Channel, Images, crossfit, train
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


def chosen_head(channel: Channel, images: Images) -> tuple[Linear, float]:
    """The head on all folds, at the ridge whose worst held-out fold is best; and that ridge."""
    worst = []
    for ridge in SHIPPED.ridges:
        recipe = type(SHIPPED)(**{**vars(SHIPPED), "ridges": (ridge,)})
        logits = crossfit(channel, images, recipe, (HEADLINE,)).outer[HEADLINE]
        worst.append(min(_fold_auc(logits, images, fold) for fold in range(FOLDS)))
    best = int(np.argmax(worst))
    return train(channel, images, SHIPPED, ())[best], SHIPPED.ridges[best]


def _fold_auc(logits: np.ndarray[Any, np.dtype[np.float64]], images: Images, fold: int) -> float:
    from pipeline.evaluation.metrics import roc_auc  # noqa: PLC0415 - used here alone

    rows = (images.fold == fold) & ~images.packaged
    return roc_auc(logits[rows & ~images.synthetic], logits[rows & images.synthetic])


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
    parser.add_argument("--spectral", type=Path, required=True, help="made by pipeline.training.spectral_reference")
    parser.add_argument("--version", required=True)
    parser.add_argument("--out", type=Path, required=True, help="new directory")
    options = parser.parse_args(arguments)
    study = Study.open(options.data, options.split, options.cache)
    channel = study.channel(LITE0, SHIPPED.views)
    head, ridge = chosen_head(channel, study.images)
    logits = crossfit(channel, study.images, SHIPPED, (HEADLINE,)).outer[HEADLINE]
    shown = (study.images.fold >= 0) & ~study.images.packaged
    gap = assemble(
        options.out,
        network(load_backbone(LITE0), head),
        HALF,
        model=MODEL,
        crops=CROPS,
        version=options.version,
        licence=LICENCE,
        calibration=fit(logits[shown], study.images.synthetic[shown]),
    )
    (options.out / SPECTRAL_FILE).write_bytes(options.spectral.read_bytes())
    write(options.out / TRAINING_FILE, training_images(study.rows, study.images))
    manifest = read_manifest(options.out)
    updated = manifest.model_copy(update={"training": TRAINING_FILE, "spectral": SpectralEntry(file=SPECTRAL_FILE)})
    write_manifest(options.out, updated)
    seal(options.out)
    sys.stdout.write(f"{Bundle.load(options.out).version}: ridge {ridge:g}, largest logit gap {gap:.1e}\n")


if __name__ == "__main__":
    main()
