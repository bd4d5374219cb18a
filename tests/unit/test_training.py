from __future__ import annotations

import hashlib
import json

import numpy as np
import pytest
from PIL import Image

from pipeline.evaluation.metrics import roc_auc
from pipeline.training.dataset import Labelled, read_manifest, read_pixels, source_folds, training_quality
from pipeline.training.head import Crops, fit_heads, fit_model


def labelled(synthetic, source, number=0):
    digest = hashlib.sha256(f"{source}{number}".encode()).hexdigest()
    return Labelled(path=None, sha256=digest, synthetic=synthetic, source=source, lora=False)


def test_folds_never_cut_through_a_source_and_spread_each_class():
    sizes = {"a": 50, "b": 30, "c": 20, "d": 5}
    rows = [labelled(s, k, n) for s in (False, True) for k, v in sizes.items() for n in range(v)]
    folds = source_folds(rows, 3)
    for synthetic in (False, True):
        where = {s: {f for r, f in zip(rows, folds, strict=True) if (r.synthetic, r.source) == (synthetic, s)}
                 for s in sizes}  # fmt: skip
        assert where == {"a": {0}, "b": {1}, "c": {2}, "d": {2}}


def test_training_quality_depends_on_the_file_alone():
    assert {training_quality(labelled(s, "a")) for s in (False, True)} == {training_quality(labelled(True, "a"))}
    drawn = {training_quality(labelled(True, "a", n)) for n in range(500)}
    assert drawn == set(range(80, 97))


def test_a_manifest_row_is_checked_against_its_file(tmp_path):
    Image.new("RGB", (4, 3), (9, 8, 7)).save(tmp_path / "x.png")
    digest = hashlib.sha256((tmp_path / "x.png").read_bytes()).hexdigest()
    row = {"path": "x.png", "sha256": digest, "label": "ai", "source": "s", "lora": "yes"}
    other = {**row, "label": "decoder"}
    (tmp_path / "manifest.jsonl").write_text(f"{json.dumps(row)}\n{json.dumps(other)}\n")
    (read,) = read_manifest(tmp_path)
    assert (read.synthetic, read.lora, read_pixels(read).shape) == (True, True, (3, 4, 3))
    (tmp_path / "x.png").write_bytes(b"other")
    with pytest.raises(ValueError, match="sha256 differs"):
        read_pixels(read)


def test_a_bad_manifest_line_is_named(tmp_path):
    (tmp_path / "manifest.jsonl").write_text('{"label": "ai"}\n')
    with pytest.raises(ValueError, match="line 1"):
        read_manifest(tmp_path)


@pytest.fixture
def crops():
    """60 images of 3 sources in 3 folds; feature 0 tells the class, feature 1 is constant."""
    rng = np.random.default_rng(0)
    image = np.repeat(np.arange(60), rng.integers(1, 4, 60))
    synthetic = np.arange(60) % 2 == 0
    values = rng.normal(0, 1, (image.size, 5)).astype(np.float32)
    values[:, 0] += 3.0 * synthetic[image]
    values[:, 1] = 7.0
    return Crops(values, image, synthetic), (np.arange(60) // 2) % 3


def test_the_head_finds_the_feature_that_tells(crops):
    data, fold = crops
    model = fit_model(data, fold, np.ones(60, bool))
    assert np.argmax(np.abs(model.head.weights * [1, 0, 1, 1, 1])) == 0
    logits = model.head.image_logits(data)
    assert roc_auc(logits[~data.synthetic], logits[data.synthetic]) > 0.98
    assert model.calibration.temperature > 0


def test_what_is_held_out_has_no_influence(crops):
    data, fold = crops
    images = fold != 0
    changed = data.features.copy()
    changed[~images[data.image]] = 1e6
    a = fit_model(data, fold, images)
    b = fit_model(Crops(changed, data.image, data.synthetic), fold, images)
    assert np.array_equal(a.head.weights, b.head.weights)
    assert a.calibration == b.calibration


def test_a_stronger_penalty_shrinks_the_weights(crops):
    data, _ = crops
    strong, weak = fit_heads(data, np.ones(60, bool), (1e-3, 1.0))
    assert np.linalg.norm(strong.weights) < np.linalg.norm(weak.weights)


def test_the_penalised_loss_is_at_its_minimum(crops):
    data, _ = crops
    (head,) = fit_heads(data, np.ones(60, bool), (0.01,))
    spread = data.features.astype(np.float64).std(axis=0) + 1e-6
    label = data.synthetic[data.image]
    weight = 1.0 / np.bincount(data.image)[data.image]
    weight = np.where(label, weight / weight[label].sum(), weight / weight[~label].sum()) / 2

    def loss(weights, bias):
        margin = np.where(label, 1, -1) * (data.features @ weights + bias)
        return weight @ np.logaddexp(0, -margin) + 0.005 * np.sum((weights * spread) ** 2)

    best = loss(head.weights, head.bias)
    rng = np.random.default_rng(0)
    for _ in range(20):
        step = rng.normal(0, 0.02, 5) / spread * [1, 0, 1, 1, 1]
        assert loss(head.weights + step, head.bias) > best - 1e-6
