"""How fast the log is, and how its proofs grow: measured on a real storage with synthetic leaves."""

from __future__ import annotations

import hashlib
import random
import time
import uuid
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from statistics import median
from typing import TypeVar

from pipeline.evidence.log.audit_log import AuditLog
from pipeline.evidence.log.errors import LogCorrupt
from pipeline.evidence.log.key_set import KeySet
from pipeline.evidence.log.leaf import Leaf, LeafEvidence, origin_of
from pipeline.evidence.log.proof import Proof, make_proof, verify_proof
from pipeline.evidence.log.reader import LogReader
from pipeline.evidence.log.signer import Signer
from pipeline.evidence.log.storage import LogStorage, Token
from pipeline.evidence.log.verify_all import verify_all
from schemas.decision import Outcome
from schemas.topics import Topic

_LOG = "bench.example/audit"
ORIGIN = origin_of(_LOG, Topic.BLOCK, 0)
_SEED = 6962
T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class LogTiming:
    """One size of tree. Times are medians except where they are of the whole; a proof is made by a new reader."""

    leaves: int
    batch: int
    leaf_bytes: float
    append_s: float
    leaves_per_s: float
    open_ms: float
    proof_ms: float
    proof_reads: int
    proof_hashes: int
    proof_bytes: int
    verify_ms: float
    consistency_hashes: int
    verify_all_s: float
    tree_bytes: int
    entry_bytes: int
    objects: int


class CountingStorage:
    """`LogStorage` that counts; sizes are of what lies there, unfinished objects that were replaced not among it."""

    def __init__(self, inner: LogStorage) -> None:
        """Everything is passed on to `inner`."""
        self._inner = inner
        self.reads = 0
        self.sizes: dict[str, int] = {}

    def read(self, path: str) -> bytes:
        """See `LogStorage`."""
        self.reads += 1
        return self._inner.read(path)

    def create(self, path: str, data: bytes) -> None:
        """See `LogStorage`."""
        self._inner.create(path, data)
        self.sizes[path] = len(data)

    def discard(self, path: str) -> None:
        """See `LogStorage`."""
        self._inner.discard(path)
        self.sizes.pop(path, None)

    def read_checkpoint(self) -> tuple[bytes, Token] | None:
        """See `LogStorage`."""
        self.reads += 1
        return self._inner.read_checkpoint()

    def swap_checkpoint(self, new: bytes, token: Token | None) -> Token:
        """See `LogStorage`."""
        return self._inner.swap_checkpoint(new, token)

    def folders(self) -> list[str]:
        """See `LogStorage`."""
        return self._inner.folders()

    def under(self, prefix: str) -> LogStorage:
        """See `LogStorage`."""
        return CountingStorage(self._inner.under(prefix))


def measure(storage: LogStorage, leaves: int, *, batch: int = 1000, proofs: int = 100) -> LogTiming:
    """Fill an empty storage with `leaves` synthetic leaves in appends of `batch`, then prove `proofs` random ones.

    Making the leaves is not part of the append's time.

    Raises:
        ValueError: fewer than one leaf, batch or proof.
        LogError: see `AuditLog`.
    """
    if min(leaves, batch, proofs) < 1:
        raise ValueError("leaves, batch and proofs must each be at least 1")
    counting = CountingStorage(storage)
    signer = Signer.generate(_LOG)
    keys = KeySet([signer.verifier])
    append_s, total = _append(AuditLog.open(counting, ORIGIN, signer, keys), leaves, batch)
    open_s, _ = _timed(lambda: AuditLog.open(counting, ORIGIN, signer, keys))
    numbers = random.Random(_SEED)  # noqa: S311 - which leaves to prove is no secret
    chosen = [numbers.randrange(leaves) for _ in range(proofs)]
    rows = [_prove(counting, keys, index) for index in chosen]
    reader = LogReader(counting, ORIGIN, keys)
    all_s, found = _timed(lambda: verify_all(counting, ORIGIN, keys))
    if not found.ok:
        raise LogCorrupt(f"the log that was just written does not verify: {found.faults[0].message}")
    return LogTiming(
        leaves=leaves,
        batch=batch,
        leaf_bytes=round(total / leaves, 1),
        append_s=round(append_s, 3),
        leaves_per_s=round(leaves / append_s),
        open_ms=round(open_s * 1e3, 3),
        proof_ms=round(median(row[0] for row in rows) * 1e3, 3),
        proof_reads=max(row[1] for row in rows),
        proof_hashes=max(row[2] for row in rows),
        proof_bytes=max(row[3] for row in rows),
        verify_ms=round(median(row[4] for row in rows) * 1e3, 3),
        consistency_hashes=max(len(reader.consistency_proof(index + 1, leaves)) for index in chosen),
        verify_all_s=round(all_s, 3),
        tree_bytes=sum(size for path, size in counting.sizes.items() if not path.startswith("tile/entries/")),
        entry_bytes=sum(size for path, size in counting.sizes.items() if path.startswith("tile/entries/")),
        objects=len(counting.sizes),
    )


def synthetic_leaves(start: int, stop: int) -> Iterator[bytes]:
    """Leaves of block decisions with three objects of evidence each, the same at every call."""
    for offset in range(start, stop):
        digest = hashlib.sha256(b"%d" % offset).hexdigest()
        yield Leaf(
            topic=Topic.BLOCK,
            partition=0,
            offset=offset,
            record_sha256=digest,
            decision_uid=str(uuid.UUID(digest[:32])),
            tenant="bench",
            media_id_sha256=digest,
            outcome=Outcome.BLOCK,
            sequence=0,
            bundle="bench-1",
            policy="bench-1",
            evidence=tuple(LeafEvidence(kind=kind, sha256=digest) for kind in ("manifest", "panel", "trace")),
            content_sha256=digest,
        ).encode()


def _append(log: AuditLog, leaves: int, batch: int) -> tuple[float, int]:
    elapsed, total = 0.0, 0
    for start in range(0, leaves, batch):
        entries = list(synthetic_leaves(start, min(leaves, start + batch)))
        total += sum(map(len, entries))
        took, _ = _timed(partial(log.append, entries))
        elapsed += took
    return elapsed, total


def _prove(storage: CountingStorage, keys: KeySet, index: int) -> tuple[float, int, int, int, float]:
    """Seconds, reads, hashes and bytes of one proof, and the seconds to verify it."""
    storage.reads = 0
    took, proof = _timed(lambda: make_proof(LogReader(storage, ORIGIN, keys), index))
    reads = storage.reads
    verified_in, _ = _timed(lambda: verify_proof(proof, None, keys))
    return took, reads, len(Proof.parse(proof).path), len(proof), verified_in


def _timed(call: Callable[[], T]) -> tuple[float, T]:
    begin = time.perf_counter()
    found = call()
    return time.perf_counter() - begin, found
