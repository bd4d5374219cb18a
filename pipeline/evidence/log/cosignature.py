"""C2SP cosignature/v1: a witness says that, at a time, this was the largest consistent tree it had seen."""

from __future__ import annotations

from contextlib import suppress

from pipeline.evidence.log.checkpoint import Checkpoint
from pipeline.evidence.log.errors import ProofInvalid, Untrusted
from pipeline.evidence.log.key_set import KeySet
from pipeline.evidence.log.keys import KeyType
from pipeline.evidence.log.note import NoteSignature, parse_note
from pipeline.evidence.log.signer import Signer

_TIME_BYTES = 8


def cosign(text: bytes, signer: Signer, timestamp: int) -> NoteSignature:
    """Sign a checkpoint's text at `timestamp`, in seconds since the epoch.

    Raises:
        ValueError: the key is not of type `COSIGNATURE_V1`; a log's key must not be a witness's.
    """
    key = signer.verifier
    if key.type is not KeyType.COSIGNATURE_V1:
        raise ValueError(f"{key.vkey} is the key of a log; a witness needs one of type COSIGNATURE_V1")
    signature = signer.sign(_message(text, timestamp))
    return NoteSignature(key.name, key.key_id, timestamp.to_bytes(_TIME_BYTES, "big") + signature)


def cosigners(note: bytes, witnesses: KeySet) -> dict[str, int]:
    """Name -> time in seconds since the epoch of every known witness that co-signed this note.

    A witness's key that was retired counts as a log's does: see `KeySet.check`.

    Raises:
        Untrusted: it is no signed checkpoint.
        ProofInvalid: a cosignature of a known witness is wrong.
    """
    signed = parse_note(note)
    checkpoint = Checkpoint.parse(signed.text)
    found = {}
    for line in signed.signatures:
        key = witnesses.find(line.name, line.key_id)
        if key is None or key.type is not KeyType.COSIGNATURE_V1:
            continue
        timestamp = int.from_bytes(line.data[:_TIME_BYTES], "big")
        if not key.verifies(line.data[_TIME_BYTES:], _message(signed.text, timestamp)):
            raise ProofInvalid(f"the cosignature of {line.name} is not of this checkpoint")
        with suppress(Untrusted):  # retired: as if it had not signed
            witnesses.check(key, checkpoint)
            found[line.name] = timestamp
    return found


def _message(text: bytes, timestamp: int) -> bytes:
    return b"cosignature/v1\ntime %d\n" % timestamp + text
