"""The back end named on the command line, and the trace that `inspect` prints."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from pipeline.detection.mllm.backends.openai import OpenAISettings
from tests.support.mllm import encoded, picture, plain_report
from tests.support.mllm_ports import held_port
from tests.support.scripted_server import Body, Reply, ScriptedServer, completion, serving
from workers.cli.main import app
from workers.mllm.choice import ChoiceInvalid, choose
from workers.mllm.settings import MllmSettings

NONE = MllmSettings()


def test_a_server_with_its_model_is_taken_as_named() -> None:
    chosen = choose("openai:http://127.0.0.1:9/v1#org/model-7b", NONE)
    assert chosen.backend == "openai"
    assert chosen.openai is not None
    assert (chosen.openai.base_url, chosen.openai.model) == ("http://127.0.0.1:9/v1", "org/model-7b")


def test_the_only_model_of_a_server_need_not_be_named() -> None:
    with serving(ScriptedServer(models=[{"id": "the-one"}])) as server:
        chosen = choose(f"openai:{server.url}", NONE)
    assert chosen.openai is not None
    assert chosen.openai.model == "the-one"


def test_of_several_one_must_be_named() -> None:
    with (
        serving(ScriptedServer(models=[{"id": "a"}, {"id": "b"}])) as server,
        pytest.raises(ChoiceInvalid, match="serves a, b; name one"),
    ):
        choose(f"openai:{server.url}", NONE)


def test_a_directory_is_a_model_in_this_process() -> None:
    chosen = choose("transformers:/models/tiny", NONE)
    assert chosen.backend == "transformers"
    assert chosen.transformers is not None
    assert chosen.transformers.path == "/models/tiny"


def test_the_key_and_the_timeout_of_the_settings_stay_where_the_address_is_theirs() -> None:
    known = OpenAISettings(base_url="http://a/v1", model="m", api_key="secret-key", timeout_s=7.0)
    settings = MllmSettings(backend="openai", openai=known, passes=1)
    same, other = (choose(f"openai:{url}#n", settings) for url in ("http://a/v1/", "http://b/v1"))
    assert same.openai == known.model_copy(update={"model": "n"})
    assert other.openai == OpenAISettings(base_url="http://b/v1", model="n")
    assert same.passes == other.passes == 1


@pytest.mark.parametrize("word", ["", "openai", "openai:", "openai:ftp://x/v1#m", "transformers:", "vllm:http://x/v1"])
def test_what_names_no_back_end_says_what_would(word: str) -> None:
    with pytest.raises(ChoiceInvalid, match="transformers:DIRECTORY"):
        choose(word, NONE)


def test_no_server_no_choice() -> None:
    with held_port() as port, pytest.raises(ChoiceInvalid, match="ConnectError"):
        choose(f"openai:http://127.0.0.1:{port}/v1", NONE)


REPORT = plain_report("undetermined", observations=[], primary_evidence="nothing that decides")


def answer(body: Body) -> Reply:
    return Reply(completion(json.dumps(REPORT) if "response_format" in body else " I see nothing."))


def inspected(tmp_path: Path, server: ScriptedServer, *options: str) -> str:
    photo = tmp_path / "photo.png"
    photo.write_bytes(encoded(picture(300, 260)))
    word = f"openai:{server.url}"
    arguments = ["inspect", str(photo), "--mllm", word, "--panels", str(tmp_path / "panels"), *options]
    done = CliRunner().invoke(app, arguments)
    assert done.exit_code == 0, done.output
    return done.stdout


def test_inspect_prints_the_whole_trace(tmp_path: Path) -> None:
    with serving(ScriptedServer(answer)) as server:
        out = inspected(tmp_path, server)
    for part in (
        "--- question (reason)",
        "You are a forensic examiner",
        "| feature | value | percentile | stratum |",
        "--- answer (reason): finish stop",
        "I see nothing.",
        "--- question (report)",
        '"hypothesis": "undetermined"',
        '"backend": "openai"',
        '"dialogue_sha256"',
        '"guided_json": true',
    ):
        assert part in out


def test_inspect_json_has_the_trace_too(tmp_path: Path) -> None:
    with serving(ScriptedServer(answer)) as server:
        (line,) = inspected(tmp_path, server, "--json").splitlines()
    row: dict[str, Any] = json.loads(line)
    assert [turn["name"] for turn in row["trace"]["turns"]] == ["reason", "report"]
    assert json.loads(row["trace"]["turns"][1]["raw_text"]) == REPORT
    assert row["trace"]["model"] == "test-model"


def test_a_wrong_word_ends_with_a_usage_error(tmp_path: Path) -> None:
    photo = tmp_path / "photo.png"
    photo.write_bytes(encoded(picture(64, 64)))
    for word, said in (("openai:", "names no back end"), (f"transformers:{tmp_path}", "transformers")):
        done = CliRunner().invoke(app, ["inspect", str(photo), "--mllm", word])
        assert done.exit_code == 2
        assert said in done.output
