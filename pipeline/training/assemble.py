"""A bundle directory around one classifier: exported, calibrated, sealed."""

from __future__ import annotations

import shutil
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from pipeline.detection.bundle import (
    Bundle,
    BundleError,
    ClassifierEntry,
    Manifest,
    SpectralEntry,
    seal,
    write_manifest,
)
from pipeline.detection.calibration import Calibration
from pipeline.detection.classifier.preprocess import CropSpec
from pipeline.detection.policy import Policy
from pipeline.training.export import Storage, export_classifier
from pipeline.training.networks import Normalisation

MODEL_FILE = "classifier.onnx"
POLICY_FILE = "policy.json"
CARD_FILE = "MODEL_CARD.md"
UNSTATED = "not stated: ask the weights' author before you ship them"

_CARD = """# {model}

{note}

- Crops: {size} px, native pixels, at most {crops} an image.
- Exported to ONNX; largest difference of a logit from torch on {size} px check crops: {gap:.1e}.
- Licence of the weights: {licence}.
- Thresholds are the defaults until `mediasieve plan` derives them from scores of this bundle.
"""


def assemble(
    out: Path,
    net: Any,
    normalisation: Normalisation,
    *,
    model: str,
    crops: CropSpec,
    version: str,
    licence: str = UNSTATED,
    note: str = "",
    calibration: Calibration | None = None,
    storage: Storage = "half",
    spectral_from: Bundle | None = None,
) -> float:
    """Write and seal a bundle directory.

    Args:
        out: new or empty directory.
        net: float (N, 3, S, S), normalised, to one logit.
        normalisation: of the network's input.
        model: name of the classifier in decisions.
        crops: what the classifier sees of an image.
        version: of the bundle.
        licence: of the weights.
        note: what the model card says first.
        calibration: None: raw logits count as they are, until `calibrate` replaces it.
        storage: of the weights, see `export_classifier`.
        spectral_from: a bundle whose spectral reference is taken along.

    Returns:
        The largest |logit difference| between the file and torch.

    Raises:
        BundleError: `out` holds files, or the result would not load.
        ExportRefused: see `export_classifier`.
    """
    if out.exists() and any(out.iterdir()):
        raise BundleError(f"{out}: holds files already; give a new directory")
    out.mkdir(parents=True, exist_ok=True)
    gap = export_classifier(net, normalisation, crops.size_px, out / MODEL_FILE, storage=storage)
    spectral = spectral_from.manifest.spectral if spectral_from else None
    if spectral_from and spectral:
        shutil.copyfile(spectral_from.path(spectral.file), out / spectral.file)
    policy = Policy(version=f"{version}-defaults")
    (out / POLICY_FILE).write_text(policy.model_dump_json(indent=2) + "\n", encoding="utf-8")
    card = _CARD.format(model=model, note=note, size=crops.size_px, crops=crops.max_crops, gap=gap, licence=licence)
    (out / CARD_FILE).write_text(card, encoding="utf-8")
    write_manifest(
        out,
        Manifest(
            version=version,
            prior=policy.fusion.prior,
            created_at=datetime.now(UTC).replace(microsecond=0),
            licence=licence,
            policy=POLICY_FILE,
            classifier=ClassifierEntry(
                model=model, file=MODEL_FILE, crops=crops, calibration=calibration or Calibration()
            ),
            spectral=SpectralEntry(file=spectral.file) if spectral else None,
            files={},
        ),
    )
    seal(out)
    return gap
