"""Signed notes, keys, and what a key is trusted for after another took over."""

from __future__ import annotations

import base64
import os
import stat
from pathlib import Path

import pytest

from pipeline.evidence.log.audit_log import AuditLog
from pipeline.evidence.log.checkpoint import Checkpoint, open_checkpoint, sign_checkpoint
from pipeline.evidence.log.errors import KeyFileInvalid, LogCorrupt, Superseded, Untrusted
from pipeline.evidence.log.key_set import KeySet, TrustedKey
from pipeline.evidence.log.keys import KeyType, Verifier
from pipeline.evidence.log.merkle import EMPTY_ROOT
from pipeline.evidence.log.note import parse_note
from pipeline.evidence.log.signer import Signer
from pipeline.evidence.log.storage import open_log_storage
from tests.support.audit_logs import KEYS, LOG, ORIGIN, SIGNER, filled, leaves, signer

HEAD = Checkpoint(ORIGIN, 7, bytes(range(32)))
GO_VKEY = "PeterNeumann+c74f20a3+ARpc2QcUPDhMQegwxbzhKqiBfsVkmqq/LDE4izWy10TW"
GO_NOTE = (
    "If you think cryptography is the answer to your problem,\nthen you don't know what your problem is.\n\n"
    "— PeterNeumann x08go/ZJkuBS9UG/SffcvIAQxVBtiFupLLr8pAcElZInNIuGUgYN1FFYC2pZSNXgKvqfqdngotpRZb6KE6RyyBwJnAM=\n"
).encode()
"""The example of Go's package golang.org/x/mod/sumdb/note: another implementation's key and signature."""


def test_a_note_that_another_implementation_signed() -> None:
    key = Verifier.from_vkey(GO_VKEY)
    assert key.vkey == GO_VKEY
    note = parse_note(GO_NOTE)
    assert note.encode() == GO_NOTE
    (line,) = note.signatures
    assert (line.name, line.key_id) == (key.name, key.key_id)
    assert key.verifies(line.data, note.text)
    assert not key.verifies(line.data, note.text + b"\n")


def test_a_checkpoint_has_the_specified_form() -> None:
    note = sign_checkpoint(HEAD, SIGNER)
    encoded = base64.b64encode(HEAD.root).decode()
    assert note.startswith(f"{ORIGIN}\n7\n{encoded}\n\n— {LOG} ".encode())
    assert open_checkpoint(note, KEYS, ORIGIN) == HEAD
    assert sign_checkpoint(HEAD, SIGNER) == note


@pytest.mark.parametrize(
    "text",
    [
        b"",
        b"o\n1\n",
        b"o\n01\n" + base64.b64encode(bytes(32)) + b"\n",
        b"o\n-1\n" + base64.b64encode(bytes(32)) + b"\n",
        b"o\n\xd9\xa1\n" + base64.b64encode(bytes(32)) + b"\n",
        b"o\n9223372036854775808\n" + base64.b64encode(bytes(32)) + b"\n",
        b"o\n1\n" + base64.b64encode(bytes(31)) + b"\n",
        b"o\n1\n" + base64.b64encode(bytes(32)) + b" \n",
        b"o\n1\n" + base64.b64encode(bytes(32)) + b"\nextension\n",
        b"o o\n1\n" + base64.b64encode(bytes(32)) + b"\n",
        b"o+o\n1\n" + base64.b64encode(bytes(32)) + b"\n",
        b"\n1\n" + base64.b64encode(bytes(32)) + b"\n",
        b"\xff\n1\n" + base64.b64encode(bytes(32)) + b"\n",
    ],
)
def test_a_malformed_checkpoint_is_none(text: bytes) -> None:
    with pytest.raises(Untrusted):
        Checkpoint.parse(text)


