"""`bundle train` and `bundle import` from end to end, at toy sizes."""

from __future__ import annotations

import hashlib
import json

import numpy as np
import pytest
from PIL import Image
from typer.testing import CliRunner

pytest.importorskip("torch", reason="needs the [torch] extra")
pytest.importorskip("onnx", reason="needs the dev extra")
pytest.importorskip("timm", reason="needs the [torch] extra")
pytest.importorskip("matplotlib", reason="draws the learning curves")

import torch

from pipeline.detection.bundle import Bundle
from pipeline.training.dataset import read_manifest
from pipeline.training.recipe import Recipe, load_families, split
from pipeline.training.upsamplers import Upsampler, UpsamplerAutoencoder, UpsamplerSpec, save
from workers.cli.bundle import app
from workers.cli.bundle_training import TrainingRefused

pytestmark = [
    pytest.mark.torch,
    # torch's own: the exporter by tracing is called old, and traced shapes are called constants
    pytest.mark.filterwarnings("ignore::DeprecationWarning:torch"),
    pytest.mark.filterwarnings("ignore:You are using the legacy TorchScript-based ONNX export:DeprecationWarning"),
    pytest.mark.filterwarnings("ignore:Converting a tensor to a Python"),
]


@pytest.fixture(autouse=True)
def one_thread():
    torch.set_num_threads(1)
    torch.manual_seed(0)


@pytest.fixture
def data(tmp_path):
    """Six noisy PNG photographs of three sources."""
    root = tmp_path / "data"
    root.mkdir()
    lines = []
    for number in range(6):
        rng = np.random.default_rng(number)
        Image.fromarray(rng.integers(30, 220, (64, 72, 3), np.uint8)).save(root / f"{number}.png")
        digest = hashlib.sha256((root / f"{number}.png").read_bytes()).hexdigest()
        row = {"path": f"{number}.png", "sha256": digest, "label": "real", "source": f"s{number % 3}", "lora": None}
        lines.append(json.dumps(row))
    (root / "manifest.jsonl").write_text("\n".join(lines) + "\n")
    return root


@pytest.fixture
def upsamplers(tmp_path):
    """Untrained, so that even a toy learns the difference."""
    directory = tmp_path / "upsamplers"
    directory.mkdir()
    for kind in ("nearest", "shuffle"):
        spec = UpsamplerSpec(kind=kind, stride=4, width=4)
        save(Upsampler(spec, UpsamplerAutoencoder(spec)), directory / f"{kind}.safetensors")
    return directory


def arguments(data, upsamplers, out, *more):
    size = ["--size-px", "32", "--pairs-per-step", "2", "--held-out-pairs", "8", "--learning-rate", "0.003"]
    return ["train", str(data), "--decoders", str(upsamplers), "--out", str(out), *size, *more]


def test_training_gives_a_bundle_that_loads_with_curves_beside_it(tmp_path, data, upsamplers):
    out = tmp_path / "bundle"
    steps = ["--steps", "40", "--curriculum", "--hold-out-family", "shuffle-s4-seed0", "--no-matched-negatives"]
    done = CliRunner().invoke(app, arguments(data, upsamplers, out, *steps), catch_exceptions=False)
    assert done.exit_code == 0, done.output
    assert "held-out AUC-ROC" in done.output
    bundle = Bundle.load(out)
    assert bundle.manifest.classifier.model == "small-pairs"
    card = bundle.path("MODEL_CARD.md").read_text()
    assert "reconstructions by nearest-s4-seed0 (" in card
    assert "held-out crops of shuffle-s4-seed0 (whole sources held out)" in card
    assert (tmp_path / "bundle.run" / "curves.png").read_bytes().startswith(b"\x89PNG")
    again = CliRunner().invoke(app, arguments(data, upsamplers, out, *steps))
    assert isinstance(again.exception, TrainingRefused)
    assert "holds files already" in str(again.exception)


@pytest.mark.parametrize(
    ("more", "message"),
    [
        (["--hold-out-family", "absent"], "hold-out family absent: there are nearest-s4-seed0, shuffle-s4-seed0"),
        (["--vae", "somewhere@main"], "expected WHERE"),
        (["--steps", "0"], "steps: "),
        (["--labelled-share", "0.5"], "no generated images"),
    ],
)
def test_what_cannot_be_trained_is_one_line(tmp_path, data, upsamplers, more, message):
    refused = CliRunner().invoke(app, arguments(data, upsamplers, tmp_path / "b", *more))
    assert isinstance(refused.exception, TrainingRefused)
    assert message in str(refused.exception)
    assert not (tmp_path / "b").exists()


def test_no_source_is_on_both_sides_of_the_split(data):
    rows = read_manifest(data)
    training, held_out, how = split(rows)
    assert how == "whole sources"
    assert {r.source for r in training}.isdisjoint({r.source for r in held_out})
    assert len(training) + len(held_out) == len(rows)
    one = [r for r in rows if r.source == "s0"]
    assert split(one)[2] == "photographs of the only source"


def test_families_are_named_once(upsamplers):
    with pytest.raises(ValueError, match="named twice"):
        load_families(Recipe(data=upsamplers, decoders=(upsamplers, upsamplers)))
    with pytest.raises(ValueError, match="at least one decoder"):
        Recipe(data=upsamplers)


def test_an_imported_checkpoint_is_a_bundle(tmp_path):
    import timm

    vit = timm.models.vision_transformer.VisionTransformer(
        img_size=32, patch_size=16, embed_dim=192, depth=1, num_heads=3, num_classes=1
    )
    torch.save({"model": vit.state_dict()}, tmp_path / "v.pth")
    told = ["--bundle-version", "v7", "--licence", "MIT"]
    done = CliRunner().invoke(
        app, ["import", "vit_s16", str(tmp_path / "v.pth"), "--out", str(tmp_path / "b"), *told], catch_exceptions=False
    )
    assert done.exit_code == 0, done.output
    manifest = Bundle.load(tmp_path / "b").manifest
    assert (manifest.version, manifest.licence, manifest.classifier.crops.size_px) == ("v7", "MIT", 32)
    refused = CliRunner().invoke(app, ["import", "univfd", str(tmp_path / "v.pth"), "--out", str(tmp_path / "c")])
    assert isinstance(refused.exception, TrainingRefused)
    assert "give --backbone" in str(refused.exception)
