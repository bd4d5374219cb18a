"""`mediasieve retention`, `erase` and `hold` on local disk; Kafka is a list here."""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner, Result

from pipeline.evidence.erasure import ErasureRefused
from pipeline.evidence.legal_hold import HoldUnknown
from pipeline.evidence.retention import RetentionPolicyError
from pipeline.evidence.sweep import SweepRefused
from pipeline.media.errors import ContentMissing
from pipeline.streaming.kafka.config import KafkaSettings
from schemas.decision import Decision, Outcome
from schemas.erasure import Erasure
from tests.support.evidence_files import archived, environment, opened, put_at
from workers.cli import erase as erase_cli
from workers.cli import retention as retention_cli
from workers.cli.main import app

LONG_AGO = datetime.now(UTC) - timedelta(days=60)


class Recorder:
    """Stands for the topic."""

    announced: list[Erasure]

    def __init__(self, settings: KafkaSettings) -> None:
        """As KafkaJournal."""

    def announce(self, erasure: Erasure) -> None:
        Recorder.announced.append(erasure)


@pytest.fixture(autouse=True)
def store(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    for name, value in environment(tmp_path).items():
        monkeypatch.setenv(name, value)
    Recorder.announced = []
    monkeypatch.setattr(retention_cli, "KafkaJournal", Recorder)
    monkeypatch.setattr(erase_cli, "KafkaJournal", Recorder)
    return tmp_path / "store"


@pytest.fixture
def due(store: Path) -> Decision:
    made = archived(opened(), "m1", LONG_AGO, b"due", outcome=Outcome.PASS)
    archived(opened(), "m2", LONG_AGO, b"not due")
    put_at(store, LONG_AGO)
    return made


def run(*arguments: str) -> Result:
    return CliRunner().invoke(app, list(arguments))


def rows(*arguments: str) -> list[dict[str, Any]]:
    result = run(*arguments, "--json")
    assert result.exit_code == 0, (result.output, result.exception)
    return [json.loads(line) for line in result.stdout.splitlines()]


def readable(made: Decision) -> bool:
    ref = made.evidence[0]
    try:
        opened().store.get_evidence(ref.uri, ref.sha256)
    except ContentMissing:
        return False
    return True


def test_apply_says_what_it_would_do_then_does_it_then_has_nothing_to_do(due: Decision) -> None:
    (planned,) = rows("retention", "apply", "--dry-run")
    assert (planned["state"], planned["tenant"], planned["erasure_id"]) == ("due", "acme", None)
    assert planned["decisions"] == [str(due.decision_uid)]
    assert readable(due)
    assert Recorder.announced == []
    (done,) = rows("retention", "apply")
    assert (done["state"], done["sha256s"]) == ("erased", planned["sha256s"])
    assert [str(e.erasure_id) for e in Recorder.announced] == [done["erasure_id"]]
    assert not readable(due)
    assert rows("retention", "apply") == []
    assert "nothing is due" in run("retention", "apply").stdout


def test_a_damaged_pointer_is_named_and_stops_nothing_else(store: Path, due: Decision) -> None:
    other = archived(opened(), "m3", LONG_AGO, b"due too", outcome=Outcome.PASS)
    put_at(store, LONG_AGO)
    (pointer,) = (store / "archive" / "by-decision" / str(due.decision_uid)).iterdir()
    pointer.write_bytes(b"")
    result = run("retention", "apply", "--json")
    assert result.exit_code == 4
    damaged, erased = (json.loads(line) for line in result.stdout.splitlines())
    assert (damaged["state"], damaged["decisions"]) == ("unreadable", [str(due.decision_uid)])
    assert pointer.name in damaged["obstacle"]
    assert (erased["state"], erased["decisions"]) == ("erased", [str(other.decision_uid)])
    assert readable(due)
    assert "unreadable  acme" in run("retention", "apply").stdout


def test_people_read_one_line_a_media_item(due: Decision) -> None:
    lines = run("retention", "apply", "--dry-run").stdout.splitlines()
    assert lines[0].startswith(f"due     acme  {due.decision_uid}  due since {LONG_AGO + timedelta(days=30):%Y-%m-%d}")
    assert lines[1] == "1 media items are due under policy 1"


def test_another_policy_file_may_be_given(tmp_path: Path, due: Decision) -> None:
    longer = tmp_path / "longer.toml"
    longer.write_text((tmp_path / "retention.toml").read_text().replace("30d", "61d"))
    assert rows("retention", "apply", "--policy", str(longer)) == []
    longer.write_text("")
    result = run("retention", "apply", "--policy", str(longer))
    assert isinstance(result.exception, RetentionPolicyError)
    assert "longer.toml: version" in str(result.exception)


def test_without_a_policy_nothing_falls_due(monkeypatch: pytest.MonkeyPatch, due: Decision) -> None:
    monkeypatch.delenv("MEDIASIEVE_RETENTION_POLICY")
    assert "MEDIASIEVE_RETENTION_POLICY" in str(run("retention", "apply").exception)


def test_erase_asks_nothing_of_the_period(due: Decision) -> None:
    arguments = ("erase", "--tenant", "acme", "--media-id", "m2", "--actor", "dpo", "--reason", "request 1")
    (planned,) = rows(*arguments, "--dry-run")
    assert planned["state"] == "due"
    assert Recorder.announced == []
    (done,) = rows(*arguments)
    assert (done["state"], done["sha256s"]) == ("erased", planned["sha256s"])
    assert Recorder.announced[0].media_id == "m2"
    again = run(*arguments)
    assert isinstance(again.exception, ErasureRefused)
    assert "erased already by dpo" in str(again.exception)


def test_a_hold_is_set_listed_wins_and_is_released(due: Decision) -> None:
    (held,) = rows("hold", "set", "--tenant", "acme", "--media-id", "m1", "--actor", "counsel", "--reason", "case")
    assert rows("hold", "list") == [held]
    (kept,) = rows("retention", "apply")
    assert (kept["state"], kept["erasure_id"]) == ("kept", None)
    assert held["hold_id"] in kept["obstacle"]
    erase = run("erase", "--tenant", "acme", "--media-id", "m1", "--actor", "dpo", "--reason", "r")
    assert isinstance(erase.exception, ErasureRefused)
    assert readable(due)
    rows("hold", "release", held["hold_id"], "--actor", "clerk", "--reason", "closed")
    assert rows("hold", "list") == []
    assert "no holds" in run("hold", "list").stdout
    assert "(released" in run("hold", "list", "--all").stdout
    assert rows("retention", "apply")[0]["state"] == "erased"


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("--tenant", "acme"), "either --media-id or --everything"),
        (("--tenant", "acme", "--media-id", "m", "--everything"), "either --media-id or --everything"),
        (("--tenant", "a/b", "--media-id", "m"), "tenant"),
    ],
)
def test_a_hold_that_is_not_clear_is_refused(arguments: tuple[str, ...], said: str) -> None:
    result = run("hold", "set", *arguments, "--actor", "a", "--reason", "r")
    assert result.exit_code == 2
    assert said in result.output
    assert rows("hold", "list") == []


