"""Hashes and proofs against RFC 6962's text, the Certificate Transparency test tree, and pymerkle."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from functools import cache

import pytest
from pymerkle import InmemoryTree

from pipeline.evidence.log.edge import RightEdge
from pipeline.evidence.log.errors import ProofInvalid
from pipeline.evidence.log.merkle import EMPTY_ROOT, leaf_hash, node_hash, root_of, verify_consistency, verify_inclusion
from pipeline.evidence.log.storage import open_log_storage
from pipeline.evidence.log.tiles import TILE_WIDTH
from pipeline.evidence.log.tree_reader import ObjectCache, TreeReader
from tests.support.audit_logs import RFC_LEAVES, naive_consistency, naive_inclusion, naive_root

RFC_ROOTS = [
    "6e340b9cffb37a989ca544e6bb780a2c78901d3fb33738768511a30617afa01d",
    "fac54203e7cc696cf0dfcb42c92a1d9dbaf70ad9e621f4bd8d98662f00e3c125",
    "aeb6bcfe274b70a14fb067a5e5578264db0fa9b51af5e0ba159158f329e06e77",
    "d37ee418976dd95753c1c73862b9398fa2a2cf9b4ff0fdfe8b30cd95209614b7",
    "4e3bbb1f7b478dcfe71fb631631519a3bca12c9aefca1612bfce4c13a86264d4",
    "76e67dadbcdf1e10e1b74ddc608abd2f98dfb16fbce75277b5232a127f2087ef",
    "ddb89be403809e325750d3d263cd78929c2942b7942a34b77e122c9594a74c8c",
    "5dc9da79a70659a9ad559cb701ded9a2ab9d823aad2f4960cfe370eff4604328",
]
"""Root of the first 1 to 8 leaves, as Certificate Transparency's own tests have them."""

RFC_INCLUSION = [
    (0, 1, []),
    (
        *(0, 8),
        [
            "96a296d224f285c67bee93c30f8a309157f0daa35dc5b87e410b78630a09cfc7",
            "5f083f0a1a33ca076a95279832580db3e0ef4584bdff1f54c8a360f50de3031e",
            "6b47aaf29ee3c2af9af889bc1fb9254dabd31177f16232dd6aab035ca39bf6e4",
        ],
    ),
    (
        *(5, 8),
        [
            "bc1a0643b12e4d2d7c77918f44e0f4f79a838b6cf9ec5b5c283e1f4d88599e6b",
            "ca854ea128ed050b41b35ffc1b87b8eb2bde461e9e3b5596ece6b9d5975a0ae0",
            "d37ee418976dd95753c1c73862b9398fa2a2cf9b4ff0fdfe8b30cd95209614b7",
        ],
    ),
    (2, 3, ["fac54203e7cc696cf0dfcb42c92a1d9dbaf70ad9e621f4bd8d98662f00e3c125"]),
    (
        *(1, 5),
        [
            "6e340b9cffb37a989ca544e6bb780a2c78901d3fb33738768511a30617afa01d",
            "5f083f0a1a33ca076a95279832580db3e0ef4584bdff1f54c8a360f50de3031e",
            "bc1a0643b12e4d2d7c77918f44e0f4f79a838b6cf9ec5b5c283e1f4d88599e6b",
        ],
    ),
]
RFC_CONSISTENCY = [
    (1, 1, []),
    (
        *(1, 8),
        [
            "96a296d224f285c67bee93c30f8a309157f0daa35dc5b87e410b78630a09cfc7",
            "5f083f0a1a33ca076a95279832580db3e0ef4584bdff1f54c8a360f50de3031e",
            "6b47aaf29ee3c2af9af889bc1fb9254dabd31177f16232dd6aab035ca39bf6e4",
        ],
    ),
    (
        *(6, 8),
        [
            "0ebc5d3437fbe2db158b9f126a1d118e308181031d0a949f8dededebc558ef6a",
            "ca854ea128ed050b41b35ffc1b87b8eb2bde461e9e3b5596ece6b9d5975a0ae0",
            "d37ee418976dd95753c1c73862b9398fa2a2cf9b4ff0fdfe8b30cd95209614b7",
        ],
    ),
    (
        *(2, 5),
        [
            "5f083f0a1a33ca076a95279832580db3e0ef4584bdff1f54c8a360f50de3031e",
            "bc1a0643b12e4d2d7c77918f44e0f4f79a838b6cf9ec5b5c283e1f4d88599e6b",
        ],
    ),
]
SIZES = [1, 2, 3, 7, 255, 256, 257, 511, 512, 513, 1000]


