"""Train, measure and export the classifier of the bundle `first`.

    python -m pipeline.training.first_classifier --data DIR --out DIR [--cache DIR]

`--data` holds images and a `manifest.jsonl` (see `pipeline.training.dataset`). Every number in the card is of
images whose source took no part in the fit, the choice of penalty or the calibration that scored them; the
shipped head is then fitted once more on everything. No random numbers decide anything but the bootstrap.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path

import numpy as np

from pipeline.detection.bundle import ClassifierEntry, Manifest, seal, write_manifest
from pipeline.detection.calibration import Bools, Floats
from pipeline.detection.classifier.preprocess import CropSpec, crops
from pipeline.detection.policy import Policy
from pipeline.training.backbone import export_onnx, features, load_backbone, required
from pipeline.training.card import Held, render
from pipeline.training.dataset import (
    Labelled,
    read_manifest,
    read_pixels,
    reencode,
    source_folds,
    training_quality,
)
from pipeline.training.head import Crops, Ints, Model, fit_model

FOLDS = 5
TEST_QUALITY = 90
BUNDLE_VERSION = "2026.11-first"
POLICY_VERSION = "2026.11-defaults"
MODEL_FILE = "classifier.onnx"
VARIANTS = ("training", "q90", "delivered")
"""Re-encoded at the training quality, at `TEST_QUALITY`, and not at all."""


def main(arguments: Sequence[str] | None = None) -> None:
    """Write `classifier.onnx`, `policy.json`, `bundle.json` and `MODEL_CARD.md` into `--out`."""
    parser = argparse.ArgumentParser(prog="python -m pipeline.training.first_classifier")
    parser.add_argument("--data", type=Path, required=True, help="images and manifest.jsonl")
    parser.add_argument("--out", type=Path, required=True, help="bundle directory to write")
    parser.add_argument("--cache", type=Path, help="directory for extracted features, reused when present")
    options = parser.parse_args(arguments)
    rows = read_manifest(options.data)
    spec = CropSpec()
    sets = {variant: extracted(rows, spec, variant, options.cache) for variant in VARIANTS}
    fold = np.asarray(source_folds(rows, FOLDS), np.int64)
    everything = np.ones(len(rows), bool)
    held = held_out(rows, sets, fold)
    shipped = fit_model(sets["training"], fold, everything)
    options.out.mkdir(parents=True, exist_ok=True)
    gap = write_model(shipped, sets["q90"], rows, spec, options.out)
    write_bundle(shipped, spec, options.out)
    card = render(held, shipped, gap)
    (options.out / "MODEL_CARD.md").write_text(card, encoding="utf-8")
    seal(options.out)
    sys.stdout.write(card)


def extracted(rows: Sequence[Labelled], spec: CropSpec, variant: str, cache: Path | None) -> Crops:
    """Features of all crops of one variant, from the cache when it holds them."""
    stored = cache / f"features-{variant}.npz" if cache else None
    synthetic = np.array([row.synthetic for row in rows])
    if stored and stored.exists():
        with np.load(stored, allow_pickle=False) as found:
            return Crops(found["features"], found["image"], synthetic)
    net = load_backbone()
    parts: list[np.ndarray[tuple[int, ...], np.dtype[np.float32]]] = []
    images: list[int] = []
    for number, row in enumerate(rows):
        cut = crops(prepared(row, variant), spec)
        parts.append(features(net, cut))
        images += [number] * len(cut)
    found_crops = Crops(np.concatenate(parts), np.asarray(images, np.int64), synthetic)
    if stored:
        stored.parent.mkdir(parents=True, exist_ok=True)
        np.savez(stored, features=found_crops.features, image=found_crops.image)
    return found_crops


def prepared(row: Labelled, variant: str) -> np.ndarray[tuple[int, ...], np.dtype[np.uint8]]:
    """Pixels of one image as the variant wants them."""
    rgb = read_pixels(row)
    if variant == "delivered":
        return rgb
    return reencode(rgb, TEST_QUALITY if variant == "q90" else training_quality(row))


def held_out(rows: Sequence[Labelled], sets: dict[str, Crops], fold: Ints) -> Held:
    """Calibrated P(synthetic) of every image by the model of the folds that lack its source."""
    scores = {name: np.full(len(rows), np.nan) for name in ("q90", "delivered")}
    penalties = []
    for number in range(FOLDS):
        test: Bools = fold == number
        model = fit_model(sets["training"], fold, ~test)
        penalties.append(model.penalty)
        for name, found in scores.items():
            found[test] = model.calibration.probabilities(model.head.image_logits(sets[name])[test])
    return Held(tuple(rows), scores["q90"], scores["delivered"], tuple(penalties), FOLDS)


def write_model(model: Model, q90: Crops, rows: Sequence[Labelled], spec: CropSpec, out: Path) -> float:
    """Export, and return the largest |logit difference| between the file and the float32 network."""
    export_onnx(load_backbone(), model.head.weights, model.head.bias, spec.size_px, out / MODEL_FILE)
    session = required("onnxruntime").InferenceSession(str(out / MODEL_FILE), providers=["CPUExecutionProvider"])
    wanted: Floats = q90.features.astype(np.float64) @ model.head.weights + model.head.bias
    gaps = []
    for number in range(0, len(rows), max(1, len(rows) // 64)):
        cut = crops(prepared(rows[number], "q90"), spec)
        got = session.run(["logit"], {"crops": cut})[0]
        gaps.append(float(np.abs(got - wanted[q90.image == number]).max()))
    return max(gaps)


def write_bundle(model: Model, spec: CropSpec, out: Path) -> None:
    """`policy.json` with the default thresholds, and an unsealed `bundle.json`."""
    policy = Policy(version=POLICY_VERSION)
    (out / "policy.json").write_text(policy.model_dump_json(indent=2) + "\n", encoding="utf-8")
    write_manifest(
        out,
        Manifest(
            version=BUNDLE_VERSION,
            prior=policy.fusion.prior,
            created_at=datetime.now(UTC).replace(microsecond=0),
            licence="Apache-2.0",
            policy="policy.json",
            classifier=ClassifierEntry(
                model="tf_efficientnet_lite0-logistic", file=MODEL_FILE, crops=spec, calibration=model.calibration
            ),
            files={},
        ),
    )


if __name__ == "__main__":
    main()
