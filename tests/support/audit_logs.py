"""Small logs with a fixed key, and entries that are leaves of ours."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from functools import cache
from pathlib import Path

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from pipeline.evidence.log.audit_log import AuditLog, Hook
from pipeline.evidence.log.checkpoint import Checkpoint
from pipeline.evidence.log.key_set import KeySet
from pipeline.evidence.log.keys import KeyType
from pipeline.evidence.log.leaf import Leaf
from pipeline.evidence.log.merkle import EMPTY_ROOT, leaf_hash, node_hash
from pipeline.evidence.log.reader import LogReader
from pipeline.evidence.log.signer import Signer
from pipeline.evidence.log.storage import LogStorage
from schemas.topics import Topic

LOG = "logs.example/audit"
ORIGIN = f"{LOG}/{Topic.BLOCK.value}/0"

RFC_LEAVES = [bytes.fromhex(leaf) for leaf in ("", "00", "10", "2021", "3031", "40414243", "5051525354555657")] + [
    bytes.fromhex("606162636465666768696a6b6c6d6e6f")
]
"""The leaves of the Certificate Transparency test tree."""


def signer(seed: int = 1, name: str = LOG, key_type: KeyType = KeyType.ED25519) -> Signer:
    """Always the same key for the same seed."""
    return Signer(name, Ed25519PrivateKey.from_private_bytes(bytes([seed]) * 32), key_type)


SIGNER = signer()
KEYS = KeySet([SIGNER.verifier])


def leaves(start: int, stop: int) -> list[bytes]:
    """Entries `start` to `stop - 1`; offsets leave gaps, as transaction markers do."""
    return [_leaf(number) for number in range(start, stop)]


@cache
def _leaf(number: int) -> bytes:
    digest = hashlib.sha256(b"%d" % number).hexdigest()
    return Leaf(topic=Topic.BLOCK, partition=0, offset=2 * number, record_sha256=digest).encode()


def opened(storage: LogStorage, hook: Hook | None = None, kept: Sequence[Checkpoint] = ()) -> AuditLog:
    return AuditLog.open(storage, ORIGIN, SIGNER, KEYS, hook=hook, kept=kept)


def reader(storage: LogStorage) -> LogReader:
    return LogReader(storage, ORIGIN, KEYS)


def filled(storage: LogStorage, size: int, batch: int = 100) -> AuditLog:
    """A log of `size` of our leaves."""
    log = opened(storage)
    for start in range(log.size, size, batch):
        log.append(leaves(start, min(size, start + batch)))
    return log


def objects_of(directory: Path) -> dict[str, bytes]:
    """Every object of a log in a directory, without what its storage keeps for itself."""
    files = [path for path in directory.rglob("*") if path.is_file() and path.name != ".lock"]
    return {path.relative_to(directory).as_posix(): path.read_bytes() for path in files}


def naive_root(entries: Sequence[bytes]) -> bytes:
    """MTH of RFC 6962, 2.1, word for word."""
    if not entries:
        return EMPTY_ROOT
    if len(entries) == 1:
        return leaf_hash(entries[0])
    left = _left(len(entries))
    return node_hash(naive_root(entries[:left]), naive_root(entries[left:]))


def naive_inclusion(index: int, entries: Sequence[bytes]) -> list[bytes]:
    """PATH of RFC 6962, 2.1.1, word for word."""
    if len(entries) == 1:
        return []
    left = _left(len(entries))
    if index < left:
        return [*naive_inclusion(index, entries[:left]), naive_root(entries[left:])]
    return [*naive_inclusion(index - left, entries[left:]), naive_root(entries[:left])]


def naive_consistency(old: int, entries: Sequence[bytes], whole: bool = True) -> list[bytes]:
    """SUBPROOF of RFC 6962, 2.1.2, word for word."""
    if old == len(entries):
        return [] if whole else [naive_root(entries)]
    left = _left(len(entries))
    if old <= left:
        return [*naive_consistency(old, entries[:left], whole), naive_root(entries[left:])]
    return [*naive_consistency(old - left, entries[left:], False), naive_root(entries[:left])]


def _left(size: int) -> int:
    left = 1
    while left * 2 < size:
        left *= 2
    return left
