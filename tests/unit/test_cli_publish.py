"""`mediasieve publish --gateway`: the client and the models of the gateway, from a command line."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest
import typer
from typer.testing import CliRunner, Result

from mediasieve.client import GatewayProblem
from pipeline.settings import SettingsInvalid
from schemas.types import Priority
from tests.support.gateway import BASE, PNG, GatewaySite
from tests.support.gateway_bridge import Bridge
from workers.cli import publish as command
from workers.cli.publish import publish
from workers.cli.publish_gateway import BATCH

app = typer.Typer()
app.command()(publish)


@pytest.fixture
def site(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[GatewaySite]:
    made = GatewaySite(tmp_path / "site")
    monkeypatch.setattr(command, "Client", lambda url, token: _CLIENT(url, token, transport=Bridge(made)))
    monkeypatch.setenv("MEDIASIEVE_CLIENT__TOKEN", made.key()["Authorization"].removeprefix("Bearer "))
    yield made
    made.close()


_CLIENT = command.Client


def run(*arguments: str) -> Result:
    done = CliRunner().invoke(app, [*arguments, "--gateway", BASE, "--json"])
    if done.exception is not None and not isinstance(done.exception, SystemExit):
        raise done.exception
    return done


def test_files_are_uploaded_and_uris_submitted_in_order(site: GatewaySite, tmp_path: Path) -> None:
    (tmp_path / "b.png").write_bytes(PNG)
    uris = [f"https://example.org/{n}.png" for n in range(BATCH + 1)]
    done = run(uris[0], str(tmp_path / "b.png"), *uris[1:], "--source", "shop", "--priority", "high")
    assert done.exit_code == 0, done.output
    rows = [json.loads(line) for line in done.stdout.splitlines()]
    assert [row["uri"] for row in rows] == [uris[0], str(tmp_path / "b.png"), *uris[1:]]
    sent = {r.media_id: r for r in site.writer.references}
    assert [sent[row["media_id"]].uri.partition(":")[0] for row in rows] == ["https", "content", *["https"] * BATCH]
    assert {(r.tenant, r.source, r.priority) for r in sent.values()} == {("acme", "shop", Priority.HIGH)}


def test_what_is_refused_is_told_and_the_rest_goes_on(site: GatewaySite, tmp_path: Path) -> None:
    (tmp_path / "a.gif").write_bytes(b"GIF89a" + bytes(40))
    (tmp_path / "b.png").write_bytes(PNG)
    done = run("s3://bucket/a.png", str(tmp_path / "a.gif"), str(tmp_path / "b.png"))
    assert done.exit_code == 1
    rows = [json.loads(line) for line in done.stdout.splitlines()]
    assert [row.get("problem", {}).get("status") for row in rows] == [403, 415, None]
    assert len(site.writer.sent) == 1


def test_a_key_is_needed_and_a_wrong_one_ends_it(site: GatewaySite, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MEDIASIEVE_CLIENT__TOKEN", "msk_000000000000_" + "A" * 43)
    with pytest.raises(GatewayProblem, match="401"):
        run("https://example.org/a.png")
    monkeypatch.delenv("MEDIASIEVE_CLIENT__TOKEN")
    with pytest.raises(SettingsInvalid, match="MEDIASIEVE_CLIENT__TOKEN"):
        run("https://example.org/a.png")


@pytest.mark.parametrize(
    "arguments", [("nowhere.png",), ("https://e.org/a", "--tenant", "a/b"), ("x://y", "--bootstrap", "k")]
)
def test_what_makes_no_sense_is_not_sent(site: GatewaySite, arguments: tuple[str, ...]) -> None:
    assert run(*arguments).exit_code == 2
    assert site.writer.sent == []
