"""`mediasieve decisions`: findings as they are, and in the words of other SIEMs."""

from __future__ import annotations

import json
from collections.abc import Iterator
from types import SimpleNamespace, TracebackType
from typing import Self

import pytest
from typer.testing import CliRunner

from schemas.siem import cef_line, ecs_document
from tests.support.findings import FINDINGS, golden
from workers.cli import decisions
from workers.cli.main import app

VALUES = [json.dumps(json.loads(path.read_bytes())).encode() for path in FINDINGS]


class Reader:
    """Hands out the golden findings as the records of the topics."""

    def __init__(self, *args: object, **options: object) -> None:
        pass

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        pass

    def to_end(self) -> Iterator[SimpleNamespace]:
        return (SimpleNamespace(value=value) for value in VALUES)


def lines(monkeypatch: pytest.MonkeyPatch, *options: str) -> list[str]:
    monkeypatch.setattr(decisions, "RecordReader", Reader)
    done = CliRunner().invoke(app, ["decisions", *options])
    assert done.exit_code == 0, done.output
    return done.stdout.splitlines()


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