@pytest.mark.parametrize(
    "command",
    [
        ("erase", "--tenant", "acme", "--media-id", "m1", "--reason", "r"),
        ("hold", "set", "--tenant", "acme", "--media-id", "m1", "--reason", "r"),
        ("retention", "apply"),
    ],
)
def test_an_actor_that_no_record_takes_is_refused_with_the_form(due: Decision, command: tuple[str, ...]) -> None:
    result = run(*command, "--actor", "Jane Doe")
    assert result.exit_code == 2
    assert "jane.doe" in result.output
    assert Recorder.announced == []


def test_a_reason_that_no_record_takes_is_refused(due: Decision) -> None:
    result = run("erase", "--tenant", "acme", "--media-id", "m1", "--actor", "dpo", "--reason", "r" * 100_000)
    assert result.exit_code == 2
    assert "detail" in result.output
    assert readable(due)


def test_an_unknown_hold_is_named() -> None:
    uid = "00000000-0000-0000-0000-000000000000"
    result = run("hold", "release", uid, "--actor", "a", "--reason", "r")
    assert isinstance(result.exception, HoldUnknown)
    assert uid in str(result.exception)


def test_sweep_removes_what_nobody_names(store: Path, due: Decision) -> None:
    uri, sha256 = opened().store.put_evidence("acme", b"orphan", ".png")
    put_at(store, LONG_AGO)
    (planned,) = rows("retention", "sweep", "--dry-run")
    assert (planned["state"], planned["key"]) == ("would be removed", f"evidence/acme/{sha256}.png")
    assert opened().store.get_evidence(uri, sha256) == b"orphan"
    (done,) = rows("retention", "sweep", "--older-than", "8w")
    assert done["state"] == "removed"
    assert rows("retention", "sweep") == []
    assert run("retention", "sweep").stdout == "0 objects removed\n"


@pytest.mark.parametrize("age", ["1y", "fortnight"])
def test_an_age_is_days_or_weeks(age: str) -> None:
    result = run("retention", "sweep", "--older-than", age)
    assert result.exit_code == 2
    assert age in result.output


def test_too_young_an_age_is_refused() -> None:
    assert isinstance(run("retention", "sweep", "--older-than", "7d").exception, SweepRefused)
