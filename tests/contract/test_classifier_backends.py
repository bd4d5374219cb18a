"""What every classifier backend owes its caller."""

from __future__ import annotations

import importlib.util

import numpy as np
import pytest

from pipeline.detection.bundle import Bundle
from pipeline.detection.calibration import Calibration
from pipeline.detection.classifier.backends.base import BackendError, ModelOutputError, checked
from pipeline.detection.classifier.backends.onnx import OnnxBackend, OnnxSettings
from pipeline.detection.classifier.backends.torch import TorchBackend, TorchSettings
from tests.support.onnx_models import save_brightness_model

SIZE_PX = 64

needs_torch = [
    pytest.mark.torch,
    pytest.mark.skipif(
        any(importlib.util.find_spec(m) is None for m in ("torch", "timm", "transformers")),
        reason="needs mediasieve[torch]",
    ),
    # torch and its friends warn of their own future
    pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::FutureWarning"),
]


def tiny_onnx(directory):
    save_brightness_model(directory / "m.onnx")
    return OnnxBackend(directory / "m.onnx", "brightness", OnnxSettings())


def shipped_onnx(directory):
    bundle = Bundle.load()
    entry = bundle.manifest.classifier
    return OnnxBackend(bundle.path(entry.file), entry.model, OnnxSettings(intra_op_threads=2))


def cnn(architecture, precision="float32"):
    def make(directory):
        import timm
        import torch
        from safetensors.torch import save_file

        torch.manual_seed(0)
        net = timm.create_model(architecture, pretrained=False, num_classes=1)
        save_file(net.state_dict(), str(directory / "model.safetensors"))
        return TorchBackend(
            TorchSettings(
                architecture=architecture,
                weights=str(directory),
                calibration=Calibration(),
                precision=precision,
            )
        )

    return make


def clip(directory):
    import torch
    from safetensors.torch import save_file
    from transformers import CLIPVisionConfig, CLIPVisionModelWithProjection

    torch.manual_seed(0)
    config = CLIPVisionConfig(
        hidden_size=32,
        intermediate_size=64,
        num_hidden_layers=2,
        num_attention_heads=2,
        image_size=32,
        patch_size=8,
        projection_dim=16,
    )
    CLIPVisionModelWithProjection(config).save_pretrained(directory)
    head = {"weight": torch.randn(1, 16), "bias": torch.randn(1)}
    save_file(head, str(directory / "head.safetensors"))
    return TorchBackend(TorchSettings(architecture="clip", weights=str(directory), calibration=Calibration()))


@pytest.fixture(
    params=[
        pytest.param((tiny_onnx, SIZE_PX), id="onnx-tiny"),
        pytest.param((shipped_onnx, 256), id="onnx-shipped"),
        pytest.param((cnn("efficientnet_b0"), SIZE_PX), id="torch-efficientnet_b0", marks=needs_torch),
        pytest.param((cnn("resnet50"), SIZE_PX), id="torch-resnet50", marks=needs_torch),
        pytest.param((clip, SIZE_PX), id="torch-clip", marks=needs_torch),
    ]
)
def closed(request, tmp_path):
    make, size_px = request.param
    backend = make(tmp_path)
    yield backend, np.random.default_rng(0).integers(0, 256, (3, size_px, size_px, 3), np.uint8)
    backend.close()


@pytest.fixture
def opened(closed):
    closed[0].open()
    return closed


def test_one_finite_float32_a_crop(opened):
    backend, crops = opened
    logits = backend.score(crops)
    assert logits.shape == (3,)
    assert logits.dtype == np.float32
    assert np.isfinite(logits).all()


def test_a_crop_scores_alike_alone_and_in_company(opened):
    backend, crops = opened
    together = backend.score(crops)
    alone = np.concatenate([backend.score(crops[i : i + 1]) for i in range(3)])
    np.testing.assert_allclose(alone, together, rtol=1e-3, atol=1e-3)
    np.testing.assert_allclose(backend.score(crops[::-1]), together[::-1], rtol=1e-3, atol=1e-3)


def test_pixels_matter(opened):
    backend, crops = opened
    assert not np.allclose(backend.score(crops), backend.score(255 - crops), atol=1e-4)


def test_the_input_is_left_alone(opened):
    backend, crops = opened
    before = crops.copy()
    backend.score(crops)
    assert np.array_equal(crops, before)