def stored(entries: Sequence[bytes]) -> TreeReader:
    storage = open_log_storage("memory://")
    for tile in RightEdge().grow([leaf_hash(entry) for entry in entries]):
        storage.create(tile.path, b"".join(tile.hashes))
    return TreeReader(ObjectCache(storage, 64), len(entries))


@cache
def numbered(size: int) -> tuple[list[bytes], TreeReader, InmemoryTree]:
    entries = [b"entry %d" % number for number in range(size)]
    tree = InmemoryTree(algorithm="sha256")
    for entry in entries:
        tree.append_entry(entry)
    return entries, stored(entries), tree


def test_hashes_are_prefixed_so_that_no_node_is_a_leaf() -> None:
    assert leaf_hash(b"x") == hashlib.sha256(b"\0x").digest()
    assert node_hash(b"l" * 32, b"r" * 32) == hashlib.sha256(b"\1" + b"l" * 32 + b"r" * 32).digest()
    assert EMPTY_ROOT.hex() == "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"
    assert root_of([]) == EMPTY_ROOT == RightEdge().root()


@pytest.mark.parametrize("size", range(1, 9))
def test_roots_of_the_rfc_tree(size: int) -> None:
    edge = RightEdge()
    edge.grow([leaf_hash(leaf) for leaf in RFC_LEAVES[:size]])
    assert edge.root().hex() == root_of([leaf_hash(leaf) for leaf in RFC_LEAVES[:size]]).hex() == RFC_ROOTS[size - 1]


@pytest.mark.parametrize(("index", "size", "path"), RFC_INCLUSION)
def test_inclusion_in_the_rfc_tree(index: int, size: int, path: list[str]) -> None:
    assert [value.hex() for value in stored(RFC_LEAVES).inclusion_path(index, size)] == path
    hashes = [bytes.fromhex(value) for value in path]
    verify_inclusion(leaf_hash(RFC_LEAVES[index]), index, size, hashes, bytes.fromhex(RFC_ROOTS[size - 1]))


@pytest.mark.parametrize(("old", "new", "path"), RFC_CONSISTENCY)
def test_consistency_in_the_rfc_tree(old: int, new: int, path: list[str]) -> None:
    assert [value.hex() for value in stored(RFC_LEAVES).consistency_path(old, new)] == path
    roots = [bytes.fromhex(RFC_ROOTS[size - 1]) for size in (old, new)]
    verify_consistency(old, roots[0], new, roots[1], [bytes.fromhex(value) for value in path])


