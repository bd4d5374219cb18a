from __future__ import annotations

import shutil

import numpy as np
import onnx
import pytest
from PIL import Image
from typer.testing import CliRunner

from pipeline.detection.bundle import Bundle, BundleError, ClassifierEntry, Manifest, seal, write_manifest
from pipeline.detection.calibration import Calibration, Knot
from pipeline.detection.classifier.preprocess import CropSpec
from pipeline.detection.policy import Policy
from pipeline.evaluation.score_row import ScoreRow, ScoresError, Status, write_rows
from pipeline.training.recalibrate import from_images, from_scores, recalibrate
from workers.cli.bundle import app
from workers.cli.bundle_training import TrainingRefused


def brightness_model(path):
    """Logit = mean pixel / 32 - 4."""
    o = onnx.helper
    nodes = [
        o.make_node("Cast", ["crops"], ["x"], to=onnx.TensorProto.FLOAT),
        o.make_node("ReduceMean", ["x"], ["m"], axes=[1, 2, 3], keepdims=0),
        o.make_node("Mul", ["m", "scale"], ["s"]),
        o.make_node("Add", ["s", "shift"], ["logit"]),
    ]
    graph = o.make_graph(
        nodes,
        "brightness",
        [o.make_tensor_value_info("crops", onnx.TensorProto.UINT8, ["n", None, None, 3])],
        [o.make_tensor_value_info("logit", onnx.TensorProto.FLOAT, ["n"])],
        [
            onnx.numpy_helper.from_array(np.float32(1 / 32), "scale"),
            onnx.numpy_helper.from_array(np.float32(-4), "shift"),
        ],
    )
    onnx.save(o.make_model(graph, opset_imports=[o.make_opsetid("", 17)], ir_version=8), path)


def made(directory, calibration=None):
    directory.mkdir()
    brightness_model(directory / "classifier.onnx")
    (directory / "policy.json").write_text(Policy(version="p").model_dump_json())
    entry = ClassifierEntry(
        model="brightness", file="classifier.onnx", crops=CropSpec(size_px=32), calibration=calibration or Calibration()
    )
    write_manifest(
        directory,
        Manifest(
            version="b", prior=0.5, created_at="2026-01-01T00:00:00Z", licence="none", policy="policy.json",
            classifier=entry, files={},
        ),
    )  # fmt: skip
    seal(directory)
    return directory


@pytest.fixture
def images(tmp_path):
    """Ten dark photographs and ten bright generated images, overlapping; one file that is no image."""
    root = tmp_path / "data"
    rng = np.random.default_rng(0)
    for folder, level in (("0_real", 110), ("1_fake", 150)):
        (root / folder).mkdir(parents=True)
        for number in range(10):
            grey = int(np.clip(rng.normal(level, 30), 1, 254))
            Image.new("RGB", (40, 40), (grey,) * 3).save(root / folder / f"{number}.png")
    (root / "1_fake" / "broken.png").write_bytes(b"\x89PNG\r\n\x1a\n broken")
    return root


def row(key, synthetic, classifier, **more):
    return ScoreRow(
        key=key, synthetic=synthetic, source="s", group="s", generator="g", base="b", classifier=classifier, **more
    )


def test_images_are_scored_by_the_bundle_and_its_calibration_is_replaced(tmp_path, images):
    directory = made(tmp_path / "bundle")
    found = recalibrate(directory, images)
    assert (found.items, found.left_out) == (20, 1)
    assert Bundle.load(directory).manifest.classifier.calibration == found.calibration
    assert found.calibration.temperature != 1.0
    assert found.after.nll < found.before.nll


def test_scores_of_the_bundle_give_the_same_logits_as_its_images(tmp_path, images):
    bundle = Bundle.load(made(tmp_path / "bundle", Calibration(temperature=2.0, bias=0.3)))
    wanted = from_images(bundle, images)
    p = bundle.manifest.classifier.calibration.probabilities(wanted.logits)
    rows = [row(str(i), bool(s), float(v)) for i, (s, v) in enumerate(zip(wanted.synthetic, p, strict=True))]
    rows.append(row("f", True, None, status=Status.FAILED))
    rows.append(row("x", True, 0.5, variant="jpeg q50"))
    write_rows(tmp_path / "scores.jsonl", rows)
    found = from_scores(bundle, tmp_path / "scores.jsonl")
    assert found.logits == pytest.approx(wanted.logits, abs=1e-6)
    assert found.synthetic.tolist() == wanted.synthetic.tolist()
    assert found.left_out == 1


def test_scores_through_a_table_are_refused(tmp_path):
    table = (Knot(x=-1.0, y=-2.0), Knot(x=1.0, y=2.0))
    bundle = Bundle.load(made(tmp_path / "bundle", Calibration(table=table)))
    with pytest.raises(BundleError, match="cannot be undone; give the images"):
        from_scores(bundle, tmp_path / "scores.jsonl")


def test_a_scores_file_without_scores_is_named(tmp_path):
    write_rows(tmp_path / "scores.jsonl", [row("a", True, None)])
    with pytest.raises(ScoresError, match=r"scores\.jsonl: no classifier score"):
        from_scores(Bundle.load(made(tmp_path / "bundle")), tmp_path / "scores.jsonl")


def test_the_command_calibrates_and_says_what_is_wrong(tmp_path, images):
    directory = made(tmp_path / "bundle")
    done = CliRunner().invoke(app, ["calibrate", str(directory), str(images)])
    assert done.exit_code == 0, done.output
    assert "20 images, 1 left out: temperature and bias" in done.output
    before = (directory / "bundle.json").read_bytes()
    refused = CliRunner().invoke(app, ["calibrate", str(directory), str(images), "--method", "isotonic"])
    assert isinstance(refused.exception, TrainingRefused)
    assert "needs 1000 items, got 20" in str(refused.exception)
    shutil.rmtree(images / "1_fake")
    refused = CliRunner().invoke(app, ["calibrate", str(directory), str(images)])
    assert isinstance(refused.exception, TrainingRefused)
    assert (directory / "bundle.json").read_bytes() == before
