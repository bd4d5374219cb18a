"""A sealed bundle with a new calibration, from labelled images or from scores that the bundle gave."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from rich.progress import track

from pipeline.detection.bundle import Bundle, BundleError, seal, write_manifest
from pipeline.detection.calibration import Bools, Calibration, Floats, Method, fit_calibration
from pipeline.detection.classifier.backends.onnx import OnnxBackend, OnnxSettings
from pipeline.detection.classifier.preprocess import crops
from pipeline.evaluation.layouts import open_dataset, read_bytes
from pipeline.evaluation.metrics import brier, ece, nll
from pipeline.evaluation.score_row import ScoresError, read_rows
from pipeline.media.decode import DecodeLimits, decode_image
from pipeline.media.errors import MediaError


@dataclass(frozen=True)
class LabelledLogits:
    """Raw mean logits and labels, both (N,); `left_out` images could not be decoded or were not scored."""

    logits: Floats
    synthetic: Bools
    left_out: int


@dataclass(frozen=True)
class Quality:
    """Of probabilities against labels: expected calibration error, Brier score and mean log loss."""

    ece: float
    brier: float
    nll: float


@dataclass(frozen=True)
class Recalibrated:
    """The old and the new calibration on the same items: the new one was fitted on them, so it looks better."""

    calibration: Calibration
    items: int
    left_out: int
    before: Quality
    after: Quality


def recalibrate(directory: Path, source: Path, method: Method | None = None) -> Recalibrated:
    """Fit a calibration and seal the bundle with it.

    Args:
        directory: the bundle; its `bundle.json` is rewritten.
        source: a dataset's root, scored here; or a `.jsonl` file of scores by this very bundle.
        method: None: as the number of items allows.

    Raises:
        BundleError: the bundle is not usable.
        DatasetError, ScoresError: the source is not.
        ValueError: one class only, or scores that do not rise with the label.
    """
    bundle = Bundle.load(directory)
    found = (
        from_scores(bundle, source) if source.suffix == ".jsonl" and source.is_file() else from_images(bundle, source)
    )
    old = bundle.manifest.classifier.calibration
    new = fit_calibration(found.logits, found.synthetic, bundle.manifest.prior, method)
    entry = bundle.manifest.classifier.model_copy(update={"calibration": new})
    write_manifest(directory, bundle.manifest.model_copy(update={"classifier": entry}))
    seal(directory)
    qualities = (_quality(calibration, found) for calibration in (old, new))
    return Recalibrated(new, found.logits.size, found.left_out, *qualities)


def from_images(bundle: Bundle, root: Path) -> LabelledLogits:
    """Score every image of a dataset with the bundle's classifier, one after the other.

    Raises:
        DatasetError: see `open_dataset`.
    """
    entry = bundle.manifest.classifier
    backend = OnnxBackend(bundle.path(entry.file), entry.model, OnnxSettings())
    backend.open()
    logits, labels, left_out = [], [], 0
    samples = open_dataset(root).samples()
    for sample in track(samples, "scoring"):
        try:
            image = decode_image(read_bytes(sample), DecodeLimits())
        except MediaError:
            left_out += 1
            continue
        logits.append(float(np.mean(backend.score(crops(image.rgb, entry.crops)), dtype=np.float64)))
        labels.append(sample.synthetic)
    backend.close()
    return LabelledLogits(np.array(logits), np.array(labels, bool), left_out)


def from_scores(bundle: Bundle, path: Path) -> LabelledLogits:
    """Undo the bundle's calibration on its own scores; only images as delivered count.

    Raises:
        ScoresError: no scored image in the file.
        BundleError: the bundle's calibration has a table, which cannot be undone.
    """
    calibration = bundle.manifest.classifier.calibration
    if calibration.table:
        raise BundleError(f"{bundle.directory}: its calibration has a table, which cannot be undone; give the images")
    p, labels, left_out = [], [], 0
    for score, synthetic in _scored(path):
        if score is None:
            left_out += 1
        else:
            p.append(score)
            labels.append(synthetic)
    if not p:
        raise ScoresError(f"{path}: no classifier score in it; run `mediasieve evaluate` with this bundle first")
    clipped = np.clip(np.array(p), 1e-15, 1.0 - 1e-15)
    logits = (np.log(clipped) - np.log1p(-clipped) - calibration.bias) * calibration.temperature
    return LabelledLogits(logits, np.array(labels, bool), left_out)


def _scored(path: Path) -> Iterator[tuple[float | None, bool]]:
    for row in read_rows(path):
        if row.variant == "as delivered":
            yield row.classifier, row.synthetic


def _quality(calibration: Calibration, found: LabelledLogits) -> Quality:
    p = calibration.probabilities(found.logits)
    return Quality(ece(p, found.synthetic), brier(p, found.synthetic), nll(p, found.synthetic))
