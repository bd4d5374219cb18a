"""`mediasieve console`: accounts and gold items from the command line."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from typer.testing import CliRunner

from schemas.review import Label
from tests.support.consoles import office
from workers.cli.console import app
from workers.console.domain.service import ReviewService
from workers.console.domain.settings import ReviewSettings

PASSWORD = "correct horse battery"


@pytest.fixture
def run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):  # type: ignore[no-untyped-def]
    monkeypatch.setenv("MEDIASIEVE_DATABASE__URL", f"sqlite:///{tmp_path}/console.sqlite")

    def invoke(*arguments: str, password: str = PASSWORD) -> tuple[int, str]:
        result = CliRunner().invoke(app, ["user", *arguments], input=f"{password}\n{password}\n")
        return result.exit_code, result.output

    return invoke


def test_an_account_is_made_listed_and_disabled(run) -> None:  # type: ignore[no-untyped-def]
    code, said = run("add", "ana", "--tenant", "acme", "--tenant", "zeta", "--role", "review", "--role", "read")
    assert code == 0
    assert PASSWORD not in said
    assert run("disable", "ana")[0] == 0
    code, listed = run("list", "--json")
    assert json.loads(listed) == {
        "name": "ana",
        "tenants": ["acme", "zeta"],
        "roles": ["read", "review"],
        "disabled": True,
    }
    assert run("enable", "ana")[0] == 0
    assert '"disabled":false' in run("list", "--json")[1]
    assert "ana" in run("list")[1]


def test_the_password_comes_from_standard_input_where_asked(run) -> None:  # type: ignore[no-untyped-def]
    assert run("add", "ana", "--all-tenants", "--password-stdin")[0] == 0
    assert run("password", "ana", "--password-stdin", password="another long one")[0] == 0


@pytest.mark.parametrize(
    ("arguments", "password", "words"),
    [
        (("add", "ana"), PASSWORD, "--tenant"),
        (("add", "ana", "--tenant", "a", "--all-tenants"), PASSWORD, "--all-tenants"),
        (("add", "ana", "--tenant", "acme"), "short", "12 to 256"),
        (("add", "a b", "--tenant", "acme"), PASSWORD, "name 'a b'"),
        (("disable", "nobody"), PASSWORD, "no account"),
    ],
)
def test_what_cannot_be_is_refused_with_the_reason(  # type: ignore[no-untyped-def]
    run, arguments: tuple[str, ...], password: str, words: str
) -> None:
    code, said = run(*arguments, password=password)
    assert code == 2
    assert words in said


def test_an_accounts_tenants_and_roles_are_changed(run) -> None:  # type: ignore[no-untyped-def]
    run("add", "ana", "--tenant", "acme")
    assert run("access", "ana", "--tenant", "zeta", "--role", "read")[0] == 0
    listed = json.loads(run("list", "--json")[1])
    assert (listed["tenants"], listed["roles"]) == (["zeta"], ["read"])
    code, said = run("access", "ana")
    assert code == 2
    assert "--all-tenants" in said


def test_a_gold_item_is_made_of_a_block_and_of_no_open_case(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MEDIASIEVE_DATABASE__URL", f"sqlite:///{tmp_path}/console.sqlite")

    def invoke(uid: str, actor: str = "jane.doe") -> tuple[int, str]:
        found = CliRunner().invoke(app, ["gold", "add", uid, "--label", "photograph", "--actor", actor])
        return found.exit_code, found.output

    with office(tmp_path, review=ReviewSettings(gold_share=0.5)) as desk:
        waits = desk.escalated()
        blocked = desk.blocked()
        assert invoke(blocked) == (0, f"{blocked} is a gold item: photograph\n")
        assert invoke(waits)[0] == 2
        assert invoke("00000000-0000-0000-0000-000000000000")[0] == 2
        assert invoke(blocked, actor="a b")[0] == 2
        sure = ReviewService(desk.desk.service._engine, desk.clock, ReviewSettings(gold_share=0.5), draw=lambda: 0.0)
        claim = sure.claim("ana", None)
        assert claim is not None
        assert claim.case_id not in (waits, blocked)
        sure.decide(claim.token, Label.PHOTOGRAPH, "", reviewer="ana")
        (ana,) = sure.stats(None).reviewers
        assert (ana.gold_answers, ana.gold_correct) == (1, 1.0)
