from __future__ import annotations

import hashlib
from pathlib import Path

import pytest

from pipeline.evidence.log.audit_log import AuditLog
from pipeline.evidence.log.checkpoint import Checkpoint, sign_checkpoint
from pipeline.evidence.log.cosignature import cosigners
from pipeline.evidence.log.errors import LogCorrupt, Superseded, Untrusted, WitnessRefused
from pipeline.evidence.log.key_set import KeySet
from pipeline.evidence.log.keys import KeyType
from pipeline.evidence.log.reader import LogReader
from pipeline.evidence.log.storage import LogStorage, Token, open_log_storage
from pipeline.evidence.log.witness import Witness
from tests.support.audit_logs import KEYS, LOG, ORIGIN, SIGNER, filled, leaves, opened, reader, signer

KEY = signer(9, "witness.example/w1", KeyType.COSIGNATURE_V1)
COSIGNERS = KeySet([KEY.verifier])
NOW = 1_700_000_000.9


@pytest.fixture(params=["directory", "memory"])
def place(request: pytest.FixtureRequest, tmp_path: Path) -> LogStorage:
    return open_log_storage((tmp_path / "witness").as_uri() if request.param == "directory" else "memory://")


@pytest.fixture
def log() -> LogStorage:
    storage = open_log_storage("memory://")
    filled(storage, 10)
    return storage


@pytest.fixture
def witness(place: LogStorage) -> Witness:
    return Witness(place, KEY, KEYS, clock=lambda: NOW)


def note(storage: LogStorage) -> bytes:
    found = storage.read_checkpoint()
    assert found is not None
    return found[0]


def test_growth_is_cosigned_with_its_time(witness: Witness, log: LogStorage) -> None:
    for size in (10, 11, 300):
        filled(log, size)
        line = witness.observe(reader(log))
        assert cosigners(note(log) + line, COSIGNERS) == {"witness.example/w1": 1_700_000_000}
        assert witness.last(ORIGIN) == reader(log).checkpoint()


def test_the_same_checkpoint_is_cosigned_again(witness: Witness, log: LogStorage) -> None:
    assert witness.observe(reader(log)) == witness.observe(reader(log))


def test_what_a_witness_kept_outlives_it(witness: Witness, place: LogStorage, log: LogStorage) -> None:
    kept = reader(log).checkpoint()
    witness.observe(reader(log))
    again = Witness(place, KEY, KEYS)
    assert again.last(ORIGIN) == kept
    filled(log, 20)
    assert opened(log, kept=[kept]).size == 20


def test_a_log_that_shrank_is_refused(witness: Witness, log: LogStorage) -> None:
    small = note(log)
    filled(log, 20)
    witness.observe(reader(log))
    with pytest.raises(WitnessRefused, match="rolled back from 20 to 10") as caught:
        witness.add_checkpoint(small, 10, [])
    assert caught.value.size == 20
    shorter = open_log_storage("memory://")
    filled(shorter, 10)
    with pytest.raises(WitnessRefused, match="rolled back"):
        witness.observe(reader(shorter))


@pytest.mark.parametrize("size", [10, 20])
def test_a_log_that_forked_is_refused(witness: Witness, log: LogStorage, size: int) -> None:
    witness.observe(reader(log))
    forked = open_log_storage("memory://")
    opened(forked).append(leaves(100, 100 + size))
    with pytest.raises(WitnessRefused, match=r"does not continue|forked"):
        witness.observe(reader(forked))
    assert witness.last(ORIGIN) == reader(log).checkpoint()


def test_a_proof_from_elsewhere_is_refused_with_the_size_to_start_from(witness: Witness, log: LogStorage) -> None:
    witness.observe(reader(log))
    filled(log, 20)
    path = reader(log).consistency_proof(10, 20)
    for old_size, proof in ((0, []), (9, path), (20, [])):
        with pytest.raises(WitnessRefused) as caught:
            witness.add_checkpoint(note(log), old_size, proof)
        assert caught.value.size == 10
    for wrong in (path[:-1], [*path, path[0]], []):
        with pytest.raises(WitnessRefused, match="does not continue"):
            witness.add_checkpoint(note(log), 10, wrong)
    assert witness.add_checkpoint(note(log), 10, path)


