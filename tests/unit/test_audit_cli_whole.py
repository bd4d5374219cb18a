"""What an auditor is told of a whole log: verified, rolled back, cut, gone, forked, co-signed."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest

from pipeline.evidence.log.audit_log import AuditLog
from pipeline.evidence.log.key_set import KeySet
from pipeline.evidence.log.leaf import leaf_of
from pipeline.evidence.log.signer import Signer
from pipeline.evidence.log.storage import open_log_storage
from schemas.topics import Topic
from tests.support.audit_site import LEAVES, NAME, Site, uid_of


@pytest.fixture(scope="module")
def written(tmp_path_factory: pytest.TempPathFactory) -> Site:
    """For tests that change nothing in it."""
    return Site(tmp_path_factory.mktemp("audit"))


@pytest.fixture
def site(tmp_path: Path) -> Site:
    return Site(tmp_path)


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
    assert code == 0, said
    code, said = site.run(*verify, "--quorum", "1", environment={})
    assert (code, f"of {LEAVES} in" in said) == (0, True), "under the co-signed checkpoint, though the log went on"
    code, said = site.run("prove", f"media-{LEAVES}", "-o", str(proof), "--cosigned", str(tmp_path / "out"))
    assert (code, "run `audit witness observe` again" in said) == (3, True)
    assert [row["leaves"] for row in site.rows(*observe)] == [LEAVES + 5, 2]
    (site.log / "decisions.pass" / "0" / "checkpoint").write_bytes(old)
    shutil.rmtree(site.log / "reviews.verdicts")
    site.writer(f"{Topic.ERASURES}/1")
    code, said = site.run(*observe)
    assert (code, "decisions.pass/0: REFUSED" in said, "rolled back" in said) == (1, True, True)
    assert "reviews.verdicts/2: REFUSED" in said, "one that vanished is not forgotten"
    assert "evidence.erasures/1: 0 leaves co-signed" in said, "a refusal holds up no other tree"


def test_status_names_every_tree(written: Site) -> None:
    code, said = written.run("status")
    assert code == 0
    assert all(text in said for text in ("decisions.pass/0", str(LEAVES), str(2 * LEAVES - 2), "reviews.verdicts/2"))
    rows = written.rows("status")
    assert [(row["tree"], row["leaves"], row["last_offset"]) for row in rows] == [
        ("decisions.pass/0", LEAVES, 2 * LEAVES - 2),
        ("reviews.verdicts/2", 2, 10),
    ]


def test_no_tree_at_all_is_not_found(site: Site) -> None:
    shutil.rmtree(site.log)
    code, said = site.run("verify", "--all")
    assert (code, "has no tree of tests.example/audit" in said) == (3, True)


def test_a_removed_tree_that_a_retired_key_names_is_missed(site: Site) -> None:
    new = site.home / "keys" / "next.pem"
    assert site.run("rotate", str(new))[0] == 0
    shutil.rmtree(site.log / "reviews.verdicts")
    code, said = site.run("verify", "--all")
    assert (code, f"{NAME}/reviews.verdicts/2: DOES NOT HOLD" in said) == (1, True)
    shutil.rmtree(site.log)
    assert site.run("verify", "--all")[0] == 1


def test_a_removed_checkpoint_is_missed(site: Site) -> None:
    (site.log / "reviews.verdicts" / "2" / "checkpoint").unlink()
    code, said = site.run("verify", "--all")
    assert (code, f"{NAME}/reviews.verdicts/2: DOES NOT HOLD" in said, "removed" in said) == (1, True, True)
    assert site.run("status")[0] == 1


def test_kept_checkpoints_of_another_log_are_wrong_input(site: Site, tmp_path: Path) -> None:
    other = Signer.generate("other.example/log")
    both = KeySet.load(site.public).adding(other.verifier)
    both.save(site.public)
    storage = open_log_storage("memory://")
    origin = "other.example/log/decisions.pass/0"
    log = AuditLog.open(storage, origin, other, KeySet([other.verifier]))
    log.append([leaf_of(Topic.PASS, 0, 0, b"x").encode()])
    note = storage.read_checkpoint()
    assert note is not None
    (tmp_path / "a.checkpoint").write_bytes(note[0])
    code, said = site.run("verify", "--all", "--kept", str(tmp_path / "a.checkpoint"))
    assert (code, "no tree of the log tests.example/audit" in said) == (2, True)
    assert site.run("verify", "--all", "--kept", str(site.home / "keys"))[0] == 2, "a folder without any"


def test_a_log_below_both_checkpoints_is_no_missing_one(site: Site, tmp_path: Path) -> None:
    tree, name = site.log / "decisions.pass" / "0", "decisions.pass-0.checkpoint"
    before = (tree / "checkpoint").read_bytes()
    for number in (1, 2):
        site.append(LEAVES + number - 1, LEAVES + number)
        site.rows("status", "--save", str(tmp_path / str(number)))
    pair = (str(tmp_path / "1" / name), str(tmp_path / "2" / name))
    assert site.run("consistency", *pair)[0] == 0
    (tree / "checkpoint").write_bytes(before)
    code, said = site.run("consistency", *pair)
    assert (code, "rolled back" in said) == (1, True)
    shutil.rmtree(site.log)
    code, said = site.run("consistency", *pair)
    assert (code, "removed" in said) == (1, True)
