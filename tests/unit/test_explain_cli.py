"""`mediasieve explain` as people call it."""

from __future__ import annotations

import errno
import json
import os
from pathlib import Path

import pytest
from click.testing import Result
from typer.testing import CliRunner

from pipeline.evidence.archive import Archive
from pipeline.evidence.log.signer import Signer
from pipeline.media.content_store import ContentStore
from pipeline.media.errors import ContentCorrupt, StoreUnavailable
from pipeline.streaming.kafka import client
from schemas.decision import Decision
from schemas.topics import Topic
from tests.support.explaining import Case, finding
from tests.support.mllm import encoded, picture
from tests.support.spawning import bare_main  # noqa: F401 - a fixture
from tests.unit.test_explain_proof import KEYS, leaves, logged, proof_file
from workers.cli.main import app

UNKNOWN = "00000000-0000-5000-8000-000000000009"


@pytest.fixture
def case(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Case:
    """In a directory that the settings name."""
    store = ContentStore((tmp_path / "store").as_uri())
    monkeypatch.setenv("MEDIASIEVE_STORE__URL", (tmp_path / "store").as_uri())
    return Case(store=store, original=encoded(picture()), panel=encoded(picture(64, 48, 3)))


def archived(case: Case, kind: str) -> Decision:
    decision: Decision = getattr(case, kind)()
    Archive(case.store, case.store.objects).put(decision, finding(decision), Topic.BLOCK, 0, 7)
    return decision


def run(*arguments: object) -> Result:
    return CliRunner().invoke(app, ["explain", *map(str, arguments)])


def test_a_decision_of_the_archive_is_told(case: Case) -> None:
    decision = archived(case, "blocked")
    result = run(decision.decision_uid)
    assert result.exit_code == 0, result.output
    assert result.stdout.startswith("Blocked as synthetic")
    assert "decisions.block[0]@7" in result.stdout


def test_a_media_id_leads_to_its_latest_decision(case: Case) -> None:
    decision = archived(case, "blocked")
    result = run("--tenant", "news-desk", "--media-id", case.media_id, "--json")
    assert result.exit_code == 0, result.output
    assert json.loads(result.stdout)["decision_uid"] == str(decision.decision_uid)


def test_a_file_is_enough(case: Case, tmp_path: Path) -> None:
    decision = case.released()
    file = tmp_path / "finding.json"
    file.write_bytes(finding(decision))
    result = run(decision.decision_uid, "--finding", file)
    assert result.exit_code == 0, result.output
    assert "No object was kept for a released pass" in result.stdout


@pytest.mark.parametrize("arguments", [[UNKNOWN], ["--media-id", "unknown"]])
def test_what_is_not_found_is_exit_3(case: Case, arguments: list[str]) -> None:
    result = run(*arguments)
    assert result.exit_code == 3
    assert "was found" in result.stderr


def test_a_changed_object_is_exit_4_and_told(case: Case, tmp_path: Path) -> None:
    decision = archived(case, "blocked")
    panel = next(ref for ref in decision.evidence if ref.kind == "spectral_panel")
    (tmp_path / "store" / case.store.key_of(panel.uri)).write_bytes(b"another")
    result = run(decision.decision_uid)
    assert result.exit_code == 4
    assert "do not rely on what follows" in result.stdout


def test_a_proof_is_checked_with_the_keys_given(case: Case, tmp_path: Path) -> None:
    decision = archived(case, "blocked")
    proof, keys, strange = tmp_path / "p", tmp_path / "keys.json", tmp_path / "strange.json"
    proof.write_bytes(proof_file(logged(*leaves(decision, 1, 7)), 1))
    KEYS.save(keys)
    strange.write_text(Signer.generate("mediasieve").verifier.vkey)
    proved = run(decision.decision_uid, "--proof", proof, "--key", keys)
    assert (proved.exit_code, "verified: The record at" in proved.stdout) == (0, True), proved.output
    refused = run(decision.decision_uid, "--proof", proof, "--key", strange)
    assert (refused.exit_code, "failed: The proof does not hold" in refused.stdout) == (4, True), refused.output


@pytest.mark.parametrize(
    ("error", "code"), [(StoreUnavailable("no route"), 1), (ContentCorrupt("no pointer"), 4)], ids=["away", "corrupt"]
)
def test_an_archive_that_cannot_be_read(
    case: Case, monkeypatch: pytest.MonkeyPatch, error: Exception, code: int
) -> None:
    def refuse(self: Archive, *_: object) -> None:
        raise error

    monkeypatch.setattr(Archive, "get", refuse)
    result = run(UNKNOWN)
    assert result.exit_code == code
    assert str(error) in result.stderr


def test_a_file_is_told_while_the_archive_is_away(case: Case, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def away(self: Archive, *_: object) -> None:
        raise StoreUnavailable("no route")

    monkeypatch.setattr(Archive, "get", away)
    monkeypatch.setattr(Archive, "find", away)
    file = tmp_path / "finding.json"
    file.write_bytes(finding(case.released()))
    result = run("--tenant", "news-desk", "--media-id", case.media_id, "--finding", file)
    assert result.exit_code == 0, result.output
    assert "note: the archive cannot be read now: no route" in result.stdout


def test_a_page_is_written_with_both_pictures(case: Case, tmp_path: Path) -> None:
    decision = archived(case, "escalated")
    page = tmp_path / "story.html"
    result = run(decision.decision_uid, "--html", page)
    assert result.exit_code == 0, result.output
    assert page.read_text("utf-8").count("data:image/webp;base64,") == 2
    assert page.stat().st_mode & 0o777 == 0o600
    assert [path.name for path in tmp_path.iterdir() if path.name.startswith(".")] == []


def test_a_page_that_cannot_be_written_leaves_the_old_one(
    case: Case, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    decision = archived(case, "blocked")
    page = tmp_path / "story.html"
    page.write_text("the old one")
    monkeypatch.setattr(os, "replace", full)
    result = run(decision.decision_uid, "--html", page)
    assert (result.exit_code, page.read_text()) == (2, "the old one")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["store", "story.html"]


def test_a_decision_is_told_while_kafka_is_away(case: Case, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(client, "_TIMEOUT_S", 0.1)
    decision = archived(case, "blocked")
    result = run(decision.decision_uid, "--kafka", "--bootstrap", "127.0.0.1:1")
    assert result.exit_code == 0, result.output
    assert "note: Kafka cannot be read now:" in result.stdout


@pytest.mark.parametrize(
    ("arguments", "message"),
    [([], "give the uid"), ([UNKNOWN, "--media-id", "x"], "give the uid"), (["no-uid"], "UUID")],
)
def test_wrong_usage_is_exit_2(case: Case, arguments: list[str], message: str) -> None:
    result = run(*arguments)
    assert result.exit_code == 2
    assert message in result.output


def test_files_that_cannot_be_used_are_named(case: Case, tmp_path: Path) -> None:
    bad = tmp_path / "bad"
    bad.write_bytes(b"{}")
    for arguments in (["--finding", bad], ["--key", bad]):
        result = run(UNKNOWN, *arguments)
        assert result.exit_code == 2
        assert "bad" in result.output
    decision = archived(case, "blocked")
    result = run(decision.decision_uid, "--html", tmp_path / "absent" / "page.html")
    assert result.exit_code == 2
    assert "page.html" in result.output


def test_without_a_store_a_file_is_told_all_the_same(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "occupied").write_bytes(b"")
    monkeypatch.setenv("MEDIASIEVE_STORE__URL", (tmp_path / "occupied" / "store").as_uri())
    decision = Case().blocked()
    file = tmp_path / "finding.json"
    file.write_bytes(finding(decision))
    result = run(decision.decision_uid, "--finding", file)
    assert result.exit_code == 0, result.output
    assert "the store cannot be opened" in result.stdout
    alone = run(decision.decision_uid)
    assert alone.exit_code == 3
    assert "the store cannot be opened" in alone.stderr
