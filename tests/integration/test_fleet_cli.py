"""The command line as processes: topics, the fleet on one machine, settings that are wrong, inspect."""

from __future__ import annotations

import io
import json
import os
import signal
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import orjson
import pytest
from PIL import Image
from typer.testing import CliRunner

from pipeline.settings import SettingsInvalid, load_settings
from pipeline.streaming.kafka.embedded import EmbeddedKafka
from schemas.decision import Outcome
from schemas.topics import TOPICS, Topic
from tests.support.fleet import clean_environment, command, command_line
from tests.support.kafka import TIMEOUT_S, delete_topics
from tests.support.mailbox import Mailbox
from tests.support.pinned_bundle import make_pinned_bundle
from tests.support.waiting import wait_until
from workers.cli.main import app
from workers.demo_audit import audit_environment
from workers.demo_media import make_demo_media
from workers.names import DECIDING
from workers.settings import Settings

SECRET = "correct-horse-battery"
START_TIMEOUT_S = 150.0
PHOTO = "photo-coffee-q95.jpg"
MADE = "made-pixel-shuffle.png"


def in_process(*arguments: str, environment: dict[str, str]) -> tuple[int, str]:
    """The same commands without the start of a process; exit code and standard output."""
    done = CliRunner().invoke(app, list(arguments), env=clean_environment(environment))
    assert done.exception is None or isinstance(done.exception, SystemExit), done.exception
    return done.exit_code, done.stdout


def test_topics_are_applied_once_and_then_are_as_they_should_be(kafka: EmbeddedKafka, prefix: str) -> None:
    environment = {"MEDIASIEVE_KAFKA__BOOTSTRAP": kafka.bootstrap, "MEDIASIEVE_KAFKA__TOPIC_PREFIX": prefix}
    shape = ("--partitions", "2", "--replication-factor", "1")
    names = {f"{prefix}.{spec.topic.value}" for spec in TOPICS}
    code, out = in_process("topics", "check", *shape, "--json", environment=environment)
    assert code == 1
    assert {(row["topic"], row["setting"], row["found"]) for row in map(json.loads, out.splitlines())} == {
        (name, "topic", "missing") for name in names
    }
    try:
        code, out = in_process("topics", "apply", *shape, "--json", environment=environment)
        assert code == 0
        assert {json.loads(line)["state"] for line in out.splitlines()} == {"done"}
        for verb in ("check", "apply"):
            code, out = in_process("topics", verb, *shape, environment=environment)
            assert (code, out) == (0, "all topics are as the fleet needs them\n")
        code, out = in_process("topics", "apply", "--partitions", "3", *shape[2:], "--json", environment=environment)
        assert code == 1, "the number of partitions is the operator's to change"
        assert all("hash keys" in json.loads(line)["state"] for line in out.splitlines())
    finally:
        delete_topics(kafka.bootstrap, sorted(names))


