from __future__ import annotations

import json
from datetime import UTC, datetime

import pytest

from pipeline.detection.bundle import (
    MANIFEST_FILE,
    Bundle,
    BundleError,
    ClassifierEntry,
    Manifest,
    main,
    seal,
    write_manifest,
)
from pipeline.detection.calibration import Calibration
from pipeline.detection.classifier.preprocess import CropSpec
from pipeline.detection.policy import Policy


@pytest.fixture
def directory(tmp_path):
    """A sealed bundle whose model is four bytes."""
    (tmp_path / "classifier.onnx").write_bytes(b"onnx")
    (tmp_path / "policy.json").write_text(Policy(version="p1").model_dump_json())
    write_manifest(
        tmp_path,
        Manifest(
            version="b1",
            prior=0.5,
            created_at=datetime(2026, 1, 1, tzinfo=UTC),
            licence="Apache-2.0",
            policy="policy.json",
            classifier=ClassifierEntry(model="m", file="classifier.onnx", crops=CropSpec(), calibration=Calibration()),
            files={},
        ),
    )
    seal(tmp_path)
    return tmp_path


def edit(directory, **changes):
    path = directory / MANIFEST_FILE
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))


def test_a_sealed_bundle_loads(directory):
    bundle = Bundle.load(directory)
    assert bundle.version == "b1"
    assert bundle.policy.version == "p1"
    assert bundle.path("classifier.onnx").read_bytes() == b"onnx"


def test_the_shipped_bundle_loads():
    bundle = Bundle.load()
    assert bundle.path(bundle.manifest.classifier.file).stat().st_size > 1_000_000
    assert bundle.path("MODEL_CARD.md").exists()
    assert bundle.path("NOTICE").exists()


@pytest.mark.parametrize("name", ["classifier.onnx", "policy.json"])
def test_one_changed_byte_is_found_in_every_file(directory, name):
    path = directory / name
    data = bytearray(path.read_bytes())
    data[-1] ^= 1
    path.write_bytes(data)
    with pytest.raises(BundleError, match=f"{name}: differs from its sha256.*bundle verify"):
        Bundle.load(directory)


def test_a_missing_file_is_named(directory):
    (directory / "classifier.onnx").unlink()
    with pytest.raises(BundleError, match=r"classifier\.onnx: listed but absent.*bundle verify"):
        Bundle.load(directory)


@pytest.mark.parametrize("name", ["extra.pkl", ".hidden"])
def test_an_unlisted_file_is_refused(directory, name):
    (directory / name).write_bytes(b"x")
    with pytest.raises(BundleError, match="not in `files`"):
        Bundle.load(directory)


def test_links_and_directories_are_refused(directory):
    target = directory.parent / "elsewhere.onnx"
    target.write_bytes(b"onnx")
    (directory / "classifier.onnx").unlink()
    (directory / "classifier.onnx").symlink_to(target)
    with pytest.raises(BundleError, match="plain files only"):
        Bundle.load(directory)
    (directory / "classifier.onnx").unlink()
    (directory / "classifier.onnx").mkdir()
    with pytest.raises(BundleError, match="plain files only"):
        seal(directory)


@pytest.mark.parametrize("name", ["../policy.json", "/etc/passwd", "a/b", ".."])
def test_a_manifest_cannot_name_a_file_outside(directory, name):
    edit(directory, policy=name)
    with pytest.raises(BundleError, match="policy"):
        Bundle.load(directory)


def test_a_role_must_be_listed(directory):
    edit(directory, spectral={"file": "absent.npz"})
    with pytest.raises(BundleError, match=r"absent\.npz: named by spectral\.file"):
        Bundle.load(directory)


@pytest.mark.parametrize("changes", [{"schema_version": "2.0"}, {"surprise": 1}, {"prior": 1.0}])
def test_an_invalid_manifest_is_refused(directory, changes):
    edit(directory, **changes)
    with pytest.raises(BundleError, match=next(iter(changes))):
        Bundle.load(directory)


def test_policy_and_manifest_must_agree_on_the_prior(directory):
    edit(directory, prior=0.1)
    with pytest.raises(BundleError, match=r"fusion\.prior 0\.5 differs from prior 0\.1"):
        Bundle.load(directory)


def test_a_directory_without_a_manifest_is_named(tmp_path):
    with pytest.raises(BundleError, match=r"bundle\.json"):
        Bundle.load(tmp_path)


def test_an_unlisted_path_is_not_handed_out(directory):
    with pytest.raises(BundleError, match=r"secret: not in `files`"):
        Bundle.load(directory).path("secret")


def test_sealing_takes_in_new_files_and_changes_nothing_else(directory):
    before = (directory / MANIFEST_FILE).read_bytes()
    seal(directory)
    assert (directory / MANIFEST_FILE).read_bytes() == before
    (directory / "reference.npz").write_bytes(b"npz")
    sealed = seal(directory, spectral="reference.npz")
    assert sealed.spectral is not None
    assert Bundle.load(directory).path(sealed.spectral.file).read_bytes() == b"npz"
    assert seal(directory).spectral == sealed.spectral


def test_the_command_says_what_is_wrong(directory, capsys):
    main(["verify", str(directory)])
    assert capsys.readouterr().out == "b1: 2 files\n"
    (directory / "extra").write_bytes(b"")
    with pytest.raises(SystemExit, match=r"extra: not in `files`"):
        main(["verify", str(directory)])
    main(["seal", str(directory)])
    assert capsys.readouterr().out == "b1: 3 files\n"


def test_files_of_the_mllm_entry_must_be_listed(directory):
    edit(directory, mllm={"calibration": "absent.json"})
    with pytest.raises(BundleError, match=r"absent\.json: named by mllm\.calibration but not in `files`"):
        Bundle.load(directory)
