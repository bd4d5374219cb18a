"""`mediasieve audit` on a log in a directory: what each command says and how it ends."""

from __future__ import annotations

import json
import stat
from collections.abc import Mapping
from pathlib import Path
from uuid import UUID, uuid5

import pytest
from typer.testing import CliRunner

from pipeline.evidence.log.audit_log import AuditLog
from pipeline.evidence.log.errors import Superseded
from pipeline.evidence.log.key_set import KeySet
from pipeline.evidence.log.leaf import gap_leaf, leaf_of
from pipeline.evidence.log.signer import Signer
from pipeline.evidence.log.storage import open_log_storage
from schemas.topics import Topic
from tests.support.audit import finding
from tests.support.fleet import clean_environment
from workers.cli.audit import app

NAME = "tests.example/audit"
LEAVES = 300


def uid_of(number: int) -> UUID:
    return uuid5(UUID(int=0), f"media-{number}")


class Site:
    """A log with one tree of decisions and one of reviews, and its keys."""

    def __init__(self, home: Path) -> None:
        self.home = home
        self.log = home / "store" / "audit"
        self.environment = {
            "MEDIASIEVE_STORE__URL": (home / "store").as_uri(),
            "MEDIASIEVE_AUDIT__LOG_NAME": NAME,
            "MEDIASIEVE_AUDIT__PRIVATE_KEY": str(home / "keys" / "audit-private.pem"),
            "MEDIASIEVE_AUDIT__PUBLIC_KEYS": str(home / "keys" / "audit-public-keys.json"),
        }
        assert self.run("keygen", str(home / "keys"))[0] == 0
        self.public = Path(self.environment["MEDIASIEVE_AUDIT__PUBLIC_KEYS"])
        self.append(0, LEAVES)
        writer = self.writer(f"{Topic.REVIEWS}/2")
        writer.append(
            [leaf_of(Topic.REVIEWS, 2, 7, b"not a review").encode(), gap_leaf(Topic.REVIEWS, 2, 8, 11).encode()]
        )

    def writer(self, tree: str) -> AuditLog:
        signer = Signer.load(NAME, Path(self.environment["MEDIASIEVE_AUDIT__PRIVATE_KEY"]))
        keys = KeySet.load(Path(self.environment["MEDIASIEVE_AUDIT__PUBLIC_KEYS"]))
        return AuditLog.open(open_log_storage(self.log.as_uri()).under(tree), f"{NAME}/{tree}", signer, keys)

    def append(self, start: int, stop: int) -> None:
        values = [(n, finding(f"media-{n}", uid_of(n))) for n in range(start, stop)]
        self.writer(f"{Topic.PASS}/0").append([leaf_of(Topic.PASS, 0, 2 * n, value).encode() for n, value in values])

    def run(self, *arguments: str, environment: Mapping[str, str] | None = None) -> tuple[int, str]:
        given = self.environment if environment is None else environment
        done = CliRunner().invoke(app, list(arguments), env=clean_environment(given))
        assert done.exception is None or isinstance(done.exception, SystemExit), done.exception
        return done.exit_code, done.output

    def rows(self, *arguments: str) -> list[dict[str, object]]:
        code, said = self.run(*arguments, "--json")
        assert code == 0, said
        return [json.loads(line) for line in said.splitlines()]


@pytest.fixture(scope="module")
def written(tmp_path_factory: pytest.TempPathFactory) -> Site:
    """For tests that change nothing in it."""
    return Site(tmp_path_factory.mktemp("audit"))


@pytest.fixture
def site(tmp_path: Path) -> Site:
    return Site(tmp_path)


def test_keygen_makes_a_pair_for_its_owner_alone_and_never_overwrites_one(site: Site) -> None:
    private = site.home / "keys" / "audit-private.pem"
    assert stat.S_IMODE(private.stat().st_mode) == 0o600
    assert stat.S_IMODE(private.parent.stat().st_mode) == 0o700
    before = private.read_bytes()
    code, said = site.run("keygen", str(site.home / "keys"))
    assert (code, "exists already" in said, private.read_bytes()) == (2, True, before)