@contextmanager
def _ctrl_c_works() -> Iterator[None]:
    """For processes started meanwhile: where a script runs the tests in the background, all would ignore SIGINT."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)


@contextmanager
def _up(
    kafka: EmbeddedKafka, prefix: str, directory: Path, *options: str
) -> Iterator[tuple[subprocess.Popen[bytes], Path]]:
    """`mediasieve up` and the file it prints into."""
    environment = {
        "MEDIASIEVE_KAFKA__TOPIC_PREFIX": prefix,
        "MEDIASIEVE_STORE__URL": (directory / "store").as_uri(),
        "MEDIASIEVE_CLASSIFIER__FETCH__FILE_ROOTS": orjson.dumps([str(directory)]).decode(),
        "MEDIASIEVE_CLASSIFIER__SANDBOX__WORKERS": "1",
        "MEDIASIEVE_SPECTRAL__PROCESSES": "1",
        "MEDIASIEVE_BUNDLE": str(make_pinned_bundle(directory / "bundle")),
        **audit_environment(directory),
    }
    said = directory / "said.txt"
    with said.open("wb") as out:
        with _ctrl_c_works():
            process = subprocess.Popen(
                [command(), "up", "--bootstrap", kafka.bootstrap, "--logs", str(directory / "logs"), *options],
                env=clean_environment(environment),
                stdout=out,
                stderr=subprocess.STDOUT,
            )
        try:
            yield process, said
        finally:
            if process.poll() is None:
                process.terminate()
                process.wait(TIMEOUT_S)


def test_up_becomes_ready_works_and_drains_on_ctrl_c(
    kafka: EmbeddedKafka, topics: dict[Topic, str], prefix: str, tmp_path: Path
) -> None:
    make_demo_media(tmp_path / "media")
    with _up(kafka, prefix, tmp_path) as (process, said):
        wait_until(
            lambda: process.poll() is not None or "4 workers ready" in said.read_text(), START_TIMEOUT_S, "ready"
        )
        assert process.poll() is None, said.read_text()
        environment = {"MEDIASIEVE_KAFKA__BOOTSTRAP": kafka.bootstrap, "MEDIASIEVE_KAFKA__TOPIC_PREFIX": prefix}
        files = [str(tmp_path / "media" / name) for name in (PHOTO, MADE)]
        code, out = in_process("publish", "--json", "--source", "tests", *files, environment=environment)
        assert code == 0
        published = [json.loads(line)["media_id"] for line in out.splitlines()]
        mailbox = Mailbox(kafka.bootstrap, topics)
        try:
            decided = [mailbox.decided(media_id) for media_id in published]
        finally:
            mailbox.close()
        assert [d.topic for d in decided] == [Topic.PASS, Topic.ESCALATE]
        assert {d.decision.admission.source for d in decided} == {"tests"}
        process.send_signal(signal.SIGINT)
        assert process.wait(TIMEOUT_S) == 0, said.read_text()
    for stage in DECIDING:
        assert "worker_drained" in (tmp_path / "logs" / f"{stage}-0.log").read_text()


def test_up_drains_on_sigterm_too(
    kafka: EmbeddedKafka,
    topics: dict[Topic, str],
    prefix: str,
    tmp_path: Path,
) -> None:
    """As a supervisor ends it: no worker may outlive it."""
    alone = ("--classifier", "0", "--spectral", "0", "--audit", "0")
    with _up(kafka, prefix, tmp_path, *alone) as (process, said):
        wait_until(
            lambda: process.poll() is not None or "1 workers ready" in said.read_text(), START_TIMEOUT_S, "ready"
        )
        process.send_signal(signal.SIGTERM)
        assert process.wait(TIMEOUT_S) == 0, said.read_text()
    assert "worker_drained" in (tmp_path / "logs" / "mllm-0.log").read_text()


def test_up_tells_why_a_worker_ended(
    kafka: EmbeddedKafka, topics: dict[Topic, str], prefix: str, tmp_path: Path
) -> None:
    done = command_line(
        *(
            "up",
            "--bootstrap",
            kafka.bootstrap,
            "--spectral",
            "0",
            "--mllm",
            "0",
            "--audit",
            "0",
            "--logs",
            str(tmp_path),
        ),
        environment={"MEDIASIEVE_BUNDLE": str(tmp_path / "no-bundle"), "MEDIASIEVE_KAFKA__TOPIC_PREFIX": prefix},
    )
    assert done.returncode == 1
    assert "classifier worker ended with code 2" in done.stderr
    assert "no-bundle" in done.stderr, "the worker's own words"
    assert "Traceback" not in done.stderr


def test_wrong_settings_are_all_named_at_once_and_no_secret_is_printed() -> None:
    wrong = {
        "MEDIASIEVE_RUNNER__COMMIT_INTERVAL_S": "-1",
        "MEDIASIEVE_KAFKA__GROUP_PROTOCOL": "nonsense",
        "MEDIASIEVE_KAFKA__EXTRA": '{"isolation.level": "read_uncommitted"}',
        "MEDIASIEVE_KAFKA__SASL_PASSWRD": SECRET,
        "MEDIASIEVE_CLASSIFIER__SLOTS": "0",
        "MEDIASIEVE_CLASSIFIER__FETCH__MAX_REDIRECTS": "many",
        "MEDIASIEVE_MLLM__OPENAI__API_KEY": f"{SECRET}\n",
        "MEDIASIEVE_NONSENSE__FIELD": "1",
    }
    done = command_line("worker", "classifier", environment={**wrong, "MEDIASIEVE_KAFKA__SASL_PASSWORD": SECRET})
    assert done.returncode == 2
    assert [name for name in wrong if name not in done.stderr] == []
    assert "MEDIASIEVE_KAFKA__SASL_PASSWORD" not in done.stderr, "that one is right"
    assert SECRET not in done.stdout + done.stderr
    assert "Traceback" not in done.stderr


def test_a_value_that_is_no_json_does_not_hide_the_other_faults() -> None:
    wrong = {
        "MEDIASIEVE_CLASSIFIER__FETCH__FILE_ROOTS": "/not/json",
        "MEDIASIEVE_CLASSIFIER__PRODUCERS": '{"a": ',
        "MEDIASIEVE_CLASSIFIER__SLOTS": "0",
    }
    done = command_line("worker", "classifier", environment=wrong)
    assert done.returncode == 2
    assert [name for name in wrong if name not in done.stderr] == []
    assert done.stderr.count("as JSON") == 2
    assert "/not/json" not in done.stderr


def test_a_file_that_is_no_toml_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "fleet.toml"
    path.write_text("kafka = [")
    monkeypatch.setenv("MEDIASIEVE_CONFIG", str(path))
    with pytest.raises(SettingsInvalid, match=rf"MEDIASIEVE_CONFIG: {path}: "):
        load_settings(Settings)


@pytest.fixture(scope="module")
def samples(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a picture in a folder below it, a PNG, a JPEG and a text."""
    directory = tmp_path_factory.mktemp("inspect")
    make_demo_media(directory / "all")
    (directory / "folder" / "deeper").mkdir(parents=True)
    for source, target in ((MADE, MADE), (PHOTO, PHOTO), ("photo-gravel.png", "folder/deeper/gravel.png")):
        os.replace(directory / "all" / source, directory / target)
    (directory / "notes.txt").write_text("no picture\n")
    return directory


