"""`mediasieve decisions`: findings as they are, and in the words of other SIEMs."""

from __future__ import annotations

import json
from collections.abc import Iterator
from types import TracebackType
from typing import Self

import pytest
from click.testing import Result
from typer.testing import CliRunner

from pipeline.streaming.transport import RawRecord, TopicPartition
from schemas.siem import cef_line, ecs_document
from tests.support.findings import FINDINGS, golden
from workers.cli import decisions
from workers.cli.main import app

VALUES = [json.dumps(json.loads(path.read_bytes())).encode() for path in FINDINGS]


class Reader:
    """Hands out the golden findings as the records of the topics."""

    values: list[bytes]

    def __init__(self, *args: object, **options: object) -> None:
        pass

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        pass

    def to_end(self) -> Iterator[RawRecord]:
        place = TopicPartition("decisions.block", 0)
        return (RawRecord(place, offset, None, value, (), 0) for offset, value in enumerate(self.values))


def printed(monkeypatch: pytest.MonkeyPatch, values: list[bytes], *options: str) -> Result:
    monkeypatch.setattr(decisions, "RecordReader", type("Found", (Reader,), {"values": values}))
    done = CliRunner().invoke(app, ["decisions", *options])
    assert done.exit_code == 0, (done.output, done.exception)
    return done


def lines(monkeypatch: pytest.MonkeyPatch, *options: str) -> list[str]:
    return printed(monkeypatch, VALUES, *options).stdout.splitlines()


def changed(uri: str | None = None, version: str | None = None) -> bytes:
    data = json.loads(VALUES[0])
    decision = data["unmapped"]["mediasieve"]
    decision["schema_version"] = version or decision["schema_version"]
    decision["admission"]["uri"] = uri or decision["admission"]["uri"]
    return json.dumps(data).encode()


def test_a_terminal_is_not_steered(monkeypatch: pytest.MonkeyPatch) -> None:
    value = changed(uri="https://x/\x9b31m\u202egnp.exe")
    (line,) = printed(monkeypatch, [value]).stdout.splitlines()
    assert line.endswith("https://x/<U+009B>31m<U+202E>gnp.exe")


@pytest.mark.parametrize("options", [[], ["--format", "ecs"], ["--format", "cef"]])
def test_what_a_newer_release_wrote_is_named_and_passed_over(
    monkeypatch: pytest.MonkeyPatch, options: list[str]
) -> None:
    done = printed(monkeypatch, [changed(version="99.0"), b"{", VALUES[0]], *options)
    assert len(done.stdout.splitlines()) == 1
    assert "decisions.block[0]@0 was passed over" in done.stderr
    assert "decisions.block[0]@1 was passed over" in done.stderr


def test_ocsf_is_printed_whoever_wrote_it(monkeypatch: pytest.MonkeyPatch) -> None:
    newer = changed(version="99.0")
    assert printed(monkeypatch, [newer], "--json").stdout.encode() == newer + b"\n"


@pytest.mark.parametrize("options", [["--json"], ["--format", "ocsf"]])
def test_ocsf_is_printed_byte_for_byte(monkeypatch: pytest.MonkeyPatch, options: list[str]) -> None:
    assert lines(monkeypatch, *options) == [value.decode() for value in VALUES]


def test_ecs_is_one_document_a_line(monkeypatch: pytest.MonkeyPatch) -> None:
    expected = [ecs_document(golden(path.stem)) for path in FINDINGS]
    assert [json.loads(line) for line in lines(monkeypatch, "--format", "ecs")] == expected


def test_cef_is_one_event_a_line(monkeypatch: pytest.MonkeyPatch) -> None:
    assert lines(monkeypatch, "--format", "cef") == [cef_line(golden(path.stem)) for path in FINDINGS]


def test_people_get_a_line_they_can_read(monkeypatch: pytest.MonkeyPatch) -> None:
    found = lines(monkeypatch)
    assert len(found) == len(FINDINGS)
    assert found[0].startswith("block ")


def test_an_unknown_format_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    done = CliRunner().invoke(app, ["decisions", "--format", "leef"])
    assert done.exit_code == 2


def test_what_people_said_is_told_as_theirs(monkeypatch: pytest.MonkeyPatch) -> None:
    found = dict(zip((path.stem for path in FINDINGS), lines(monkeypatch), strict=True))
    assert found["closed_photograph"].startswith("allowed ")
    assert "Case closed: photograph by r.meyer" in found["closed_photograph"]
