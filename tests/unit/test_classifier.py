from __future__ import annotations

import threading
from datetime import UTC, datetime

import numpy as np
import pytest

from pipeline.detection.bundle import Bundle, ClassifierEntry, Manifest, seal, write_manifest
from pipeline.detection.calibration import Calibration
from pipeline.detection.classifier.backends.base import BackendError, ModelOutputError
from pipeline.detection.classifier.backends.torch import TorchSettings
from pipeline.detection.classifier.batching import BatcherClosed, BatchingSettings
from pipeline.detection.classifier.classifier import Classifier
from pipeline.detection.classifier.preprocess import CropSpec
from pipeline.detection.policy import Policy
from tests.support.onnx_models import save_brightness_model

CALIBRATION = Calibration(temperature=2.0, bias=0.25)


def bundle(directory, **model):
    save_brightness_model(directory / "m.onnx", **model)
    (directory / "policy.json").write_text(Policy(version="p1").model_dump_json())
    write_manifest(
        directory,
        Manifest(
            version="b1",
            prior=0.5,
            created_at=datetime(2026, 1, 1, tzinfo=UTC),
            licence="none",
            policy="policy.json",
            classifier=ClassifierEntry(
                model="brightness", file="m.onnx", crops=CropSpec(size_px=32), calibration=CALIBRATION
            ),
            files={},
        ),
    )
    seal(directory)
    return Bundle.load(directory)


@pytest.fixture
def classifier(tmp_path):
    made = Classifier(bundle(tmp_path))
    made.open()
    yield made
    made.close()


def grey(*levels):
    return np.stack([np.full((32, 32, 3), level, np.uint8) for level in levels])


def test_the_score_is_the_calibrated_mean_logit(classifier):
    mean_logit = ((0.1 * 100 - 12) + (0.1 * 200 - 12)) / 2
    wanted = CALIBRATION.probability(mean_logit)
    assert classifier.score(grey(100, 200)) == pytest.approx(wanted, abs=1e-6)
    assert classifier.model == "brightness"


def test_many_threads_get_their_own_scores(classifier):
    found = {}

    def ask(level):
        found[level] = classifier.score(grey(level))

    threads = [threading.Thread(target=ask, args=(level,)) for level in range(0, 256, 8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert found == {level: pytest.approx(CALIBRATION.probability(0.1 * level - 12), abs=1e-5) for level in found}
    assert len(found) == 32


def test_crops_of_another_size_are_refused(classifier):
    with pytest.raises(ValueError, match="crops"):
        classifier.score(np.zeros((1, 16, 16, 3), np.uint8))


def test_a_number_that_is_none_is_an_error_and_no_score(tmp_path):
    classifier = Classifier(bundle(tmp_path, slope=3e38))
    classifier.open()
    with pytest.raises(ModelOutputError):
        classifier.score(grey(255))
    classifier.close()


def test_after_close_there_are_no_scores(tmp_path):
    classifier = Classifier(bundle(tmp_path))
    classifier.open()
    classifier.close()
    with pytest.raises(BatcherClosed):
        classifier.score(grey(1))


def test_a_batch_must_hold_one_image(tmp_path):
    with pytest.raises(ValueError, match=r"max_crops 2 is below the bundle's 4"):
        Classifier(bundle(tmp_path), batching=BatchingSettings(max_crops=2))


def test_torch_settings_bring_their_own_model(tmp_path, monkeypatch):
    import sys

    monkeypatch.setitem(sys.modules, "torch", None)
    settings = TorchSettings(architecture="clip", weights="owner/name", calibration=Calibration())
    classifier = Classifier(bundle(tmp_path), settings)
    assert classifier.model == "clip:owner/name"
    with pytest.raises(BackendError, match="install mediasieve"):
        classifier.open()
    classifier.close()
