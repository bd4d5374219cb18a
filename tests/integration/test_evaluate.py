"""`evaluate` from a dataset to the report: real processes, a tiny bundle, a real fleet."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest
from typer.testing import CliRunner

from pipeline.evaluation.layouts import DatasetError, open_dataset
from pipeline.evaluation.leakage import TrainingImage, TrainingImages, write
from pipeline.evaluation.perceptual_hash import dhash256
from pipeline.evaluation.protocol import EqualCodec
from pipeline.evaluation.robustness.transform import Variant
from pipeline.evaluation.score_row import ScoresError, Status, read_rows
from pipeline.evaluation.scoring import AS_DELIVERED, Scorer, ScoringJob, score_dataset
from pipeline.evaluation.scoring_files import PART_FILE
from pipeline.media.decode import decode_image
from pipeline.streaming.kafka.embedded import EmbeddedKafka
from tests.support.fleet import clean_environment, command_line
from tests.support.tiny_bundle import make_dataset, make_tiny_bundle
from workers.cli.main import app

EQUAL = EqualCodec()
IMAGES = 25


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_tiny_bundle(tmp_path_factory.mktemp("bundles") / "tiny")


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_dataset(tmp_path_factory.mktemp("data") / "set")


def job(bundle: Path) -> ScoringJob:
    return ScoringJob(bundle_path=bundle, variants=(Variant(EQUAL.name, EQUAL),))


def evaluate(*arguments: str) -> tuple[int, str]:
    done = CliRunner().invoke(app, ["evaluate", *arguments], env=clean_environment({}))
    assert done.exception is None or isinstance(done.exception, SystemExit), done.exception
    return done.exit_code, done.stdout


def test_the_report_says_what_the_scores_say(bundle: Path, data: Path, tmp_path: Path) -> None:
    out = tmp_path / "run"
    code, printed = evaluate(
        str(data), "--bundle", str(bundle), "--out", str(out), "--processes", "2", "--suite", "attacks", "--json"
    )
    assert code == 0
    report = json.loads(printed)
    assert report == json.loads((out / "report.json").read_text())
    rows = [row for row in read_rows(out / "scores.jsonl") if row.variant == AS_DELIVERED]
    assert len(rows) == IMAGES
    assert [row.key for row in rows if row.status is Status.FAILED] == ["broken.png"]
    first = report["variants"][0]
    classifier, _, _ = first["pooled"]
    assert (classifier["real"], classifier["synthetic"], classifier["without_score"]) == (12, 13, 1)
    assert classifier["auc"] == pytest.approx(12 / 13), "the file that is no image ranks below all others"
    assert classifier["at_threshold"]["fnr"]["count"] == 1
    assert {row["variant"] for row in report["suites"]} == {
        row.variant for row in read_rows(out / "scores.jsonl") if row.variant not in _protocol_names(report)
    }
    page = (out / "report.html").read_text()
    assert "<script" not in page
    assert "gen&lt;script&gt;" in page
    assert not re.search(r"""(?:src|href)\s*=\s*["'](?!#)|url\(\s*["']?(?!#)|@import""", page), "nothing is loaded"


def _protocol_names(report: dict[str, list[dict[str, str]]]) -> set[str]:
    return {variant["name"] for variant in report["variants"]}


def test_a_run_that_was_cut_off_goes_on_and_gives_the_same_file(bundle: Path, data: Path, tmp_path: Path) -> None:
    dataset = open_dataset(data)
    whole = score_dataset(job(bundle), dataset, tmp_path / "whole", processes=1).read_bytes()
    stopped = tmp_path / "stopped"

    def stop(progress: object) -> None:
        if getattr(progress, "images", 0) == 7:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        score_dataset(job(bundle), dataset, stopped, processes=1, on_progress=stop)
    with (stopped / PART_FILE).open("ab") as part:
        part.write(whole.splitlines()[14][:-20])
    seen: list[int] = []
    again = score_dataset(
        job(bundle), dataset, stopped, processes=1, on_progress=lambda progress: seen.append(progress.images)
    )
    assert again.read_bytes() == whole
    assert seen[0] == 8, "what was there is not scored again"


def test_another_run_in_the_same_folder_is_refused(bundle: Path, data: Path, tmp_path: Path) -> None:
    dataset = open_dataset(data)
    score_dataset(job(bundle), dataset, tmp_path / "run", processes=1)
    with pytest.raises(ScoresError, match="variants differ"):
        score_dataset(ScoringJob(bundle_path=bundle), dataset, tmp_path / "run", processes=1)


def test_an_image_that_the_dataset_lists_and_lacks_is_an_error_with_its_path(bundle: Path, tmp_path: Path) -> None:
    data = make_dataset(tmp_path / "set", images=2)
    (data / "real00.png").unlink()
    done = command_line("evaluate", str(data), "--bundle", str(bundle), "--out", str(tmp_path / "run"), "--no-protocol")
    assert done.returncode == 2
    assert done.stderr.splitlines()[-1].startswith(f"mediasieve: {data / 'real00.png'}: No such file")
    with pytest.raises(DatasetError, match=r"real00\.png"):
        score_dataset(job(bundle), open_dataset(data), tmp_path / "other", processes=1)


def test_training_images_are_refused_unless_allowed(
    bundle: Path, data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    known = decode_image((data / "ai00.png").read_bytes())
    listed = TrainingImage(
        sha256=known.facts.sha256, dhash=f"{dhash256(known.rgb):064x}", source="train", synthetic=True
    )
    write(tmp_path / "training.jsonl", [listed])
    monkeypatch.setattr("pipeline.evaluation.scoring.overlap_check", lambda _: _check(tmp_path / "training.jsonl"))
    samples = {sample.key: sample for sample in open_dataset(data).samples()}
    refused = Scorer(ScoringJob(bundle_path=bundle))(samples["ai00.png"])
    assert (refused.rows, refused.overlap) == ((), "same file as a training image of train")
    allowed = Scorer(ScoringJob(bundle_path=bundle, allow_training_images=True))(samples["ai00.png"])
    assert len(allowed.rows) == 1
    assert allowed.overlap
    assert not Scorer(ScoringJob(bundle_path=bundle))(samples["ai01.png"]).overlap


def _check(path: Path):

    images = TrainingImages.load(path)
    return lambda image: images.overlap(image.facts.sha256, dhash256(image.rgb)) or ""


def test_the_fleet_gives_the_scores_that_this_machine_gives(
    kafka: EmbeddedKafka, bundle: Path, data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MEDIASIEVE_CLASSIFIER__SANDBOX__WORKERS", "1")
    monkeypatch.setenv("MEDIASIEVE_SPECTRAL__PROCESSES", "1")
    out = tmp_path / "fleet"
    through = ("--through-fleet", "--bootstrap", kafka.bootstrap)
    done = CliRunner().invoke(
        app,
        [*("evaluate", str(data), "--bundle", str(bundle), "--out", str(out)), *through, "--json"],
    )
    assert done.exit_code == 0, done.output
    assert json.loads(done.stdout)["scored_by"] == "the fleet"
    fleet = {row.key: row for row in read_rows(out / "scores.jsonl")}
    local_run = ScoringJob(bundle_path=bundle)
    local = {row.key: row for row in read_rows(score_dataset(local_run, open_dataset(data), tmp_path / "local"))}
    assert list(fleet) == list(local)
    for key, row in fleet.items():
        assert row.classifier == pytest.approx(local[key].classifier, abs=1e-6), key
        if row.spectral is not None:
            assert (row.spectral, row.fused) == pytest.approx((local[key].spectral, local[key].fused), abs=1e-6)
    assert fleet["broken.png"].status is Status.FAILED
    assert fleet["ai00.png"].spectral is not None
    assert fleet["real00.png"].spectral is None, "stage 1 released it"
    decided = json.loads((out / "fleet.json").read_text())["outcomes"]
    assert sum(decided.values()) == IMAGES
    assert decided["real pass"] == 12
