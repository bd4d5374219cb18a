"""`mediasieve references`: keys, list, show, build, promote, rollback."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import orjson
import pytest
from typer.testing import CliRunner

from pipeline.detection.spectral.few_shot import remove_family
from pipeline.detection.spectral.reference import SpectralReference
from pipeline.media.content_store import ContentStore
from schemas.reference import ReferencePointer
from schemas.review import ReferenceUpdate
from tests.support.fleet import clean_environment
from tests.support.learning import TENANT, Board, Site, labelled_sample, random_reference
from tests.support.learning_images import image_of_the_family
from workers.adaptation import wiring
from workers.adaptation.labels import LabelSet
from workers.adaptation.records import Candidate
from workers.adaptation.store import ReferenceStore
from workers.cli.references import app


class Desk:
    """A store in a directory, keys, and a board in Kafka's place."""

    def __init__(self, home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        self.home = home
        self.environment = {
            "MEDIASIEVE_STORE__URL": (home / "store").as_uri(),
            "MEDIASIEVE_REFERENCES__TENANTS": f'["{TENANT}"]',
        }
        self.content = ContentStore(self.environment["MEDIASIEVE_STORE__URL"])
        self.store = ReferenceStore(self.content.objects)
        self.board = Board()
        monkeypatch.setattr(wiring, "KafkaAnnouncer", lambda settings: self.board)

    def run(self, *arguments: str) -> tuple[int, str]:
        done = CliRunner().invoke(app, list(arguments), env=clean_environment(self.environment))
        if done.exception is not None and not isinstance(done.exception, SystemExit):
            raise done.exception
        return done.exit_code, done.output

    def make_keys(self) -> None:
        code, said = self.run("keygen", str(self.home / "keys"))
        assert code == 0
        self.environment |= dict(line.split("=", 1) for line in said.split())

    def rows(self, *arguments: str) -> list[dict[str, Any]]:
        code, said = self.run("list", "--json", *arguments)
        assert code == 0, said
        return [orjson.loads(line) for line in said.splitlines()]


@pytest.fixture
def desk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Desk:
    return Desk(tmp_path, monkeypatch)


@pytest.fixture
def learned(desk: Desk) -> Candidate:
    """A candidate on the shipped reference, as if it had been built."""
    desk.make_keys()
    site = Site()
    for number in range(40):
        desk.store.put_sample(site.review(f"n-{number}"))
    made = site.builder.build(site.current(), LabelSet.of(site.store.samples()), "new")
    assert isinstance(made, Candidate)
    base = desk.rows()[0]["version"]
    artefact = desk.store.put_artefact(site.store.load_artefact(made.artefact))
    found = made.model_copy(update={"base": base, "parent": base, "artefact": artefact})
    desk.store.put_candidate(found)
    return found


def test_keys_are_made_once(desk: Desk) -> None:
    desk.make_keys()
    assert Path(desk.environment["MEDIASIEVE_REFERENCES__PRIVATE_KEY"]).stat().st_mode & 0o077 == 0
    code, said = desk.run("keygen", str(desk.home / "keys"))
    assert code == 1
    assert "keys are never overwritten" in said


def test_at_first_the_bundles_own_decides(desk: Desk) -> None:
    desk.make_keys()
    assert [row["state"] for row in desk.rows()] == ["decides"]
    code, said = desk.run("rollback", "--actor", "ops")
    assert code == 1
    assert "nothing decided before it" in said


def test_a_candidate_watches_decides_and_is_rolled_back(desk: Desk, learned: Candidate) -> None:
    states = [[row["state"] for row in desk.rows()]]
    for arguments in (
        ("promote", learned.version[:10], "--actor", "ops", "--shadow"),
        ("promote", learned.version[:10], "--actor", "ops", "--reason", "good"),
        ("rollback", "--actor", "ops"),
        ("rollback", "--actor", "ops", "--to", learned.version[:10]),
        ("announce",),
    ):
        code, said = desk.run(*arguments)
        assert code == 0, said
        states.append([row["state"] for row in desk.rows()])
    assert states == [
        ["decides", "candidate"],
        ["decides", "watches"],
        ["decided before", "decides"],
        ["decides", "decided before"],
        ["decided before", "decides"],
        ["decided before", "decides"],
    ]
    assert [pointer.sequence for pointer in desk.board.pointers] == [1, 2, 3, 4, 4]
    assert {pointer.actor for pointer in desk.board.pointers} == {"ops"}


def test_show_tells_where_each_sample_comes_from(desk: Desk, learned: Candidate) -> None:
    code, said = desk.run("show", learned.version[:10])
    assert code == 0
    assert Candidate.model_validate(orjson.loads(said)) == learned
    code, said = desk.run("show", "ffff")
    assert (code, "0 candidates of that version" in said) == (1, True)


def test_the_table_is_for_people(desk: Desk, learned: Candidate) -> None:
    code, said = desk.run("list")
    assert code == 0
    assert learned.version[:12] in said
    assert "(the bundle's own)" in said


def test_a_family_is_built_from_images_that_were_really_measured(desk: Desk) -> None:
    desk.make_keys()
    for seed in range(20):
        data = image_of_the_family(seed)
        sha256 = hashlib.sha256(data).hexdigest()
        desk.content.put("acme", sha256, data)
        desk.store.put_sample(labelled_sample(sha256, family="tiled"))
    code, said = desk.run("labels", "--json")
    assert orjson.loads(said)["families"] == [{"family": "tiled", "images": 20, "judged_twice": 0, "differing": 0}]
    code, said = desk.run("build", "tiled", "--json")
    assert code == 0, said
    made = Candidate.model_validate(orjson.loads(said))
    assert made.gate.suspected == 0
    assert len(made.strata) == 6
    found: SpectralReference = desk.store.load_artefact(made.artefact)
    assert remove_family(found, "tiled").content_hash == made.parent == made.base


def test_a_family_that_is_refused_says_why(desk: Desk) -> None:
    desk.make_keys()
    desk.store.put_sample(labelled_sample("a" * 64, family="tiled"))
    code, said = desk.run("build", "tiled")
    assert (code, said) == (1, "refused: 0 usable images, needed are 10\n")
    assert desk.rows("--refused")[-1]["why"] == "0 usable images, needed are 10"
    code, said = desk.run("build", "flux")
    assert (code, "no confirmed image is of the family flux" in said) == (1, True)


def test_announcements_are_pointers_and_updates(desk: Desk, learned: Candidate) -> None:
    desk.run("promote", learned.version, "--actor", "ops")
    pointers: Sequence[ReferencePointer] = desk.board.pointers
    updates: Sequence[ReferenceUpdate] = desk.board.updates
    assert [pointer.active for pointer in pointers] == [learned.artefact]
    assert len(updates) == 40
    assert learned.version == desk.store.load_artefact(learned.artefact).content_hash
    assert learned.version != random_reference().content_hash
