"""`mediasieve console gold list` and `report`: how reviewers answer what is certain."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from typer.testing import CliRunner

from schemas.review import Label
from tests.support.reviewing import Site, uid
from workers.cli.console import app


@pytest.fixture
def site(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Site:
    """Three gold items, all photographs; ben is right twice, cid never."""
    made = Site(tmp_path)
    monkeypatch.setenv("MEDIASIEVE_DATABASE__URL", made.url)
    for number in range(3):
        answer(made, "ann", Label.PHOTOGRAPH, made.held(number))
    for row in made.service.recent(None).rows:
        made.service.add_gold(uid(row.case_id), Label.PHOTOGRAPH, "chief")
    made.draw = 0.0
    for said in (Label.PHOTOGRAPH, Label.PHOTOGRAPH, Label.GENERATED):
        answer(made, "ben", said)
    answer(made, "cid", Label.AI_PROCESSED)
    return made


def answer(site: Site, reviewer: str, label: Label, case_id: str | None = None) -> None:
    claim = site.service.claim(reviewer, None, case_id)
    assert claim is not None
    site.service.decide(claim.token, label, "", reviewer=reviewer)


def run(*arguments: str) -> str:
    found = CliRunner().invoke(app, ["gold", *arguments], env={"COLUMNS": "200"})
    assert found.exit_code == 0, found.output
    return found.output


def test_the_report_has_shares_intervals_and_mistakes(site: Site) -> None:
    ben, cid = (json.loads(line) for line in run("report", "--json").splitlines())
    assert (ben["reviewer"], ben["correct"], ben["answers"]) == ("ben", 2, 3)
    assert ben["interval"] == pytest.approx([0.0943, 0.9916], abs=1e-4)  # Clopper-Pearson of 2 of 3, by tables
    assert ben["mistakes"] == [{"truth": "photograph", "said": "generated", "count": 1}]
    assert (cid["correct"], cid["answers"], cid["share"], cid["interval"][0]) == (0, 1, 0.0, 0.0)
    said = run("report")
    assert "2 of 3" in said
    assert "photograph > ai_processed: 1" in said


def test_the_list_has_every_item_with_its_answers(site: Site) -> None:
    items = [json.loads(line) for line in run("list", "--json").splitlines()]
    assert {item["media_id"] for item in items} == {"img-0", "img-1", "img-2"}
    assert sum(item["answers"] for item in items) == 4
    assert sum(item["correct"] for item in items) == 2
    assert {(item["label"], item["added_by"]) for item in items} == {("photograph", "chief")}
    assert "img-2" in run("list")


def test_nothing_is_reported_of_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MEDIASIEVE_DATABASE__URL", f"sqlite:////{tmp_path}/empty.sqlite")
    assert run("report", "--json") == run("list", "--json") == ""
