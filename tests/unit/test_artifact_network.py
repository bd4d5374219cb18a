"""The artifact network on maps that one glance tells apart, and its export."""

from __future__ import annotations

import numpy as np
import pytest

pytest.importorskip("torch", reason="needs the [torch] extra")

from pipeline.evaluation.metrics import roc_auc
from pipeline.training.artifact_maps import SHAPE
from pipeline.training.artifact_network import MapExamples, NetworkSettings, export, image_logits, train
from pipeline.training.export import ExportRefused

pytestmark = pytest.mark.torch

SETTINGS = NetworkSettings(steps=40, maps_per_step=32)


@pytest.fixture(scope="module", autouse=True)
def one_thread():
    import torch

    torch.set_num_threads(1)


def peaks(count, seed):
    rng = np.random.default_rng(seed)
    x = rng.normal(size=(count, *SHAPE)).astype(np.float16)
    synthetic = np.arange(count) % 2 == 1
    x[synthetic, :, 6:11, 14:19] += 3
    x[synthetic, :, 22:27, 6:11] += 3
    return MapExamples(x, synthetic, np.ones(count))


@pytest.fixture(scope="module")
def net():
    return train(peaks(200, 0), SETTINGS)


def test_it_learns_and_is_the_same_each_time(net):
    fresh = peaks(100, 1)
    logits = image_logits(net, fresh.x.reshape(50, 2, *SHAPE)[:, :1].repeat(2, axis=1))
    assert logits.shape == (50,)
    logits = image_logits(net, fresh.x[:, None])
    assert roc_auc(logits[~fresh.synthetic], logits[fresh.synthetic]) > 0.9
    again = image_logits(train(peaks(200, 0), SETTINGS), fresh.x[:, None])
    np.testing.assert_array_equal(logits, again)


def test_it_stays_small(net):
    assert sum(p.numel() for p in net.parameters()) < 300_000


@pytest.mark.filterwarnings("ignore::DeprecationWarning")  # torch's older exporter announces its end
def test_the_onnx_file_answers_as_the_network_does(net, tmp_path):
    pytest.importorskip("onnx")
    path = tmp_path / "artifact.onnx"
    assert export(net, path, peaks(6, 2).x.astype(np.float32)) < 1e-3
    with pytest.raises(ExportRefused):
        export(net, path, np.full((2, *SHAPE), np.nan, np.float32))
    assert not path.exists()


def test_one_class_alone_is_refused():
    one = peaks(10, 0)
    with pytest.raises(ValueError, match="both classes"):
        train(MapExamples(one.x, np.ones(10, np.bool_), one.weight), SETTINGS)