def test_unknown_origins_and_keys_are_refused(witness: Witness, log: LogStorage) -> None:
    head = reader(log).checkpoint()
    foreign = signer(1, "other.example/audit")
    unknown = Checkpoint("other.example/audit/decisions.block/0", 10, head.root)
    for signed in (
        sign_checkpoint(unknown, foreign),
        sign_checkpoint(unknown, SIGNER),
        sign_checkpoint(head, signer(2)),
    ):
        with pytest.raises(Untrusted):
            witness.add_checkpoint(signed, 0, [])
    assert witness.last(ORIGIN) is None


def test_trees_are_kept_apart(witness: Witness, log: LogStorage) -> None:
    witness.observe(reader(log))
    other = Checkpoint(f"{LOG}/decisions.block/1", 3, bytes(32))
    assert witness.add_checkpoint(sign_checkpoint(other, SIGNER), 0, [])
    assert witness.last(other.origin) == other
    assert witness.last(ORIGIN) == reader(log).checkpoint()


def test_a_retired_key_goes_no_further(place: LogStorage, log: LogStorage) -> None:
    retired = reader(log).checkpoint()
    keys = KEYS.adding(signer(2).verifier).retire(SIGNER.verifier, [retired])
    witness = Witness(place, KEY, keys)
    witness.add_checkpoint(note(log), 0, [])
    AuditLog.open(log, ORIGIN, signer(2), keys).append(leaves(10, 20))
    path = LogReader(log, ORIGIN, keys).consistency_proof(10, 20)
    head = LogReader(log, ORIGIN, keys).checkpoint()
    with pytest.raises(Untrusted, match="old key"):
        witness.add_checkpoint(sign_checkpoint(head, SIGNER), 10, path)
    assert witness.add_checkpoint(note(log), 10, path)


def test_what_the_witness_kept_is_verified_when_it_is_read(
    witness: Witness, place: LogStorage, log: LogStorage
) -> None:
    witness.observe(reader(log))
    mine = place.under(hashlib.sha256(ORIGIN.encode()).hexdigest())
    stored = mine.read_checkpoint()
    assert stored is not None
    mine.swap_checkpoint(stored[0].replace(b"\n10\n", b"\n09\n"), stored[1])
    with pytest.raises(Untrusted):
        witness.observe(reader(log))


def test_a_witness_remembers_every_tree_also_one_without_leaves(witness: Witness, log: LogStorage) -> None:
    empty = open_log_storage("memory://")
    other = f"{LOG}/decisions.pass/3"
    AuditLog.open(empty, other, SIGNER, KEYS)
    assert witness.origins() == []
    witness.observe(reader(log))
    witness.observe(LogReader(empty, other, KEYS))
    assert witness.origins() == [ORIGIN, other]


class Racing:
    """Another request is served between this one's check and its keeping."""

    def __init__(self, inner: LogStorage) -> None:
        self.inner = inner

    def under(self, prefix: str) -> LogStorage:
        return Racing(self.inner.under(prefix))  # type: ignore[return-value]

    def read_checkpoint(self) -> tuple[bytes, Token] | None:
        return self.inner.read_checkpoint()

    def swap_checkpoint(self, new: bytes, token: Token | None) -> Token:
        raise Superseded("somebody was faster")


def test_of_two_requests_at_once_one_is_refused(place: LogStorage, log: LogStorage) -> None:
    with pytest.raises(WitnessRefused, match="same time"):
        Witness(Racing(place), KEY, KEYS).observe(reader(log))  # type: ignore[arg-type]


def test_the_key_of_a_log_cannot_witness(place: LogStorage) -> None:
    with pytest.raises(ValueError, match="COSIGNATURE_V1"):
        Witness(place, SIGNER, KEYS)


def test_a_log_whose_tiles_do_not_fit_is_not_cosigned(witness: Witness, log: LogStorage) -> None:
    witness.observe(reader(log))
    filled(log, 20)
    log.discard("tile/0/000.p/20")
    log.create("tile/0/000.p/20", bytes(20 * 32))
    with pytest.raises(LogCorrupt):
        witness.observe(reader(log))
