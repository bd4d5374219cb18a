"""A witness: keeps the newest checkpoint of each log and co-signs only what continues it.

A log without a witness outside its operator's reach proves that entries were not changed since a checkpoint that
somebody kept; it does not prove that everybody was shown the same log. A witness belongs on another host and account.
"""

from __future__ import annotations

import hashlib
import time
from collections.abc import Callable, Sequence

from pipeline.evidence.log.checkpoint import Checkpoint, open_checkpoint
from pipeline.evidence.log.cosignature import cosign
from pipeline.evidence.log.errors import ProofInvalid, Superseded, WitnessRefused
from pipeline.evidence.log.key_set import KeySet
from pipeline.evidence.log.keys import KeyType
from pipeline.evidence.log.merkle import EMPTY_ROOT, verify_consistency
from pipeline.evidence.log.note import parse_note
from pipeline.evidence.log.reader import LogReader
from pipeline.evidence.log.signer import Signer
from pipeline.evidence.log.storage import LogStorage, Token


class Witness:
    """Rules of https://c2sp.org/tlog-witness `add-checkpoint`, without its HTTP. Several may share one storage."""

    def __init__(
        self, storage: LogStorage, signer: Signer, verifiers: KeySet, *, clock: Callable[[], float] = time.time
    ) -> None:
        """A witness of the logs whose keys are in `verifiers`.

        Args:
            storage: of the witness, not of the log; keeps one checkpoint for each origin.
            signer: of type `COSIGNATURE_V1`.
            verifiers: keys of logs; a key's name begins the origins that it may sign.
            clock: seconds since the epoch.

        Raises:
            ValueError: `signer` is of another type.
        """
        if signer.verifier.type is not KeyType.COSIGNATURE_V1:
            raise ValueError(f"{signer.verifier.vkey} is the key of a log; a witness needs one of type COSIGNATURE_V1")
        self._storage = storage
        self._signer = signer
        self._verifiers = verifiers
        self._clock = clock

    def last(self, origin: str) -> Checkpoint | None:
        """The checkpoint that was co-signed last. Raises Untrusted when it was changed, LogUnavailable."""
        stored = self._stored(origin)
        return stored[0] if stored else None

    def add_checkpoint(self, note: bytes, old_size: int, path: Sequence[bytes]) -> bytes:
        """Co-sign a log's signed checkpoint, and remember it first.

        Args:
            note: as the log published it.
            old_size: of the checkpoint that the caller believes was co-signed last, 0 for none.
            path: consistency proof from there.

        Returns:
            The cosignature line, with its newline.

        Raises:
            Untrusted: unknown origin or key, a key that was retired, a wrong signature.
            WitnessRefused: the log shrank or forked, the path does not prove growth, or `old_size` is not what was
                co-signed last: ask again from the `size` of the error.
            LogUnavailable: see `LogStorage`.
        """
        new = open_checkpoint(note, self._verifiers)
        stored = self._stored(new.origin)
        old, token = stored or (Checkpoint(new.origin, 0, EMPTY_ROOT), None)
        _check_growth(old, new, old_size, path)
        if stored is None or old != new:
            self._keep(note, new, old, token)
        return cosign(new.encode(), self._signer, int(self._clock())).line()

    def origins(self) -> list[str]:
        """Of all trees that were ever co-signed: one that is gone was removed. Raises Untrusted, LogUnavailable."""
        stored = [self._storage.under(name).read_checkpoint() for name in self._storage.folders()]
        return sorted(Checkpoint.parse(parse_note(found[0]).text).origin for found in stored if found)

    def observe(self, reader: LogReader) -> bytes:
        """Co-sign the newest checkpoint of a log that this witness can read. Raises as its parts do."""
        new = reader.checkpoint()
        old = self.last(new.origin)
        size = old.size if old else 0
        if size > new.size:
            raise WitnessRefused(f"{new.origin} was rolled back from {size} to {new.size} leaves", size)
        return self.add_checkpoint(reader.signed_checkpoint(), size, reader.consistency_proof(size, new.size))

    def _stored(self, origin: str) -> tuple[Checkpoint, Token] | None:
        found = self._place(origin).read_checkpoint()
        return (open_checkpoint(found[0], self._verifiers, origin), found[1]) if found else None

    def _place(self, origin: str) -> LogStorage:
        return self._storage.under(hashlib.sha256(origin.encode()).hexdigest())

    def _keep(self, note: bytes, new: Checkpoint, old: Checkpoint, token: Token | None) -> None:
        try:
            self._place(new.origin).swap_checkpoint(note, token)
        except Superseded as error:
            message = f"{new.origin}: another checkpoint was co-signed at the same time; ask again"
            raise WitnessRefused(message, old.size) from error


def _check_growth(old: Checkpoint, new: Checkpoint, old_size: int, path: Sequence[bytes]) -> None:
    if new.size < old.size:
        raise WitnessRefused(f"{new.origin} was rolled back from {old.size} to {new.size} leaves", old.size)
    if old_size != old.size:
        message = f"{new.origin}: the proof starts at {old_size} leaves, the checkpoint co-signed last has {old.size}"
        raise WitnessRefused(message, old.size)
    try:
        verify_consistency(old.size, old.root, new.size, new.root, path)
    except ProofInvalid as error:
        raise WitnessRefused(f"{new.origin} does not continue what was co-signed: {error}", old.size) from error
