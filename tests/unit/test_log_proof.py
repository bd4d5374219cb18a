"""The proof file: what it proves, to whom, and that nothing in it can be changed."""

from __future__ import annotations

import base64

import pytest

from pipeline.evidence.log.checkpoint import Checkpoint, sign_checkpoint
from pipeline.evidence.log.cosignature import cosign
from pipeline.evidence.log.errors import LogCorrupt, NotInLog, ProofInvalid, Untrusted
from pipeline.evidence.log.key_set import KeySet
from pipeline.evidence.log.keys import KeyType
from pipeline.evidence.log.note import parse_note
from pipeline.evidence.log.proof import Proof, make_proof, verify_proof
from pipeline.evidence.log.signer import Signer
from pipeline.evidence.log.storage import LogStorage, open_log_storage
from tests.support.audit_logs import KEYS, ORIGIN, filled, leaves, reader, signer

WITNESS = signer(9, "witness.example/w1", KeyType.COSIGNATURE_V1)
SECOND = signer(8, "witness.example/w2", KeyType.COSIGNATURE_V1)
WITNESSES = KeySet([WITNESS.verifier, SECOND.verifier])


@pytest.fixture
def storage() -> LogStorage:
    storage = open_log_storage("memory://")
    filled(storage, 300)
    return storage


def test_the_file_has_the_specified_form(storage: LogStorage) -> None:
    here = reader(storage)
    lines = make_proof(here, 7).decode().split("\n")
    assert lines[0] == "c2sp.org/tlog-proof@v1"
    assert lines[1] == f"extra {base64.b64encode(leaves(7, 8)[0]).decode()}"
    assert lines[2] == "index 7"
    assert [base64.b64decode(line) for line in lines[3:12]] == here.inclusion_proof(7)
    assert "\n".join(lines[13:]).encode() == here.signed_checkpoint()
    assert lines[12:15] == ["", ORIGIN, "300"]


def test_file_and_public_key_are_enough(storage: LogStorage) -> None:
    head = reader(storage).checkpoint()
    for index in (0, 255, 256, 299):
        proof = make_proof(reader(storage), index)
        assert Proof.parse(proof).entry == leaves(index, index + 1)[0]
        assert Proof.parse(proof).encode() == proof
        assert verify_proof(proof, None, KEYS) == head == verify_proof(proof, leaves(index, index + 1)[0], KEYS)


def test_a_proof_stays_valid_while_the_log_grows(storage: LogStorage) -> None:
    proof = make_proof(reader(storage), 7)
    filled(storage, 400)
    assert verify_proof(proof, None, KEYS).size == 300


def test_an_entry_may_be_given_beside_the_file(storage: LogStorage) -> None:
    whole = Proof.parse(make_proof(reader(storage), 7))
    bare = Proof(None, whole.index, whole.path, whole.note).encode()
    assert verify_proof(bare, leaves(7, 8)[0], KEYS).size == 300
    with pytest.raises(ProofInvalid, match="holds no entry"):
        verify_proof(bare, None, KEYS)
    with pytest.raises(ProofInvalid):
        verify_proof(bare, leaves(8, 9)[0], KEYS)
    with pytest.raises(ProofInvalid, match="not the one"):
        verify_proof(whole.encode(), leaves(8, 9)[0], KEYS)


def test_another_key_proves_nothing(storage: LogStorage) -> None:
    with pytest.raises(Untrusted):
        verify_proof(make_proof(reader(storage), 7), None, KeySet([signer(2).verifier]))


