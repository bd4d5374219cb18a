"""Settings from the environment and from a file, as a worker reads them."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from pipeline.detection.classifier.backends.onnx import OnnxSettings
from pipeline.detection.classifier.backends.torch import TorchSettings
from pipeline.settings import SettingsInvalid, load_settings
from workers.settings import Settings


@pytest.fixture(autouse=True)
def no_settings_of_this_machine(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in [n for n in os.environ if n.startswith("MEDIASIEVE_")]:
        monkeypatch.delenv(name)


def given(monkeypatch: pytest.MonkeyPatch, **variables: str) -> Settings:
    for name, value in variables.items():
        monkeypatch.setenv(f"MEDIASIEVE_{name}", value)
    return load_settings(Settings)


def test_one_setting_of_a_section_leaves_the_others_at_their_defaults(monkeypatch: pytest.MonkeyPatch) -> None:
    settings = given(monkeypatch, RUNNER__BATCH__MAX_ITEMS="7", CLASSIFIER__FETCH__HOSTS__MAX_CONCURRENT="3")
    assert settings.runner.batch.max_items == 7
    assert settings.runner.batch.max_cost == Settings().runner.batch.max_cost == 64_000_000
    assert settings.classifier.fetch.hosts.max_concurrent == 3
    assert settings.classifier.fetch.max_redirects == 3


def test_one_setting_of_the_default_back_end_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    assert given(monkeypatch, CLASSIFIER__BACKEND__INTRA_OP_THREADS="4").classifier.backend == OnnxSettings(
        intra_op_threads=4
    )


TORCH = {
    "CLASSIFIER__BACKEND__KIND": "torch",
    "CLASSIFIER__BACKEND__ARCHITECTURE": "resnet50",
    "CLASSIFIER__BACKEND__WEIGHTS": "/models/resnet50",
    "CLASSIFIER__BACKEND__CALIBRATION": '{"temperature": 1.5, "bias": 0.25}',
}


def test_the_torch_back_end_by_variables(monkeypatch: pytest.MonkeyPatch) -> None:
    backend = given(monkeypatch, **TORCH).classifier.backend
    assert isinstance(backend, TorchSettings)
    assert (backend.weights, backend.calibration.temperature) == ("/models/resnet50", 1.5)


def test_the_torch_back_end_by_a_file_and_a_variable_over_it(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    file = tmp_path / "fleet.toml"
    file.write_text(
        """
        [classifier.backend]
        kind = "torch"
        architecture = "resnet50"
        weights = "/models/resnet50"
        calibration = { temperature = 1.5, bias = 0.25 }
        """
    )
    backend = given(monkeypatch, CONFIG=str(file), CLASSIFIER__BACKEND__DEVICE="cuda:1").classifier.backend
    assert isinstance(backend, TorchSettings)
    assert (backend.device, backend.architecture) == ("cuda:1", "resnet50")


def test_all_faults_are_told_at_once_and_no_secret_with_them(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(SettingsInvalid) as raised:
        given(monkeypatch, FOO="1", RUNNER__NO="1", HEALTH__PORT="70000", KAFKA__SASL_PASSWORD="hunter2")
    text = str(raised.value)
    for name in ("MEDIASIEVE_FOO", "MEDIASIEVE_RUNNER__NO", "MEDIASIEVE_HEALTH__PORT"):
        assert name in text
    assert "hunter2" not in text
