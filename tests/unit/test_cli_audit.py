"""`mediasieve audit` on a log in a directory: what its proofs say, and how each command ends."""

from __future__ import annotations

from pathlib import Path
from uuid import UUID

import pytest
from typer.testing import CliRunner

from pipeline.evidence.log.leaf import leaf_of
from pipeline.evidence.log.signer import Signer
from schemas.topics import Topic
from tests.support.audit import finding
from tests.support.audit_site import LEAVES, NAME, Site, uid_of
from tests.support.fleet import clean_environment
from workers.cli.audit import app


@pytest.fixture(scope="module")
def written(tmp_path_factory: pytest.TempPathFactory) -> Site:
    """For tests that change nothing in it."""
    return Site(tmp_path_factory.mktemp("audit"))


@pytest.fixture
def site(tmp_path: Path) -> Site:
    return Site(tmp_path)


@pytest.mark.parametrize("number", [0, 17, 255, 256, LEAVES - 1])
def test_a_decision_is_proved_by_a_file_and_the_public_key_alone(written: Site, number: int, tmp_path: Path) -> None:
    for name in (str(uid_of(number)), f"media-{number}", str(uid_of(number)).upper()):
        proof = tmp_path / "a.tlog-proof"
        (row,) = written.rows("prove", name, "-o", str(proof))
        assert (row["index"], row["origin"]) == (number, f"{NAME}/decisions.pass/0")
        code, said = written.run("verify", str(proof), "--key", str(written.public), environment={})
        assert code == 0, said
        assert f"proved: leaf {number} of {LEAVES}" in said
        assert str(uid_of(number)) in said


def test_a_record_is_found_by_its_place_in_kafka_and_a_gap_answers_for_all_in_it(written: Site, tmp_path: Path) -> None:
    proof = str(tmp_path / "a")

    def index(topic: Topic, partition: int, offset: int) -> object:
        place = ("--topic", topic.value, "--partition", str(partition), "--offset", str(offset))
        return written.rows("prove", *place, "-o", proof)[0]["index"]

    assert [index(Topic.PASS, 0, 2 * n) for n in (0, 100, LEAVES - 1)] == [0, 100, LEAVES - 1]
    assert [index(Topic.REVIEWS, 2, offset) for offset in (7, 8, 10)] == [0, 1, 1]
    for offset in ("3", "9999"):
        code, said = written.run("prove", "--topic", Topic.PASS, "--partition", "0", "--offset", offset, "-o", proof)
        assert (code, "no leaf for decisions.pass[0]@" in said) == (3, True)


@pytest.mark.parametrize("name", ["media-unknown", str(UUID(int=7))])
def test_what_is_not_in_the_log_is_not_found(written: Site, name: str, tmp_path: Path) -> None:
    code, said = written.run("prove", name, "-o", str(tmp_path / "a"))
    assert (code, said) == (3, f"no leaf for {name} in {NAME}\n")
    assert not (tmp_path / "a").exists()


def test_a_tenant_narrows_a_media_id(written: Site, tmp_path: Path) -> None:
    (row,) = written.rows("prove", "media-3", "--tenant", "acme", "-o", str(tmp_path / "a"))
    assert row["index"] == 3
    assert written.run("prove", "media-3", "--tenant", "other", "-o", str(tmp_path / "a"))[0] == 3


@pytest.mark.parametrize("arguments", [(), ("x", "--offset", "1"), ("--topic", "decisions.pass", "--offset", "1")])
def test_prove_wants_a_name_or_a_whole_place(written: Site, arguments: tuple[str, ...]) -> None:
    code, said = written.run("prove", *arguments)
    assert (code, "give a decision uid or media id; or" in said) == (2, True)


@pytest.mark.parametrize("line", ["extra", "index", "path", "size", "signature"])
def test_a_proof_that_was_changed_anywhere_does_not_hold(written: Site, line: str, tmp_path: Path) -> None:
    proof = tmp_path / "a"
    written.rows("prove", "media-3", "-o", str(proof))
    lines = proof.read_text().split("\n")
    at = {"extra": 1, "index": 2, "path": 3, "size": lines.index("") + 2, "signature": lines.index("") + 5}[line]
    lines[at] = {"index": "index 4", "size": "299"}.get(line) or _other(lines[at])
    proof.write_text("\n".join(lines))
    code, said = written.run("verify", str(proof), "--key", str(written.public), environment={})
    assert (code, said.count("\n")) == (1, 1), said
    assert said.startswith("mediasieve: ")


