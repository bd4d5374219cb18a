"""Importers and export on random weights of the same architectures, transformers at tiny sizes.

Published weights are not at hand here, so what is shown is that the form is read, exported and checked; not a score.
"""

from __future__ import annotations

import json

import numpy as np
import pytest

pytest.importorskip("torch", reason="needs the [torch] extra")
pytest.importorskip("onnx", reason="needs the dev extra")
pytest.importorskip("timm", reason="needs the [torch] extra")
pytest.importorskip("torchvision", reason="needs the [torch] extra")

import timm
import torch
import torchvision
from safetensors.torch import save_file

from pipeline.detection.bundle import Bundle, BundleError
from pipeline.detection.classifier.backends.onnx import OnnxBackend, OnnxSettings
from pipeline.detection.classifier.preprocess import CropSpec
from pipeline.training.assemble import assemble
from pipeline.training.export import MAX_LOGIT_GAP, ExportRefused, check_crops, export_classifier, logit_gap
from pipeline.training.importers.base import ImportOptions, ImportRefused
from pipeline.training.importers.kinds import IMPORTERS
from pipeline.training.networks import HALF, CropsToLogits, SmallNetwork

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


def vit(width=192, size_px=64, depth=2, outputs=1, heads=3):
    return timm.models.vision_transformer.VisionTransformer(
        img_size=size_px, patch_size=16, embed_dim=width, depth=depth, num_heads=heads, num_classes=outputs
    ).eval()


def clip_directory(path):
    transformers = pytest.importorskip("transformers", reason="needs the [torch] extra")
    config = transformers.CLIPVisionConfig(
        hidden_size=32, intermediate_size=64, projection_dim=24, num_hidden_layers=2, num_attention_heads=4,
        image_size=42, patch_size=14,
    )  # fmt: skip
    transformers.CLIPVisionModelWithProjection(config).save_pretrained(path)
    return path


def through_bundle(imported, out, storage="half"):
    """Assemble, load as the fleet would, and score the check crops."""
    crops = CropSpec(size_px=imported.size_px)
    told = {"model": imported.model, "note": imported.note, "version": "v", "storage": storage}
    gap = assemble(out, imported.net, imported.normalisation, crops=crops, **told)
    bundle = Bundle.load(out)
    backend = OnnxBackend(bundle.path("classifier.onnx"), imported.model, OnnxSettings())
    backend.open()
    return gap, backend.score(check_crops(imported.size_px)), bundle


def own_logits(net, imported):
    """By the original network, normalised by hand: independent of the importer's module."""
    pixels = torch.from_numpy(check_crops(imported.size_px)).permute(0, 3, 1, 2).float() / 255
    mean, std = (torch.tensor(v).reshape(1, 3, 1, 1) for v in (imported.normalisation.mean, imported.normalisation.std))
    with torch.inference_mode():
        return net((pixels - mean) / std).numpy()


@pytest.mark.parametrize("maker", ["torchvision", "timm"])
def test_efficientnet_b0_of_either_library(tmp_path, maker):
    net = (
        torchvision.models.efficientnet_b0(num_classes=1)
        if maker == "torchvision"
        else timm.create_model("efficientnet_b0", num_classes=1)
    )
    save_file(net.state_dict(), tmp_path / "w.safetensors")
    imported = IMPORTERS["efficientnet_b0"](tmp_path / "w.safetensors", ImportOptions(size_px=64))
    assert imported.model.startswith(maker)
    gap, logits, bundle = through_bundle(imported, tmp_path / "b", "single")
    assert gap < MAX_LOGIT_GAP
    assert logits == pytest.approx(own_logits(net.eval(), imported)[:, 0], abs=MAX_LOGIT_GAP)
    assert bundle.manifest.classifier.crops.size_px == 64


def test_resnet50_with_two_outputs_from_a_wrapped_pickle(tmp_path):
    net = torchvision.models.resnet50(num_classes=2)
    torch.save({"state_dict": {f"module.model.{n}": v for n, v in net.state_dict().items()}}, tmp_path / "r.pth")
    imported = IMPORTERS["resnet50"](tmp_path / "r.pth", ImportOptions(size_px=64))
    _, logits, _ = through_bundle(imported, tmp_path / "b", "single")
    two = own_logits(net.eval(), imported)
    assert logits == pytest.approx(two[:, 1] - two[:, 0], abs=MAX_LOGIT_GAP)


@pytest.mark.parametrize("form", ["fc.", ""])
def test_a_linear_head_on_clip(tmp_path, form):
    backbone = clip_directory(tmp_path / "clip")
    head = torch.nn.Linear(24, 1)
    torch.save({f"{form}weight": head.weight.data, f"{form}bias": head.bias.data}, tmp_path / "fc.pth")
    imported = IMPORTERS["univfd"](tmp_path / "fc.pth", ImportOptions(backbone=backbone))
    assert imported.size_px == 42
    gap, logits, bundle = through_bundle(imported, tmp_path / "b")
    assert gap < MAX_LOGIT_GAP
    import transformers

    tower = transformers.CLIPVisionModelWithProjection.from_pretrained(backbone).eval()
    wanted = own_logits(lambda x: head(tower(pixel_values=x).image_embeds), imported)[:, 0]
    assert logits == pytest.approx(wanted, abs=MAX_LOGIT_GAP)
    assert "does not resize" in bundle.path("MODEL_CARD.md").read_text()


