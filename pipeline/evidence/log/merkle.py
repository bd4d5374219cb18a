"""RFC 6962 Merkle trees on SHA-256: hashing, and the verification of proofs (algorithms of RFC 9162, 2.1.3 and 2.1.4).

A hash is 32 bytes; a path is a sequence of hashes, the leaf's side first.
"""

from __future__ import annotations

import hashlib
import hmac
from collections.abc import Sequence

from pipeline.evidence.log.errors import ProofInvalid

HASH_BYTES = 32
EMPTY_ROOT = hashlib.sha256(b"").digest()
"""Root of the tree without leaves."""

_sha256 = hashlib.sha256


def leaf_hash(entry: bytes) -> bytes:
    """SHA-256(0x00 || entry)."""
    return _sha256(b"\x00" + entry).digest()


def node_hash(left: bytes, right: bytes) -> bytes:
    """SHA-256(0x01 || left || right)."""
    return _sha256(b"\x01" + left + right).digest()


def root_of(hashes: Sequence[bytes]) -> bytes:
    """Root over these leaf hashes; or over equal perfect subtrees, the last of which may be incomplete.

    Pairing level by level and carrying an odd last one up gives RFC 6962's tree, whose left part is always the
    largest power of two.
    """
    if not hashes:
        return EMPTY_ROOT
    level = list(hashes)
    while len(level) > 1:
        paired = [_sha256(b"\x01" + level[i] + level[i + 1]).digest() for i in range(0, len(level) - 1, 2)]
        if len(level) % 2:
            paired.append(level[-1])
        level = paired
    return level[0]


def verify_inclusion(leaf: bytes, index: int, size: int, path: Sequence[bytes], root: bytes) -> None:
    """Check that the leaf hash `leaf` is number `index` of the tree of `size` leaves with this root.

    Raises:
        ProofInvalid: it is not, or the path has the wrong length.
    """
    if not 0 <= index < size:
        raise ProofInvalid(f"index {index} is not in a tree of {size} leaves")
    found = leaf
    for sibling, on_left in zip(_checked(path), _sides(index, size - 1, len(path)), strict=True):
        found = node_hash(sibling, found) if on_left else node_hash(found, sibling)
    if not hmac.compare_digest(found, root):
        raise ProofInvalid(f"leaf {index} does not lead to the root of {size} leaves")


def verify_consistency(old_size: int, old_root: bytes, new_size: int, new_root: bytes, path: Sequence[bytes]) -> None:
    """Check that the tree of `new_size` leaves begins with the tree of `old_size` leaves.

    Raises:
        ProofInvalid: it does not, it is smaller, or the path has the wrong length.
    """
    if not 0 <= old_size <= new_size:
        raise ProofInvalid(f"a tree of {new_size} leaves cannot continue one of {old_size}")
    if old_size in (0, new_size):
        _verify_trivial(old_size, old_root, new_size, new_root, path)
        return
    hashes = _checked(path)
    if old_size & (old_size - 1) == 0:
        hashes = [old_root, *hashes]
    if not hashes:
        raise ProofInvalid(f"the path from {old_size} to {new_size} leaves is empty")
    at, last = old_size - 1, new_size - 1
    while at & 1:
        at, last = at >> 1, last >> 1
    old = new = hashes[0]
    for sibling, on_left in zip(hashes[1:], _sides(at, last, len(hashes) - 1), strict=True):
        old = node_hash(sibling, old) if on_left else old
        new = node_hash(sibling, new) if on_left else node_hash(new, sibling)
    if not hmac.compare_digest(old, old_root):
        raise ProofInvalid(f"the path does not lead to the root of the earlier {old_size} leaves")
    if not hmac.compare_digest(new, new_root):
        raise ProofInvalid(f"the tree of {new_size} leaves does not continue the one of {old_size}")


def _verify_trivial(old_size: int, old_root: bytes, new_size: int, new_root: bytes, path: Sequence[bytes]) -> None:
    if path:
        raise ProofInvalid(f"the path from {old_size} to {new_size} leaves must be empty, it has {len(path)} hashes")
    if old_size == 0 and not hmac.compare_digest(old_root, EMPTY_ROOT):
        raise ProofInvalid("the earlier tree has no leaves, and not the root of such a tree")
    if old_size == new_size and not hmac.compare_digest(old_root, new_root):
        raise ProofInvalid(f"two trees of {new_size} leaves have different roots: the log was forked")


def _sides(at: int, last: int, count: int) -> list[bool]:
    """Whether each of `count` siblings stands on the left, going up from node `at` of a level that ends with `last`."""
    sides: list[bool] = []
    for _ in range(count):
        if last == 0:
            raise ProofInvalid(f"the path is too long: {count} hashes for {len(sides)} levels")
        on_left = bool(at & 1) or at == last
        sides.append(on_left)
        while on_left and at and not at & 1:
            at, last = at >> 1, last >> 1
        at, last = at >> 1, last >> 1
    if last:
        raise ProofInvalid(f"the path is too short: {count} hashes do not reach the root")
    return sides


def _checked(path: Sequence[bytes]) -> list[bytes]:
    for number, value in enumerate(path):
        if len(value) != HASH_BYTES:
            raise ProofInvalid(f"hash {number} of the path has {len(value)} bytes instead of {HASH_BYTES}")
    return list(path)