@pytest.mark.parametrize("size", SIZES)
def test_roots_and_inclusion_are_pymerkles(size: int) -> None:
    entries, tree, oracle = numbered(size)
    assert tree.root() == oracle.get_root()
    for index in {0, 1, size // 2, 255, 256, size - 2, size - 1} & set(range(size)):
        path = tree.inclusion_path(index, size)
        theirs = oracle.prove_inclusion(index + 1)
        assert theirs.path == [leaf_hash(entries[index]), *path]
        theirs.verify(leaf_hash(entries[index]), tree.root())
        verify_inclusion(leaf_hash(entries[index]), index, size, path, oracle.get_root())


@pytest.mark.parametrize("size", SIZES)
def test_consistency_with_every_kind_of_earlier_tree(size: int) -> None:
    """pymerkle's paths have another form; its roots and its verdict on ours are the oracle, the RFC's text the form."""
    entries, tree, oracle = numbered(size)
    for old in {1, 2, 3, size // 2, size // 2 + 1, 255, 256, 257, 512, size - 1, size} & set(range(1, size + 1)):
        path = tree.consistency_path(old, size)
        assert path == naive_consistency(old, entries)
        verify_consistency(old, oracle.get_root(old), size, oracle.get_root(), path)
        oracle.prove_consistency(old, size).verify(tree.root(old), tree.root())


def test_every_proof_of_a_small_tree_is_the_rfcs() -> None:
    entries = [b"%d" % number for number in range(20)]
    tree = stored(entries)
    for size in range(1, 21):
        assert tree.root(size) == naive_root(entries[:size])
        for index in range(size):
            assert tree.inclusion_path(index, size) == naive_inclusion(index, entries[:size])
        for old in range(1, size + 1):
            assert tree.consistency_path(old, size) == naive_consistency(old, entries[:size])


def test_an_inclusion_proof_proves_one_leaf_at_one_place() -> None:
    entries, tree, _ = numbered(7)
    root, leaf, path = tree.root(), leaf_hash(entries[4]), tree.inclusion_path(4, 7)
    verify_inclusion(leaf, 4, 7, path, root)
    for wrong in (
        (leaf_hash(entries[5]), 4, 7, path, root),
        (leaf, 5, 7, path, root),
        (leaf, 4, 6, path, root),
        (leaf, 4, 7, path[:-1], root),
        (leaf, 4, 7, [*path, path[0]], root),
        (leaf, 4, 7, path[::-1], root),
        (leaf, 4, 7, path, EMPTY_ROOT),
        (leaf, 7, 7, path, root),
        (leaf, -1, 7, path, root),
        (leaf, 4, 7, [path[0][:31], *path[1:]], root),
    ):
        with pytest.raises(ProofInvalid):
            verify_inclusion(*wrong)


def test_a_consistency_proof_proves_one_growth() -> None:
    """Roots say nothing of sizes: 3 -> 6 has the shape of 3 -> 7, so sizes count only inside a signed checkpoint."""
    _, tree, _ = numbered(7)
    old, new, path = tree.root(3), tree.root(), tree.consistency_path(3, 7)
    verify_consistency(3, old, 7, new, path)
    for wrong in (
        (3, new, 7, new, path),
        (3, old, 7, old, path),
        (4, old, 7, new, path),
        (7, new, 3, old, path),
        (3, old, 7, new, path[:-1]),
        (3, old, 7, new, [*path, path[0]]),
        (3, old, 9, new, path),
        (3, old, 7, new, []),
        (4, tree.root(4), 7, new, []),
        (7, new, 7, old, []),
        (7, new, 7, new, path),
        (0, old, 7, new, []),
        (-1, old, 7, new, []),
    ):
        with pytest.raises(ProofInvalid):
            verify_consistency(*wrong)
    verify_consistency(0, EMPTY_ROOT, 7, new, [])


def test_a_proof_reads_few_tiles_of_a_large_tree() -> None:
    hashes = [leaf_hash(b"%d" % number) for number in range(70_000)]
    storage = open_log_storage("memory://")
    read: list[str] = []

    class Counting:
        def read(self, path: str) -> bytes:
            read.append(path)
            return storage.read(path)

    for tile in RightEdge().grow(hashes):
        storage.create(tile.path, b"".join(tile.hashes))
    cache_of_few = ObjectCache(Counting(), 3)
    tree = TreeReader(cache_of_few, len(hashes))
    verify_inclusion(hashes[12_345], 12_345, len(hashes), tree.inclusion_path(12_345, len(hashes)), tree.root())
    assert len(set(read)) == 5
    assert len(hashes) // TILE_WIDTH == 273
    assert len(cache_of_few._held) == 3