def test_a_closed_backend_says_so(closed):
    backend, crops = closed
    backend.close()
    with pytest.raises(BackendError, match=r"before open\(\)"):
        backend.score(crops)
    backend.open()
    backend.close()
    backend.close()
    with pytest.raises(BackendError, match=r"before open\(\)"):
        backend.score(crops)


def test_the_name_fits_a_score(closed):
    assert 0 < len(closed[0].model) <= 128


@pytest.mark.parametrize(
    "wrong",
    [np.zeros((2, 1), np.float32), np.zeros(3, np.float32), np.zeros(2), np.float32([1, np.nan])],
)
def test_a_broken_answer_is_never_a_score(wrong):
    with pytest.raises(ModelOutputError, match="broken-model"):
        checked(wrong, 2, "broken-model")


def test_a_file_that_is_no_model_is_named(tmp_path):
    (tmp_path / "m.onnx").write_bytes(b"no model")
    with pytest.raises(BackendError, match=r"m\.onnx.*bundle verify"):
        OnnxBackend(tmp_path / "m.onnx", "m", OnnxSettings()).open()


def test_a_model_with_other_outputs_is_refused(tmp_path):
    save_brightness_model(tmp_path / "m.onnx", output="probability")
    with pytest.raises(BackendError, match="probability"):
        OnnxBackend(tmp_path / "m.onnx", "m", OnnxSettings()).open()


def test_an_overflowing_model_never_scores(tmp_path):
    save_brightness_model(tmp_path / "m.onnx", slope=3e38)
    backend = OnnxBackend(tmp_path / "m.onnx", "m", OnnxSettings())
    backend.open()
    with pytest.raises(ModelOutputError, match="not finite"):
        backend.score(np.full((1, 8, 8, 3), 255, np.uint8))


def test_cuda_that_is_not_there_is_an_error_and_no_silent_cpu(tmp_path, monkeypatch):
    import onnxruntime

    monkeypatch.setattr(onnxruntime, "get_available_providers", lambda: ["CPUExecutionProvider"])
    save_brightness_model(tmp_path / "m.onnx")
    with pytest.raises(BackendError, match="onnxruntime-gpu"):
        OnnxBackend(tmp_path / "m.onnx", "m", OnnxSettings(device="cuda")).open()


def torch_settings(**changes):
    fields = {"architecture": "resnet50", "weights": "owner/name", "calibration": Calibration()}
    return TorchSettings(**(fields | changes))


def test_without_torch_the_way_out_is_named(monkeypatch):
    import sys

    monkeypatch.setitem(sys.modules, "torch", None)
    with pytest.raises(BackendError, match=r"install mediasieve\[torch\]"):
        TorchBackend(torch_settings()).open()


def test_float16_on_the_cpu_is_refused():
    with pytest.raises(ValueError, match="float16 needs device cuda"):
        torch_settings(precision="float16")


@pytest.mark.torch
class TestTorchOnly:
    pytestmark = needs_torch

    def test_a_hub_id_needs_a_commit(self):
        with pytest.raises(BackendError, match="set `revision` to a commit"):
            TorchBackend(torch_settings()).open()

    def test_weights_of_another_network_are_refused(self, tmp_path):
        cnn("efficientnet_b0")(tmp_path)
        with pytest.raises(BackendError, match="no usable resnet50 weights"):
            TorchBackend(torch_settings(weights=str(tmp_path))).open()

    def test_a_pickled_checkpoint_is_not_read(self, tmp_path):
        import torch

        torch.save({"weight": torch.zeros(1)}, tmp_path / "model.safetensors")
        with pytest.raises(BackendError, match="no usable resnet50 weights"):
            TorchBackend(torch_settings(weights=str(tmp_path))).open()

    def test_cuda_that_is_not_there_is_an_error(self, monkeypatch, tmp_path):
        import torch

        monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
        with pytest.raises(BackendError, match="no CUDA device"):
            TorchBackend(torch_settings(weights=str(tmp_path), device="cuda")).open()

    def test_bfloat16_stays_near_float32(self, tmp_path):
        crops = np.random.default_rng(0).integers(0, 256, (2, SIZE_PX, SIZE_PX, 3), np.uint8)
        found = []
        for precision in ("float32", "bfloat16"):
            backend = cnn("efficientnet_b0", precision)(tmp_path)
            backend.open()
            found.append(backend.score(crops))
            backend.close()
        np.testing.assert_allclose(found[0], found[1], rtol=0.1, atol=0.1)