def _inspect(samples: Path, panels: Path, *options: str) -> dict[str, dict[str, Any]]:
    """Lines of `inspect --json` by file name."""
    paths = [samples / MADE, samples / PHOTO, samples / "folder", samples / "notes.txt"]
    bundle = make_pinned_bundle(panels.with_name(f"{panels.name}-bundle"))
    environment = {"MEDIASIEVE_BUNDLE": str(bundle)}
    done = command_line(
        "inspect", *map(str, paths), "--json", "--panels", str(panels), *options, environment=environment
    )
    assert done.returncode == 0, done.stderr
    rows = [json.loads(line) for line in done.stdout.splitlines()]
    assert [row["path"] for row in rows] == [
        str(p) for p in (paths[0], paths[1], paths[2] / "deeper/gravel.png", paths[3])
    ]
    for row in rows:
        assert {"path", "scores", "stage_exited", "outcome"} <= row.keys()
        assert {"classifier", "spectral", "fused"} <= row["scores"].keys()
    return {Path(row["path"]).name: row for row in rows}


def test_inspect_decides_as_the_fleet_does(samples: Path, tmp_path: Path) -> None:
    rows = _inspect(samples, tmp_path)
    photo, made, text = rows[PHOTO], rows[MADE], rows["notes.txt"]
    assert (photo["outcome"], photo["stage_exited"], photo["risk"]) == ("pass", "classifier", "released")
    assert photo["scores"]["spectral"] is None
    assert photo["panel"] is None
    assert (made["outcome"], made["stage_exited"], made["reason"]) == ("escalate", "mllm", "mllm_unconfigured")
    assert all(0.0 < made["scores"][name] < 1.0 for name in ("classifier", "spectral", "fused"))
    assert (text["outcome"], text["stage_exited"], text["reason"]) == (
        Outcome.ESCALATE.value,
        "classifier",
        "media_unsupported",
    )
    assert text["scores"]["classifier"] is None
    assert sorted(tmp_path.iterdir()) == [Path(made["panel"])]


def test_inspect_asks_every_stage_when_told_to(samples: Path, tmp_path: Path) -> None:
    rows = _inspect(samples, tmp_path, "--all-stages")
    photo = rows[PHOTO]
    assert (photo["outcome"], photo["stage_exited"]) == ("pass", "classifier"), "more is measured, nothing else decided"
    assert 0.0 < photo["scores"]["spectral"] < 1.0
    assert len(photo["features"]) > 4
    panels = [row["panel"] for row in rows.values() if row["panel"]]
    assert len(set(panels)) == 3
    for panel in panels:
        with Image.open(io.BytesIO(Path(panel).read_bytes())) as image:
            image.load()
            assert image.format == "PNG"
            assert min(image.size) > 100