def test_a_clip_head_needs_its_backbone_and_its_width(tmp_path):
    save_file({"fc.weight": torch.zeros(1, 768), "fc.bias": torch.zeros(1)}, tmp_path / "fc.safetensors")
    with pytest.raises(ImportRefused, match="give --backbone"):
        IMPORTERS["univfd"](tmp_path / "fc.safetensors", ImportOptions())
    with pytest.raises(ImportRefused, match="the head takes 768 numbers, the backbone gives 24"):
        IMPORTERS["univfd"](tmp_path / "fc.safetensors", ImportOptions(backbone=clip_directory(tmp_path / "clip")))


def test_a_community_forensics_vit(tmp_path):
    net = vit()
    save_file({f"vit.{name}": value for name, value in net.state_dict().items()}, tmp_path / "v.safetensors")
    imported = IMPORTERS["vit_s16"](tmp_path / "v.safetensors", ImportOptions())
    assert (imported.size_px, imported.model) == (64, "vit-w192-p16-64")
    gap, logits, _ = through_bundle(imported, tmp_path / "b")
    assert gap < MAX_LOGIT_GAP
    assert logits == pytest.approx(own_logits(net, imported)[:, 0], abs=MAX_LOGIT_GAP)


def test_the_small_vit_of_384_px_has_the_names_that_are_read(tmp_path):
    """Names and shapes only: the whole network would take seconds."""
    with torch.device("meta"):
        real = timm.create_model("vit_small_patch16_384", num_classes=1).state_dict()
        own = vit(width=384, size_px=384, depth=12, heads=6).state_dict()
    assert {n: v.shape for n, v in real.items()} == {n: v.shape for n, v in own.items()}


@pytest.mark.parametrize("kind", sorted(IMPORTERS))
def test_another_architecture_is_named(tmp_path, kind):
    save_file({"some.weight": torch.zeros(3)}, tmp_path / "x.safetensors")
    with pytest.raises(ImportRefused, match=r"x\.safetensors"):
        IMPORTERS[kind](tmp_path / "x.safetensors", ImportOptions())


def test_an_imagenet_head_is_refused(tmp_path):
    save_file({"fc.weight": torch.zeros(1000, 2048)}, tmp_path / "x.safetensors")
    with pytest.raises(ImportRefused, match="has 1000 outputs"):
        IMPORTERS["resnet50"](tmp_path / "x.safetensors", ImportOptions())


def test_a_file_that_answers_otherwise_is_refused_and_removed(tmp_path):
    """Weights of 1e5 around 1: half precision moves the logits by far more than allowed."""

    class Steep(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.conv = torch.nn.Conv2d(3, 64, 8, stride=8)
            self.scale = 1e4

        def forward(self, x):
            return self.conv(x).mean((2, 3)).sum(1, keepdim=True) * self.scale

    path = tmp_path / "m.onnx"
    with pytest.raises(ExportRefused, match="single precision"):
        export_classifier(Steep(), HALF, 32, path)
    assert not path.exists()


def test_half_storage_halves_the_file_and_keeps_the_logits(tmp_path):
    net = SmallNetwork((16, 32, 48)).eval()
    gaps = [export_classifier(net, HALF, 64, tmp_path / f"{s}.onnx", storage=s) for s in ("half", "single")]
    assert gaps[1] <= gaps[0] < MAX_LOGIT_GAP
    half, single = ((tmp_path / f"{s}.onnx").stat().st_size for s in ("half", "single"))
    assert half < 0.62 * single
    assert logit_gap(CropsToLogits(net, HALF), tmp_path / "half.onnx", check_crops(64)[::-1]) < MAX_LOGIT_GAP


def test_a_bundle_is_not_written_over(tmp_path):
    (tmp_path / "x").write_text("mine")
    with pytest.raises(BundleError, match="holds files already"):
        assemble(tmp_path, SmallNetwork(), HALF, model="m", crops=CropSpec(size_px=32), version="v")


def test_a_spectral_reference_is_taken_along(tmp_path):
    assemble(
        tmp_path / "b", SmallNetwork((8, 16)), HALF, model="m", crops=CropSpec(size_px=32), version="v",
        spectral_from=Bundle.load(),
    )  # fmt: skip
    manifest = json.loads((tmp_path / "b" / "bundle.json").read_text())
    assert manifest["spectral"]["file"] in manifest["files"]
    assert np.isfinite(Bundle.load(tmp_path / "b").manifest.classifier.calibration.temperature)
