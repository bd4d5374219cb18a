"""The classifier's back end, as settings choose it."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from pipeline.detection.classifier.backends.onnx import OnnxSettings
from pipeline.detection.classifier.backends.torch import TorchSettings
from pipeline.settings import load_settings
from workers.settings import Settings

TORCH = {
    "KIND": "torch",
    "ARCHITECTURE": "resnet50",
    "WEIGHTS": "/models/resnet50",
    "CALIBRATION": '{"temperature": 1.5, "bias": 0.25}',
}
FILE = """
[classifier.backend]
kind = "torch"
architecture = "resnet50"
weights = "/models/resnet50"
calibration = { temperature = 1.5, bias = 0.25 }
"""


@pytest.fixture(autouse=True)
def no_settings_of_this_machine(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in [n for n in os.environ if n.startswith("MEDIASIEVE_")]:
        monkeypatch.delenv(name)


def backend(monkeypatch: pytest.MonkeyPatch, variables: dict[str, str]) -> OnnxSettings | TorchSettings:
    for name, value in variables.items():
        monkeypatch.setenv(f"MEDIASIEVE_CLASSIFIER__BACKEND__{name}", value)
    return load_settings(Settings).classifier.backend


def test_onnx_needs_no_kind(monkeypatch: pytest.MonkeyPatch) -> None:
    assert backend(monkeypatch, {"INTRA_OP_THREADS": "4"}) == OnnxSettings(intra_op_threads=4)


def test_torch_by_variables(monkeypatch: pytest.MonkeyPatch) -> None:
    found = backend(monkeypatch, TORCH)
    assert isinstance(found, TorchSettings)
    assert (found.weights, found.calibration.temperature) == ("/models/resnet50", 1.5)


def test_torch_by_a_file_and_a_variable_over_it(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    (tmp_path / "fleet.toml").write_text(FILE)
    monkeypatch.setenv("MEDIASIEVE_CONFIG", str(tmp_path / "fleet.toml"))
    found = backend(monkeypatch, {"DEVICE": "cuda:1"})
    assert isinstance(found, TorchSettings)
    assert (found.device, found.architecture) == ("cuda:1", "resnet50")