def test_every_changed_bit_is_seen(storage: LogStorage) -> None:
    proof = make_proof(reader(storage), 299)
    for at in range(len(proof) * 8):
        changed = bytearray(proof)
        changed[at // 8] ^= 1 << at % 8
        with pytest.raises((ProofInvalid, Untrusted)):
            verify_proof(bytes(changed), None, KEYS)


def test_every_cut_is_seen(storage: LogStorage) -> None:
    proof = make_proof(reader(storage), 299)
    for at in range(len(proof)):
        with pytest.raises((ProofInvalid, Untrusted)):
            verify_proof(proof[:at], None, KEYS)


@pytest.mark.parametrize(
    ("text", "line"),
    [
        ("", "line 1"),
        ("c2sp.org/tlog-proof@v2\n\n", "line 1"),
        ("c2sp.org/tlog-proof@v1\n\n", "line 2"),
        ("c2sp.org/tlog-proof@v1\nextra ?\nindex 1\n\n", "line 2"),
        ("c2sp.org/tlog-proof@v1\nextra AA==\nindex 01\n\n", "line 3"),
        ("c2sp.org/tlog-proof@v1\nindex -1\n\n", "line 2"),
        ("c2sp.org/tlog-proof@v1\nindex 1\nAB==\n\n", "line 3"),
        ("c2sp.org/tlog-proof@v1\nindex 1\n", "cut"),
        ("x" * 300_000, "at most"),
    ],
)
def test_what_is_no_proof_file_says_where(text: str, line: str) -> None:
    with pytest.raises(ProofInvalid, match=line):
        Proof.parse(text.encode())


def test_no_proof_is_made_of_what_is_not_there(storage: LogStorage) -> None:
    with pytest.raises(NotInLog):
        make_proof(reader(storage), 300)
    data = bytearray(storage.read("tile/0/000"))
    data[255 * 32] ^= 1
    storage.discard("tile/0/000")
    storage.create("tile/0/000", bytes(data))
    with pytest.raises(LogCorrupt):
        make_proof(reader(storage), 7)


def cosigned(storage: LogStorage, *lines: bytes) -> bytes:
    return make_proof(reader(storage), 7, note=reader_note(storage) + b"".join(lines))


def line(storage: LogStorage, witness: Signer = WITNESS, timestamp: int = 1_700_000_000) -> bytes:
    text = parse_note(reader_note(storage)).text
    return cosign(text, witness, timestamp).line()


def reader_note(storage: LogStorage) -> bytes:
    here = reader(storage)
    here.checkpoint()
    return here.signed_checkpoint()


def test_a_quorum_of_different_witnesses_is_wanted(storage: LogStorage) -> None:
    one, again, two = line(storage), line(storage, timestamp=1_700_000_001), line(storage, SECOND)
    for lines, quorum in (((one,), 1), ((one, two), 2), ((), 0)):
        assert verify_proof(cosigned(storage, *lines), None, KEYS, witnesses=WITNESSES, quorum=quorum).size == 300
    for lines, quorum in (((), 1), ((one, again), 2), ((one,), 2)):
        with pytest.raises(ProofInvalid, match="witnesses"):
            verify_proof(cosigned(storage, *lines), None, KEYS, witnesses=WITNESSES, quorum=quorum)
    with pytest.raises(ProofInvalid, match="witnesses"):
        verify_proof(cosigned(storage, one), None, KEYS, quorum=1)


def test_a_cosignature_of_another_checkpoint_or_time_is_wrong(storage: LogStorage) -> None:
    old = line(storage)
    filled(storage, 301)
    with pytest.raises(ProofInvalid, match="cosignature"):
        verify_proof(cosigned(storage, old), None, KEYS, witnesses=WITNESSES, quorum=1)
    good = bytearray(base64.b64decode(line(storage).split(b" ")[2]))
    good[11] ^= 1  # the last byte of the time
    forged = f"— {WITNESS.verifier.name} {base64.b64encode(bytes(good)).decode()}\n".encode()
    with pytest.raises(ProofInvalid, match="cosignature"):
        verify_proof(cosigned(storage, forged), None, KEYS, witnesses=WITNESSES, quorum=1)


def test_the_key_of_a_log_is_no_witness(storage: LogStorage) -> None:
    with pytest.raises(ValueError, match="COSIGNATURE_V1"):
        line(storage, signer())
    with pytest.raises(ProofInvalid, match="witnesses"):
        verify_proof(cosigned(storage), None, KEYS, witnesses=KEYS, quorum=1)


def test_a_proof_under_an_earlier_cosigned_checkpoint_holds_though_the_log_grew(storage: LogStorage) -> None:
    note = reader_note(storage) + line(storage)
    filled(storage, 700)
    for index in (0, 299):
        proof = make_proof(reader(storage), index, note=note)
        assert verify_proof(proof, None, KEYS, witnesses=WITNESSES, quorum=1).size == 300
    with pytest.raises(NotInLog):
        make_proof(reader(storage), 300, note=note)


def test_no_proof_is_made_under_a_checkpoint_that_the_log_does_not_continue(storage: LogStorage) -> None:
    forked = sign_checkpoint(Checkpoint(ORIGIN, 299, bytes(32)), signer())
    with pytest.raises(LogCorrupt, match="forked"):
        make_proof(reader(storage), 7, note=forked)
    with pytest.raises(ProofInvalid, match="not of"):
        make_proof(reader(storage), 7, note=sign_checkpoint(Checkpoint(f"{ORIGIN}0", 299, bytes(32)), signer()))


def test_a_witness_key_that_was_retired_counts_no_longer(storage: LogStorage) -> None:
    retired = WITNESSES.retire(WITNESS.verifier, [Checkpoint(ORIGIN, 100, bytes(32))])
    proof = cosigned(storage, line(storage))
    with pytest.raises(ProofInvalid, match="witnesses"):
        verify_proof(proof, None, KEYS, witnesses=retired, quorum=1)
    assert verify_proof(cosigned(storage, line(storage, SECOND)), None, KEYS, witnesses=retired, quorum=1).size == 300