@pytest.mark.parametrize(
    "note",
    [
        b"",
        b"text\n",
        b"text\n\n",
        b"text\n\n- name AAAAAAA=\n",
        "text\n\n— name AAAA\n".encode(),
        "text\n\n— name ?\n".encode(),
        "text\n\n— name\n".encode(),
        "text\n\n— name AAAAAAA=".encode(),
        "te\x01xt\n\n— name AAAAAAA=\n".encode(),
        b"\xff\n\n" + "— name AAAAAAA=\n".encode(),
        b"x" * 70_000,
        b"text\n\n" + "— name AAAAAAA=\n".encode() * 65,
    ],
)
def test_a_malformed_note_is_none(note: bytes) -> None:
    with pytest.raises(Untrusted):
        parse_note(note)


def test_every_changed_bit_of_a_signed_checkpoint_is_seen() -> None:
    note = sign_checkpoint(HEAD, SIGNER)
    for at in range(len(note) * 8):
        changed = bytearray(note)
        changed[at // 8] ^= 1 << at % 8
        with pytest.raises(Untrusted):
            open_checkpoint(bytes(changed), KEYS, ORIGIN)


def test_only_known_keys_count_and_a_wrong_signature_of_one_spoils_the_note() -> None:
    other = signer(2)
    note, others = parse_note(sign_checkpoint(HEAD, SIGNER)), parse_note(sign_checkpoint(HEAD, other))
    both = note.encode() + others.signatures[0].line()
    assert open_checkpoint(both, KEYS) == HEAD
    with pytest.raises(Untrusted, match="no trusted key"):
        open_checkpoint(others.encode(), KEYS)
    wrong = parse_note(sign_checkpoint(Checkpoint(ORIGIN, 8, HEAD.root), SIGNER)).signatures[0]
    with pytest.raises(Untrusted, match="wrong"):
        open_checkpoint(note.encode() + wrong.line(), KEYS)


def test_a_checkpoint_of_another_log_is_refused() -> None:
    with pytest.raises(Untrusted, match="not of"):
        open_checkpoint(sign_checkpoint(HEAD, SIGNER), KEYS, f"{LOG}/decisions.block/1")
    foreign = Checkpoint("other.example/audit/decisions.block/0", 7, HEAD.root)
    with pytest.raises(Untrusted, match="no trusted key"):
        open_checkpoint(sign_checkpoint(foreign, SIGNER), KEYS)
    longer = Checkpoint(f"{LOG}-of-somebody/decisions.block/0", 7, HEAD.root)
    with pytest.raises(Untrusted, match="no trusted key"):
        open_checkpoint(sign_checkpoint(longer, SIGNER), KEYS)


def test_a_private_key_is_kept_in_a_file_of_its_owner(tmp_path: Path) -> None:
    made = Signer.generate(LOG)
    made.save(tmp_path / "key.pem")
    assert stat.S_IMODE((tmp_path / "key.pem").stat().st_mode) == 0o600
    assert Signer.load(LOG, tmp_path / "key.pem").verifier == made.verifier
    with pytest.raises(KeyFileInvalid, match=r"key\.pem"):
        Signer.generate(LOG).save(tmp_path / "key.pem")
    with pytest.raises(KeyFileInvalid, match="absent"):
        Signer.load(LOG, tmp_path / "absent")
    (tmp_path / "text").write_text("no key")
    with pytest.raises(KeyFileInvalid, match="text"):
        Signer.load(LOG, tmp_path / "text")


def test_a_private_key_of_another_kind_is_refused(tmp_path: Path) -> None:
    from cryptography.hazmat.primitives.asymmetric.ec import SECP256R1, generate_private_key
    from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat

    pem = generate_private_key(SECP256R1()).private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
    (tmp_path / "ec.pem").write_bytes(pem)
    with pytest.raises(KeyFileInvalid, match="expected Ed25519"):
        Signer.load(LOG, tmp_path / "ec.pem")


@pytest.mark.parametrize(
    "vkey",
    ["", "name", "name+c74f20a3", GO_VKEY.replace("c74f20a3", "c74f20a4"), GO_VKEY[:-4], "a+00000000+/w==", "a+0+!"],
)
def test_a_malformed_public_key_is_refused(vkey: str) -> None:
    with pytest.raises(KeyFileInvalid):
        Verifier.from_vkey(vkey)


@pytest.mark.parametrize("name", ["", "a b", "a+b", "a\u2003b", "a\nb"])
def test_a_name_that_no_signature_line_can_hold_is_refused(name: str) -> None:
    with pytest.raises(KeyFileInvalid):
        Signer.generate(name)


def test_a_key_file_comes_back(tmp_path: Path) -> None:
    old, new = SIGNER.verifier, signer(2).verifier
    keys = KEYS.adding(new).retire(old, [HEAD])
    keys.save(tmp_path / "keys.json")
    assert KeySet.load(tmp_path / "keys.json").text() == keys.text()
    assert keys.retirements(ORIGIN) == [HEAD]
    assert keys.retirements("other") == []
    assert (keys.in_use(old), keys.in_use(new), keys.in_use(signer(3).verifier)) == (False, True, False)
    (tmp_path / "key.vkey").write_text(f"{new.vkey}\n")
    assert KeySet.load(tmp_path / "key.vkey").verifiers == (new,)


@pytest.mark.parametrize(
    ("text", "fault"),
    [
        ('{"v": 2, "keys": []}', "v"),
        ('{"v": 1, "keys": []}', "no key"),
        ("", "no key"),
        ('{"v": 1, "keys": [{"vkey": "x"}]}', "x"),
        ('{"v": 1, "keys": [{"vkey": "GO", "more": 1}]}', "more"),
        ('{"v": 1, "keys": [{"vkey": "GO"}, {"vkey": "GO"}]}', "twice"),
        ('{"v": 1, "keys": [{"vkey": "GO", "retired_at": {"o": {"size": -1, "root": ""}}}]}', "size"),
        ('{"v": 1, "keys": [{"vkey": "GO", "retired_at": {"o": {"size": 1, "root": "AA=="}}}]}', "root"),
        ('{"v": 1, "keys": [{"vkey": "GO", "retired_at": {"o": {"size": 1, "root": "?"}}}]}', "root"),
        ('{"v": 1,', "no key file"),
    ],
)
def test_a_malformed_key_file_names_file_and_field(tmp_path: Path, text: str, fault: str) -> None:
    (tmp_path / "keys.json").write_text(text.replace("GO", GO_VKEY))
    with pytest.raises(KeyFileInvalid, match=r"keys\.json") as caught:
        KeySet.load(tmp_path / "keys.json")
    assert fault in str(caught.value)


def test_an_absent_key_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(KeyFileInvalid, match="absent"):
        KeySet.load(tmp_path / "absent")


def test_a_retired_key_is_trusted_up_to_its_retirement_and_no_further() -> None:
    keys = KEYS.adding(signer(2).verifier).retire(SIGNER.verifier, [HEAD])
    earlier = Checkpoint(ORIGIN, 6, bytes(32))
    assert open_checkpoint(sign_checkpoint(HEAD, SIGNER), keys) == HEAD
    assert open_checkpoint(sign_checkpoint(earlier, SIGNER), keys) == earlier
    later, forked = Checkpoint(ORIGIN, 8, bytes(32)), Checkpoint(ORIGIN, 7, bytes(32))
    unknown = Checkpoint(f"{LOG}/decisions.pass/0", 1, bytes(32))
    for refused in (later, forked):
        with pytest.raises(Untrusted, match="re-signed with an old key"):
            open_checkpoint(sign_checkpoint(refused, SIGNER), keys)
    with pytest.raises(Untrusted, match="never served"):
        open_checkpoint(sign_checkpoint(unknown, SIGNER), keys)
    both = sign_checkpoint(later, SIGNER) + parse_note(sign_checkpoint(later, signer(2))).signatures[0].line()
    assert open_checkpoint(both, keys) == later


def test_a_log_goes_on_with_its_next_key() -> None:
    storage = open_log_storage("memory://")
    handed_over = filled(storage, 300).append(leaves(300, 310))
    keys = KEYS.adding(signer(2).verifier).retire(SIGNER.verifier, [handed_over])
    log = AuditLog.open(storage, ORIGIN, signer(2), keys)
    log.append(leaves(310, 320))
    assert AuditLog.open(storage, ORIGIN, signer(2), keys).size == 320
    with pytest.raises(Superseded, match="retired"):
        AuditLog.open(storage, ORIGIN, SIGNER, keys)
    with pytest.raises(Untrusted, match="no trusted key"):
        AuditLog.open(storage, ORIGIN, SIGNER, KEYS)


def test_a_log_below_a_retirement_was_rolled_back() -> None:
    storage = open_log_storage("memory://")
    filled(storage, 5)
    beyond = Checkpoint(ORIGIN, 6, bytes(32))
    keys = KEYS.adding(signer(2).verifier).retire(SIGNER.verifier, [beyond])
    with pytest.raises(LogCorrupt, match="rolled back from 6 to 5"):
        AuditLog.open(storage, ORIGIN, signer(2), keys)
    with pytest.raises(LogCorrupt, match="removed"):
        AuditLog.open(open_log_storage("memory://"), ORIGIN, signer(2), keys)


def test_a_key_that_nobody_would_trust_signs_nothing() -> None:
    storage = open_log_storage("memory://")
    with pytest.raises(Untrusted, match="not in the file of public keys"):
        AuditLog.open(storage, ORIGIN, signer(2), KEYS)
    with pytest.raises(Untrusted, match="another log"):
        AuditLog.open(storage, "other.example/decisions.block/0", SIGNER, KEYS)
    witness = Signer.generate(LOG, KeyType.COSIGNATURE_V1)
    with pytest.raises(Untrusted):
        AuditLog.open(storage, ORIGIN, witness, KeySet([witness.verifier]))


def test_a_retired_key_may_be_written_by_hand() -> None:
    keys = KeySet([TrustedKey(vkey=SIGNER.verifier.vkey, retired_at={})])
    with pytest.raises(Untrusted):
        open_checkpoint(sign_checkpoint(Checkpoint(ORIGIN, 0, EMPTY_ROOT), SIGNER), keys)


def test_a_stolen_key_counts_for_the_trees_of_its_retirement_alone(tmp_path: Path) -> None:
    keys = KEYS.adding(signer(2).verifier).retire(SIGNER.verifier, [HEAD], stolen=True)
    keys.save(tmp_path / "keys.json")
    for given in (keys, KeySet.load(tmp_path / "keys.json")):
        assert open_checkpoint(sign_checkpoint(HEAD, SIGNER), given) == HEAD
        for size in (0, 6):  # what the thief made up
            with pytest.raises(Untrusted, match="stolen"):
                open_checkpoint(sign_checkpoint(Checkpoint(ORIGIN, size, bytes(32)), SIGNER), given)
        assert given.retired_origins() == {ORIGIN}


def test_a_stolen_key_must_be_retired() -> None:
    with pytest.raises(KeyFileInvalid, match="retired_at must name"):
        KeySet([TrustedKey(vkey=SIGNER.verifier.vkey, stolen=True)])


def test_the_key_file_is_on_the_disk_before_it_replaces_the_old_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    synced: list[str] = []
    monkeypatch.setattr("os.fsync", lambda fd: synced.append(os.readlink(f"/proc/self/fd/{fd}")))
    KEYS.save(tmp_path / "keys.json")
    assert synced == [str(tmp_path / f"keys.json.new-{os.getpid()}"), str(tmp_path)]
