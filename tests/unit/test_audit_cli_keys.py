"""Keys of an audit log: made, handed over, retired, stolen; and who may write afterwards."""

from __future__ import annotations

import stat
from pathlib import Path

import pytest

from pipeline.evidence.log.audit_log import AuditLog
from pipeline.evidence.log.errors import LogCorrupt, Superseded
from pipeline.evidence.log.key_set import KeySet
from pipeline.evidence.log.leaf import leaf_of
from pipeline.evidence.log.proof import make_proof
from pipeline.evidence.log.reader import LogReader
from pipeline.evidence.log.signer import Signer
from pipeline.evidence.log.storage import open_log_storage
from pipeline.settings import SettingsInvalid
from schemas.topics import Topic
from tests.support.audit_site import LEAVES, NAME, Site
from workers.audit.worker import open_writer


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


def test_a_tree_far_from_its_neighbours_is_verified_and_handed_over(site: Site) -> None:
    lonely = site.writer(f"{Topic.ERASURES}/40")
    lonely.append([leaf_of(Topic.ERASURES, 40, 3, b"an erasure").encode()])
    code, said = site.run("verify", "--all")
    assert (code, "303 leaves in 3 trees" in said) == (0, True)
    assert "evidence.erasures/40" in {row["tree"] for row in site.rows("status")}
    new = site.home / "keys" / "next.pem"
    assert len(site.rows("rotate", str(new))) == 3
    site.environment["MEDIASIEVE_AUDIT__PRIVATE_KEY"] = str(new)
    assert site.run("verify", "--all")[0] == 0
    site.writer(f"{Topic.ERASURES}/40").append([leaf_of(Topic.ERASURES, 40, 4, b"another").encode()])


def test_rotation_fences_a_writer_whose_tree_has_no_leaf_yet(site: Site) -> None:
    running = site.writer(f"{Topic.BLOCK}/1")
    new = site.home / "keys" / "next.pem"
    assert len(site.rows("rotate", str(new))) == 3
    with pytest.raises(Superseded):
        running.append([leaf_of(Topic.BLOCK, 1, 0, b"too late").encode()])
    site.environment["MEDIASIEVE_AUDIT__PRIVATE_KEY"] = str(new)
    assert site.run("verify", "--all")[0] == 0
    assert site.writer(f"{Topic.BLOCK}/1").append([leaf_of(Topic.BLOCK, 1, 0, b"in time").encode()]).size == 1


def test_a_tree_that_is_begun_while_keys_are_rotated_is_handed_over_too(
    site: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    real, begun = KeySet.save, []

    def save(self: KeySet, path: Path) -> None:
        if not begun and self.retired_origins():  # the old key is about to be retired
            begun.append(site.writer(f"{Topic.BLOCK}/1"))
        real(self, path)

    monkeypatch.setattr(KeySet, "save", save)
    new = site.home / "keys" / "next.pem"
    assert len(site.rows("rotate", str(new))) == 3
    assert site.run("verify", "--all")[0] == 0
    with pytest.raises(Superseded):
        begun[0].append([leaf_of(Topic.BLOCK, 1, 0, b"too late").encode()])


def test_a_worker_whose_key_was_retired_is_superseded_where_it_opens_a_tree(site: Site) -> None:
    opens = open_writer(site.settings)
    new = site.home / "keys" / "next.pem"
    assert site.run("rotate", str(new))[0] == 0
    for tree in (f"{Topic.PASS}/0", f"{Topic.BLOCK}/1"):
        with pytest.raises(Superseded, match="retired"):
            opens(tree)
    assert not (site.log / "decisions.block").exists()
    assert site.run("verify", "--all")[0] == 0


def test_a_proof_of_a_tree_that_a_thief_made_up_does_not_hold_once_the_key_is_called_stolen(
    site: Site, tmp_path: Path
) -> None:
    thief = Signer.load(NAME, Path(site.environment["MEDIASIEVE_AUDIT__PRIVATE_KEY"]))
    place = open_log_storage("memory://")
    keys = KeySet([thief.verifier])
    origin = f"{NAME}/{Topic.PASS}/0"
    AuditLog.open(place, origin, thief, keys).append([leaf_of(Topic.PASS, 0, n, b"a lie").encode() for n in range(5)])
    proof = tmp_path / "lie"
    proof.write_bytes(make_proof(LogReader(place, origin, keys), 3))
    assert site.run("rotate", "--stolen", str(site.home / "keys" / "next.pem"))[0] == 0
    code, said = site.run("verify", str(proof), "--key", str(site.public), environment={})
    assert (code, "stolen" in said) == (1, True)
    assert site.run("verify", "--all")[0] == 0
    site.rows("prove", "media-3", "-o", str(proof))
    assert site.run("verify", str(proof), "--key", str(site.public), environment={})[0] == 0


def test_a_worker_refuses_a_log_that_does_not_continue_what_the_setting_keeps(site: Site) -> None:
    old = (site.log / "decisions.pass" / "0" / "checkpoint").read_bytes()
    site.append(LEAVES, LEAVES + 5)
    site.rows("status", "--save", str(site.home / "kept"))
    site.environment["MEDIASIEVE_AUDIT__KEPT"] = str(site.home / "kept")
    assert open_writer(site.settings)("decisions.pass/0").size == LEAVES + 5
    (site.log / "decisions.pass" / "0" / "checkpoint").write_bytes(old)
    with pytest.raises(LogCorrupt, match=f"rolled back from {LEAVES + 5} to {LEAVES}"):
        open_writer(site.settings)("decisions.pass/0")
    site.environment["MEDIASIEVE_AUDIT__KEPT"] = str(site.home / "keys")
    with pytest.raises(SettingsInvalid, match="MEDIASIEVE_AUDIT__KEPT"):
        open_writer(site.settings)


def test_a_keygen_that_was_interrupted_names_the_file_to_remove(site: Site) -> None:
    private = site.home / "keys" / "audit-private.pem"
    before = private.read_bytes()
    site.public.unlink()
    for flags in ((), ("--if-absent",)):
        code, said = site.run("keygen", *flags, str(site.home / "keys"))
        assert (code, f"remove {private}" in said, private.read_bytes()) == (2, True, before)