def _other(line: str) -> str:
    """One character of the base64 changed, not in its padding."""
    at = len(line) - 12
    return line[:at] + ("A" if line[at] != "A" else "B") + line[at + 1 :]


def test_the_key_of_somebody_else_proves_nothing(written: Site, tmp_path: Path) -> None:
    proof, other = tmp_path / "a", tmp_path / "other.vkey"
    written.rows("prove", "media-3", "-o", str(proof))
    other.write_text(Signer.generate(NAME).verifier.vkey)
    code, said = written.run("verify", str(proof), "--key", str(other), environment={})
    assert (code, "no trusted key has signed" in said) == (1, True)


def test_verify_wants_a_file_or_all(written: Site, tmp_path: Path) -> None:
    (tmp_path / "a").write_bytes(b"no proof")
    assert written.run("verify")[0] == 2
    assert written.run("verify", str(tmp_path / "a"), "--all")[0] == 2
    assert written.run("verify", str(tmp_path / "missing"))[0] == 2
    assert written.run("verify", str(tmp_path / "a"))[0] == 1


def test_a_gap_is_accepted_once(site: Site) -> None:
    code, said = site.run("accept-gap", "reviews.verdicts", "2", "--until", "20")
    assert (code, "leaf 2 says that offsets 11 to 19 were never logged" in said) == (0, True)
    assert site.run("accept-gap", "reviews.verdicts", "2", "--until", "20")[0] == 2
    assert site.run("verify", "--all")[0] == 0


@pytest.mark.parametrize(
    ("arguments", "missing", "says"),
    [
        (("status",), "MEDIASIEVE_AUDIT__PUBLIC_KEYS", "mediasieve audit keygen"),
        (("accept-gap", "decisions.pass", "0", "--until", "5"), "MEDIASIEVE_AUDIT__PRIVATE_KEY", "audit keygen"),
    ],
)
def test_a_missing_key_is_named_by_its_setting(
    written: Site, arguments: tuple[str, ...], missing: str, says: str
) -> None:
    environment = {k: v for k, v in written.environment.items() if k != missing}
    done = CliRunner().invoke(app, list(arguments), env=clean_environment(environment))
    assert missing in str(done.exception)
    assert says in str(done.exception)


def test_a_key_file_that_cannot_be_used_is_wrong_input(written: Site, tmp_path: Path) -> None:
    (tmp_path / "keys").write_text("garbage")
    code, said = written.run("verify", "--all", "--key", str(tmp_path / "keys"))
    assert (code, str(tmp_path / "keys") in said) == (2, True)


def test_a_media_id_that_looks_like_a_uid_is_found(site: Site, tmp_path: Path) -> None:
    for number, media_id in enumerate(("0b1f5a1e-8f5e-5a53-9d0c-3f3c9d2a7c11", "0" * 32)):
        value = finding(media_id, uid_of(9_000 + number))
        site.writer(f"{Topic.BLOCK}/0").append([leaf_of(Topic.BLOCK, 0, number, value).encode()])
        (row,) = site.rows("prove", media_id, "-o", str(tmp_path / "a"))
        assert row["index"] == number


def test_of_two_decisions_under_one_uid_the_one_with_the_higher_sequence_is_proved(site: Site, tmp_path: Path) -> None:
    first, second = (finding("twice", uid_of(9_000), sequence=sequence) for sequence in (0, 1))
    site.writer(f"{Topic.ESCALATE}/0").append([leaf_of(Topic.ESCALATE, 0, 0, first).encode()])
    site.writer(f"{Topic.PASS}/1").append([leaf_of(Topic.PASS, 1, 0, second).encode()])
    for name in (str(uid_of(9_000)), "twice"):
        (row,) = site.rows("prove", name, "-o", str(tmp_path / "a"))
        assert row["origin"] == f"{NAME}/decisions.pass/1"


def test_a_gap_is_called_one(written: Site, tmp_path: Path) -> None:
    place = ("--topic", Topic.REVIEWS.value, "--partition", "2", "--offset")
    code, said = written.run("prove", *place, "9", "-o", str(tmp_path / "a"))
    assert (code, "GAP: offset 9 was never logged" in said, "8 to 10" in said) == (0, True, True)
    (row,) = written.rows("prove", *place, "9", "-o", str(tmp_path / "a"))
    assert row["gap"] is True
    assert "GAP" not in written.run("prove", *place, "7", "-o", str(tmp_path / "a"))[1]
