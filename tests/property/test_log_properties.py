"""Any log, in any batches: one root, one set of files, proofs that verify, and none that verifies when changed."""

from __future__ import annotations

import tempfile
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pymerkle import InmemoryTree

from pipeline.evidence.log.checkpoint import Checkpoint, open_checkpoint, sign_checkpoint
from pipeline.evidence.log.edge import RightEdge
from pipeline.evidence.log.errors import LogError, ProofInvalid
from pipeline.evidence.log.merkle import leaf_hash, verify_consistency, verify_inclusion
from pipeline.evidence.log.proof import Proof, make_proof, verify_proof
from pipeline.evidence.log.storage import open_log_storage
from pipeline.evidence.log.verify_all import verify_all
from tests.support.audit_logs import (
    KEYS,
    ORIGIN,
    SIGNER,
    naive_consistency,
    naive_inclusion,
    objects_of,
    opened,
    reader,
)

ENTRIES = st.lists(st.binary(min_size=1, max_size=8), min_size=1, max_size=40)
HASHES = st.binary(min_size=32, max_size=32)


def batches(draw: st.DrawFn, size: int) -> list[tuple[int, int]]:
    cuts = sorted(draw(st.sets(st.integers(1, size - 1), max_size=6))) if size > 1 else []
    return list(zip([0, *cuts], [*cuts, size], strict=True))


@st.composite
def splits(draw: st.DrawFn) -> tuple[int, list[tuple[int, int]], list[tuple[int, int]]]:
    size = draw(st.integers(1, 800))
    return size, batches(draw, size), batches(draw, size)


def grown(entries: list[bytes], cuts: list[tuple[int, int]], reopen: bool) -> dict[str, bytes]:
    with tempfile.TemporaryDirectory() as place:
        storage = open_log_storage(Path(place).as_uri())
        log = opened(storage)
        for start, stop in cuts:
            log = opened(storage) if reopen else log
            log.append(entries[start:stop])
        return objects_of(Path(place))


@settings(max_examples=20)
@given(splits())
def test_batches_leave_no_trace_but_unfinished_tiles(
    split: tuple[int, list[tuple[int, int]], list[tuple[int, int]]],
) -> None:
    size, one, other = split
    entries = [b"%d" % number for number in range(size)]
    found, again = grown(entries, one, False), grown(entries, other, True)
    assert found["checkpoint"] == again["checkpoint"]
    in_one_go = grown(entries, [(0, size)], False)
    assert in_one_go.items() <= found.items()
    assert in_one_go.items() <= again.items()
    assert all(".p/" in path for path in (found.keys() | again.keys()) - in_one_go.keys())


@given(st.integers(0, 70_000), st.integers(1, 70_000))
@settings(max_examples=10)
def test_an_edge_grows_alike_in_any_two_steps(first: int, second: int) -> None:
    hashes = [leaf_hash(b"%d" % number) for number in range(first + second)]
    step, leap = RightEdge(), RightEdge()
    step.grow(hashes[:first])
    step.grow(hashes[first:])
    leap.grow(hashes)
    assert (step.size, step.root()) == (leap.size, leap.root())
    assert [row for row in step.levels if row] == [row for row in leap.levels if row]


@given(ENTRIES, st.data())
@settings(max_examples=60)
def test_proofs_are_the_rfcs_and_the_roots_pymerkles(entries: list[bytes], data: st.DataObject) -> None:
    storage = open_log_storage("memory://")
    head = opened(storage).append(entries)
    oracle = InmemoryTree(algorithm="sha256")
    for entry in entries:
        oracle.append_entry(entry)
    assert head.root == oracle.get_root()
    size = data.draw(st.integers(1, len(entries)))
    index, old = data.draw(st.integers(0, size - 1)), data.draw(st.integers(1, size))
    here = reader(storage)
    path = here.inclusion_proof(index, size)
    assert path == naive_inclusion(index, entries[:size])
    verify_inclusion(leaf_hash(entries[index]), index, size, path, oracle.get_root(size))
    path = here.consistency_proof(old, size)
    assert path == naive_consistency(old, entries[:size])
    verify_consistency(old, oracle.get_root(old), size, oracle.get_root(size), path)
    oracle.prove_inclusion(index + 1, size).verify(leaf_hash(entries[index]), oracle.get_root(size))


@given(st.integers(1, 2**40), st.data())
def test_no_made_up_path_verifies(size: int, data: st.DataObject) -> None:
    index, root = data.draw(st.integers(0, size - 1)), data.draw(HASHES)
    path = data.draw(st.lists(HASHES, max_size=64))
    with pytest.raises(ProofInvalid):
        verify_inclusion(leaf_hash(b"x"), index, size, path, root)
    old = data.draw(st.integers(0, size))
    with pytest.raises(ProofInvalid):
        verify_consistency(old, leaf_hash(b"x"), size, root, path)


@given(st.integers(0, 2**63 - 1), HASHES)
def test_checkpoints_come_back(size: int, root: bytes) -> None:
    checkpoint = Checkpoint(ORIGIN, size, root)
    assert open_checkpoint(sign_checkpoint(checkpoint, SIGNER), KEYS, ORIGIN) == checkpoint


@given(ENTRIES, st.data())
@settings(max_examples=60)
def test_a_proof_with_a_changed_byte_never_verifies(entries: list[bytes], data: st.DataObject) -> None:
    storage = open_log_storage("memory://")
    opened(storage).append(entries)
    proof = make_proof(reader(storage), data.draw(st.integers(0, len(entries) - 1)))
    at, mask = data.draw(st.integers(0, len(proof) - 1)), data.draw(st.integers(1, 255))
    changed = proof[:at] + bytes([proof[at] ^ mask]) + proof[at + 1 :]
    with pytest.raises(LogError):
        verify_proof(changed, None, KEYS)


@given(st.binary(max_size=200) | st.binary(max_size=100).map(lambda rest: b"c2sp.org/tlog-proof@v1\nindex 1\n" + rest))
def test_no_bytes_crash_the_readers(data: bytes) -> None:
    for read in (Proof.parse, lambda found: open_checkpoint(found, KEYS), Checkpoint.parse):
        try:
            read(data)
        except LogError:
            continue
        assert read == Proof.parse


@given(st.integers(1, 300), st.data())
@settings(max_examples=60)
def test_a_changed_byte_in_any_object_is_found(size: int, data: st.DataObject) -> None:
    entries = [b"entry %d" % number for number in range(size)]
    storage = open_log_storage("memory://")
    opened(storage).append(entries)
    path, width = data.draw(
        st.sampled_from(
            [("tile/0/000", 256), ("tile/entries/000", 256), ("tile/1/000.p/1", 1)]
            if size >= 256
            else [(f"tile/0/000.p/{size}", size), (f"tile/entries/000.p/{size}", size)]
        )
    )
    blob = bytearray(storage.read(path))
    at = data.draw(st.integers(0, len(blob) - 1))
    blob[at] ^= data.draw(st.integers(1, 255))
    storage.discard(path)
    storage.create(path, bytes(blob))
    found = verify_all(storage, ORIGIN, KEYS, leaves=False)
    assert not found.ok
    expected = 0 if path.startswith("tile/1/") else bad_entry(entries[:width], path, at)
    assert found.first_bad_index == expected


def bad_entry(entries: list[bytes], path: str, at: int) -> int:
    if path.startswith("tile/0/"):
        return at // 32
    for index, entry in enumerate(entries):
        at -= 2 + len(entry)
        if at < 0:
            return index
    raise AssertionError("the byte lies behind the bundle")