def test_keygen_leaves_what_is_there_alone_when_asked_to(site: Site) -> None:
    keys = site.home / "keys"
    before = {path.name: path.read_bytes() for path in keys.iterdir()}
    assert site.run("keygen", "--if-absent", str(keys))[0] == 0
    assert {path.name: path.read_bytes() for path in keys.iterdir()} == before
    assert site.run("keygen", "--if-absent", str(site.home / "more"))[0] == 0
    assert len(list((site.home / "more").iterdir())) == 2


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


def test_the_whole_log_is_verified(written: Site) -> None:
    code, said = written.run("verify", "--all")
    assert (code, said) == (0, "302 leaves in 2 trees: all hashes, checkpoints, indices and offsets hold\n")
    assert [(row["leaves"], row["ok"]) for row in written.rows("verify", "--all")] == [(LEAVES, True), (2, True)]


def test_a_changed_entry_is_named_with_its_tree_and_index(site: Site) -> None:
    bundle = site.log / "decisions.pass" / "0" / "tile" / "entries" / "000"
    data = bytearray(bundle.read_bytes())
    at = data.index(str(uid_of(41)).encode())
    data[at] = ord("0") if data[at] != ord("0") else ord("1")
    bundle.chmod(0o644)
    bundle.write_bytes(data)
    code, said = site.run("verify", "--all")
    assert (code, f"{NAME}/decisions.pass/0: DOES NOT HOLD, first bad index 41" in said) == (1, True)
    code, said = site.run("verify", "--all", "--json")
    assert (code, json.loads(said.splitlines()[0])["first_bad_index"]) == (1, 41)
    code, said = site.run("prove", "media-41")
    assert code == 1


def test_a_log_that_was_rolled_back_does_not_continue_a_kept_checkpoint(site: Site) -> None:
    tree = site.log / "decisions.pass" / "0"
    old = (tree / "checkpoint").read_bytes()
    site.append(LEAVES, LEAVES + 5)
    assert len(site.rows("status", "--save", str(site.home / "kept"))) == 2
    assert site.run("verify", "--all", "--kept", str(site.home / "kept"))[0] == 0
    (tree / "checkpoint").chmod(0o644)
    (tree / "checkpoint").write_bytes(old)
    code, said = site.run("verify", "--all", "--kept", str(site.home / "kept"))
    assert (code, "rolled back" in said, f"first bad index {LEAVES}" in said) == (1, True, True)
    assert site.run("verify", "--all")[0] == 0, "without a kept checkpoint nobody can see it"


def test_two_checkpoints_are_consistent_or_not(site: Site, tmp_path: Path) -> None:
    old, new, name = tmp_path / "old", tmp_path / "new", "decisions.pass-0.checkpoint"
    site.rows("status", "--save", str(old))
    site.append(LEAVES, LEAVES + 9)
    site.rows("status", "--save", str(new))
    code, said = site.run("consistency", str(old / name), str(new / name))
    assert (code, "309 leaves" in said) == (0, True)
    code, said = site.run("consistency", str(new / name), str(old / name))
    assert (code, "rolled back" in said) == (1, True)
    code, said = site.run("consistency", str(old / name), str(new / "reviews.verdicts-2.checkpoint"))
    assert code == 2
    other = Site(tmp_path / "other")
    forked = tmp_path / "forked"
    signer = Signer.load(NAME, Path(site.environment["MEDIASIEVE_AUDIT__PRIVATE_KEY"]))
    log = AuditLog.open(open_log_storage("memory://"), f"{NAME}/decisions.pass/0", signer, KeySet([signer.verifier]))
    log.append([leaf_of(Topic.PASS, 0, n, b"another story").encode() for n in range(LEAVES)])
    forked.write_bytes(log._stored[0] if log._stored else b"")
    code, said = site.run("consistency", str(forked), str(new / name))
    assert code == 1, said
    assert other.run("consistency", str(old / name), str(new / name))[0] == 1, "signed with another key"


