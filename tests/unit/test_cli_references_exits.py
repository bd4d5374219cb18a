"""Exit codes of `mediasieve references`: 0 done, 1 refused or not to be had, 2 wrong usage; never a traceback."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

import pytest

from pipeline.media.content_store import ContentStore
from pipeline.streaming.kafka.client import KafkaUnavailable
from schemas.reference import ReferencePointer
from schemas.review import Label, ReferenceUpdate
from tests.support.learning import TENANT, Board, Site, labelled_sample
from workers.adaptation import wiring
from workers.adaptation.keys import make_keys
from workers.adaptation.labels import LabelSet
from workers.adaptation.records import Candidate
from workers.adaptation.store import ReferenceStore
from workers.adaptation.wiring import Workshop
from workers.cli.main import main
from workers.settings import Settings


class Operator:
    """Runs the whole command line, as its console script does, against a store in a directory."""

    def __init__(self, home: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
        self.home, self._monkeypatch, self._capsys = home, monkeypatch, capsys
        private, public = make_keys(home / "keys", "mediasieve/references")
        self.settings = {
            "MEDIASIEVE_STORE__URL": (home / "store").as_uri(),
            "MEDIASIEVE_REFERENCES__TENANTS": f'["{TENANT}"]',
            "MEDIASIEVE_REFERENCES__PRIVATE_KEY": str(private),
            "MEDIASIEVE_REFERENCES__PUBLIC_KEYS": str(public),
        }
        self.store = ReferenceStore(ContentStore(self.settings["MEDIASIEVE_STORE__URL"]).objects)
        self.board = Board()
        monkeypatch.setattr(wiring, "KafkaAnnouncer", lambda settings: self.board)

    def run(self, *arguments: str) -> tuple[int, str]:
        """Exit code, and what was said on both outputs."""
        with self._monkeypatch.context() as patch:
            for name in [name for name in os.environ if name.startswith("MEDIASIEVE_")]:
                patch.delenv(name)
            for name, value in {"COLUMNS": "300", **self.settings}.items():
                patch.setenv(name, value)
            patch.setattr(sys, "argv", ["mediasieve", "references", *arguments])
            with pytest.raises(SystemExit) as ended:
                main()
        said = self._capsys.readouterr()
        code = ended.value.code
        return (code if isinstance(code, int) else 0), said.out + said.err

    def candidate(self) -> Candidate:
        """On the shipped reference, as if it had been built."""
        site = Site()
        for number in range(40):
            self.store.put_sample(site.review(f"n-{number}"))
        made = site.builder.build(site.current(), LabelSet.of(site.store.samples()), "new")
        assert isinstance(made, Candidate)
        url = self.settings["MEDIASIEVE_STORE__URL"]
        base = Workshop.open(Settings(store={"url": url})).base  # type: ignore[arg-type]
        artefact = self.store.put_artefact(site.store.load_artefact(made.artefact))
        found = made.model_copy(update={"base": base, "parent": base, "artefact": artefact})
        self.store.put_candidate(found)
        return found


@pytest.fixture
def operator(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Operator:
    return Operator(tmp_path, monkeypatch, capsys)


@pytest.mark.parametrize(
    ("arguments", "code", "said"),
    [
        (("list",), 0, "(the bundle's own)"),
        (("list", "--refused", "--json"), 0, '"state":"decides"'),
        (("labels",), 0, "0 images agreed on"),
        (("show", "ffff"), 1, "0 candidates of that version"),
        (("build", "flux"), 1, "no confirmed image is of the family flux"),
        (("promote", "ffff", "--actor", "ops"), 1, "0 candidates of that version"),
        (("rollback", "--actor", "ops"), 1, "nothing decided before it"),
        (("rollback", "--actor", "ops", "--to", "ffff"), 1, "0 such versions decided before"),
        (("rollback", "--actor", "ops", "--to", "bundle"), 0, "number 1: the bundle's own decides"),
        (("announce",), 1, "nothing was published"),
        (("keygen", "keys"), 1, "keys are never overwritten"),
        (("promote", "ffff"), 2, "Missing option '--actor'"),
        (("promote", "ffff", "--actor", "no spaces"), 2, "Letters, digits and"),
        (("rollback", "--actor", "ops", "--reason", "x" * 1025), 2, "1025 characters; at most 1024"),
        (("build", "flux", "--min-samples", "9"), 2, "greater than or equal to 10"),
        (("forget",), 2, "No such command"),
    ],
)
def test_on_an_empty_store(
    arguments: Sequence[str], code: int, said: str, operator: Operator, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(operator.home)
    found, heard = operator.run(*arguments)
    assert (found, said in heard) == (code, True), heard


def _no_keys(operator: Operator) -> None:
    del operator.settings["MEDIASIEVE_REFERENCES__PUBLIC_KEYS"]


def _bad_key_file(operator: Operator) -> None:
    Path(operator.settings["MEDIASIEVE_REFERENCES__PUBLIC_KEYS"]).write_text("{}")


def _strangers_key(operator: Operator) -> None:
    _, public = make_keys(operator.home / "other", "mediasieve/references")
    operator.settings["MEDIASIEVE_REFERENCES__PUBLIC_KEYS"] = str(public)


def _bad_setting(operator: Operator) -> None:
    operator.settings["MEDIASIEVE_REFERENCES__TENANTS"] = "acme"


@pytest.mark.parametrize(
    ("spoil", "arguments", "said"),
    [
        (_no_keys, "list", "MEDIASIEVE_REFERENCES__PUBLIC_KEYS"),
        (_no_keys, "promote ffff --actor ops", "MEDIASIEVE_REFERENCES__PUBLIC_KEYS"),
        (_bad_key_file, "rollback --actor ops", "MEDIASIEVE_REFERENCES__PUBLIC_KEYS"),
        (_strangers_key, "announce", "no worker would follow"),
        (_bad_setting, "labels", "MEDIASIEVE_REFERENCES__TENANTS"),
    ],
)
def test_wrong_settings_are_usage(
    spoil: Callable[[Operator], None], arguments: str, said: str, operator: Operator
) -> None:
    spoil(operator)
    code, heard = operator.run(*arguments.split())
    assert (code, said in heard, "Traceback" in heard) == (2, True, False), heard


def test_what_a_person_does_with_a_candidate(operator: Operator) -> None:
    version = operator.candidate().version
    assert operator.run("show", version)[0] == 0
    assert operator.run("promote", version, "--actor", "ops", "--shadow")[0] == 0
    assert operator.run("promote", version, "--actor", "ops")[0] == 0
    code, said = operator.run("promote", version, "--actor", "ops")
    assert (code, "build it again" in said) == (1, True)
    code, said = operator.run("build", "new")
    assert (code, "is part of what decides" in said) == (1, True)
    assert operator.run("rollback", "--actor", "ops")[0] == 0
    assert operator.run("announce")[0] == 0


def _dispute(operator: Operator, candidate: Candidate) -> None:
    operator.store.put_sample(labelled_sample(candidate.samples[0].content_sha256, Label.PHOTOGRAPH, reviewer="r-2"))


def _lose_artefact(operator: Operator, candidate: Candidate) -> None:
    (operator.home / f"store/references/artefacts/{candidate.artefact.sha256}.npz").unlink()


def _spoil_artefact(operator: Operator, candidate: Candidate) -> None:
    (operator.home / f"store/references/artefacts/{candidate.artefact.sha256}.npz").write_bytes(b"nothing")


def _spoil_candidate(operator: Operator, candidate: Candidate) -> None:
    (operator.home / f"store/references/candidates/{candidate.base}/{candidate.version}.json").write_bytes(b"{}")


def _forge_history(operator: Operator, candidate: Candidate) -> None:
    folder = operator.home / f"store/references/history/{candidate.base}"
    folder.mkdir(parents=True)
    (folder / f"{1:010d}.json").write_bytes(b"{}")


def _take_store_away(operator: Operator, candidate: Candidate) -> None:
    (operator.home / "store").rename(operator.home / "elsewhere")
    (operator.home / "store").write_bytes(b"no directory")


def _take_brokers_away(operator: Operator, candidate: Candidate) -> None:
    class Away(Board):
        def announce(self, pointer: ReferencePointer, updates: Sequence[ReferenceUpdate]) -> None:
            raise KafkaUnavailable("no brokers")

    operator.board = Away()


@pytest.mark.parametrize(
    ("spoil", "said"),
    [
        (_dispute, "1 of the 40 samples"),
        (_lose_artefact, "no worker could decide by it"),
        (_spoil_artefact, "no worker could decide by it"),
        (_spoil_candidate, "Field required"),
        (_forge_history, "no reference pointer"),
        (_take_store_away, "cannot use the directory"),
        (_take_brokers_away, "run `mediasieve references announce`"),
    ],
)
def test_what_cannot_be_promoted_is_one_clear_text(
    spoil: Callable[[Operator, Candidate], None], said: str, operator: Operator
) -> None:
    candidate = operator.candidate()
    spoil(operator, candidate)
    code, heard = operator.run("promote", candidate.version, "--actor", "ops")
    assert (code, said in heard, "Traceback" in heard) == (1, True, False), heard
    assert operator.board.pointers == []
