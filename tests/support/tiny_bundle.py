"""A bundle whose classifier calls bright images generated, and a dataset that it can judge."""

from __future__ import annotations

import hashlib
import json
import shutil
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
from PIL import Image

from pipeline.detection.bundle import (
    DEFAULT_BUNDLE,
    ClassifierEntry,
    Manifest,
    SpectralEntry,
    read_manifest,
    seal,
    write_manifest,
)
from pipeline.detection.calibration import Calibration
from pipeline.detection.classifier.preprocess import CropSpec
from pipeline.detection.policy import Policy
from tests.support.onnx_models import save_brightness_model

SIZE_PX = 160


def make_tiny_bundle(directory: Path, version: str = "tiny") -> Path:
    """Brightness 120 is even odds; the spectral reference is the shipped one."""
    directory.mkdir(parents=True)
    save_brightness_model(directory / "classifier.onnx")
    spectral = read_manifest(DEFAULT_BUNDLE).spectral
    assert spectral is not None
    shutil.copy(DEFAULT_BUNDLE / spectral.file, directory / "spectral.npz")
    policy = Policy(version=version)
    (directory / "policy.json").write_text(policy.model_dump_json(), encoding="utf-8")
    manifest = Manifest(
        version=version,
        prior=policy.fusion.prior,
        created_at=datetime.now(UTC).replace(microsecond=0),
        licence="Apache-2.0",
        policy="policy.json",
        classifier=ClassifierEntry(
            model="brightness", file="classifier.onnx", crops=CropSpec(size_px=64), calibration=Calibration()
        ),
        spectral=SpectralEntry(file="spectral.npz"),
        files={},
    )
    write_manifest(directory, manifest)
    seal(directory)
    return directory


def make_dataset(directory: Path, images: int = 12) -> Path:
    """`images` of each class with a manifest: noise, dark when real, bright when generated; and one broken file."""
    directory.mkdir(parents=True)
    rng = np.random.default_rng(0)
    lines = []
    for number in range(images):
        for synthetic in (False, True):
            base = 170 if synthetic else 70
            pixels = np.clip(rng.normal(base, 30, (SIZE_PX, SIZE_PX, 3)), 0, 255).astype(np.uint8)
            name = f"{'ai' if synthetic else 'real'}{number:02}.png"
            Image.fromarray(pixels).save(directory / name)
            lines.append(_line(directory / name, synthetic, f"{'gen' if synthetic else 'cam'}{number % 3}"))
    (directory / "broken.png").write_bytes(b"no image")
    lines.append(_line(directory / "broken.png", True, "gen<script>alert(1)</script>"))
    (directory / "manifest.jsonl").write_text("\n".join(map(json.dumps, lines)) + "\n", encoding="utf-8")
    return directory


def _line(path: Path, synthetic: bool, source: str) -> dict[str, object]:
    return {
        "path": path.name,
        "label": "ai" if synthetic else "real",
        "source": source,
        "generator": source if synthetic else None,
        "lora": "yes" if source == "gen1" else "no",
        "sha256": hashlib.sha256(path.read_bytes()).hexdigest(),
    }