def test_rotation_supersedes_the_old_writer_and_keeps_old_proofs(site: Site, tmp_path: Path) -> None:
    proof = tmp_path / "a"
    site.rows("prove", "media-3", "-o", str(proof))
    running = site.writer(f"{Topic.PASS}/0")
    new = site.home / "keys" / "next.pem"
    assert {row["size"] for row in site.rows("rotate", str(new))} == {LEAVES, 2}
    assert stat.S_IMODE(new.stat().st_mode) == 0o600
    with pytest.raises(Superseded):
        running.append([leaf_of(Topic.PASS, 0, 10_000, b"too late").encode()])
    code, said = site.run("rotate", str(site.home / "keys" / "third.pem"))
    assert (code, "rotated already" in said) == (2, True), "the old key may sign nothing more"
    site.environment["MEDIASIEVE_AUDIT__PRIVATE_KEY"] = str(new)
    site.append(LEAVES, LEAVES + 3)
    assert site.run("verify", "--all")[0] == 0
    assert site.run("verify", str(proof), "--key", str(site.public), environment={})[0] == 0
    site.rows("prove", f"media-{LEAVES + 1}", "-o", str(proof))
    assert site.run("verify", str(proof), "--key", str(site.public), environment={})[0] == 0


def test_an_interrupted_rotation_is_finished_by_running_it_again(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    from workers.audit import rotation

    new, real, calls = site.home / "keys" / "next.pem", rotation._sign_anew, []

    def once(*arguments: object) -> object:
        calls.append(arguments)
        if len(calls) == 2:
            raise Superseded("a worker appended at that moment")
        return real(*arguments)  # type: ignore[arg-type]

    monkeypatch.setattr(rotation, "_sign_anew", once)
    assert site.run("rotate", str(new))[0] == 4
    assert site.run("verify", "--all")[0] == 0
    monkeypatch.setattr(rotation, "_sign_anew", real)
    assert len(site.rows("rotate", str(new))) == 2
    assert len(KeySet.load(site.public).verifiers) == 2
    assert site.run("verify", "--all")[0] == 0


def test_a_witness_cosigns_growth_and_refuses_a_rollback(site: Site, tmp_path: Path) -> None:
    assert site.run("witness", "keygen", str(tmp_path / "w"), "--name", "witness.example/w")[0] == 0
    observe = (
        *("witness", "observe", "--private-key", str(tmp_path / "w" / "witness-private.pem")),
        *("--name", "witness.example/w", "--state", (tmp_path / "state").as_uri(), "-o", str(tmp_path / "out")),
    )
    assert [row["leaves"] for row in site.rows(*observe)] == [LEAVES, 2]
    proof, witnesses = tmp_path / "a", str(tmp_path / "w" / "witness-public-keys.json")
    site.rows("prove", "media-3", "-o", str(proof), "--cosigned", str(tmp_path / "out"))
    verify = ("verify", str(proof), "--key", str(site.public), "--witness", witnesses)
    assert site.run(*verify, "--quorum", "1", environment={})[0] == 0
    code, said = site.run(*verify, "--quorum", "2", environment={})
    assert (code, "2 witnesses must have co-signed" in said) == (1, True)

    old = (site.log / "decisions.pass" / "0" / "checkpoint").read_bytes()
    site.append(LEAVES, LEAVES + 5)
    code, said = site.run("prove", "media-3", "-o", str(proof), "--cosigned", str(tmp_path / "out"))
    assert (code, "run `audit witness observe` again" in said) == (1, True)
    assert [row["leaves"] for row in site.rows(*observe)] == [LEAVES + 5, 2]
    (site.log / "decisions.pass" / "0" / "checkpoint").write_bytes(old)
    code, said = site.run(*observe)
    assert (code, "rolled back" in said) == (1, True)


def test_a_gap_is_accepted_once(site: Site) -> None:
    code, said = site.run("accept-gap", "reviews.verdicts", "2", "--until", "20")
    assert (code, "leaf 2 says that offsets 11 to 19 were never logged" in said) == (0, True)
    assert site.run("accept-gap", "reviews.verdicts", "2", "--until", "20")[0] == 2
    assert site.run("verify", "--all")[0] == 0


def test_status_names_every_tree(written: Site) -> None:
    code, said = written.run("status")
    assert code == 0
    assert all(text in said for text in ("decisions.pass/0", str(LEAVES), str(2 * LEAVES - 2), "reviews.verdicts/2"))
    rows = written.rows("status")
    assert [(row["tree"], row["leaves"], row["last_offset"]) for row in rows] == [
        ("decisions.pass/0", LEAVES, 2 * LEAVES - 2),
        ("reviews.verdicts/2", 2, 10),
    ]


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
