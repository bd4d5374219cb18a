"""`c2sp.org/tlog-proof@v1`: one text file that proves, offline, that an entry is in a log.

The entry itself lies in the file's `extra` line, so that the file and the log's public key are all that is needed.
What is in `extra` is trusted only because its hash leads to the signed root.
"""

from __future__ import annotations

import base64
import binascii
from dataclasses import dataclass

from pipeline.evidence.log.checkpoint import Checkpoint, decimal, open_checkpoint
from pipeline.evidence.log.cosignature import cosigners
from pipeline.evidence.log.errors import ProofInvalid
from pipeline.evidence.log.key_set import KeySet
from pipeline.evidence.log.merkle import leaf_hash, verify_inclusion
from pipeline.evidence.log.note import parse_note
from pipeline.evidence.log.reader import LogReader

_HEADER = "c2sp.org/tlog-proof@v1"
_MAX_BYTES = 262_144


@dataclass(frozen=True, slots=True)
class Proof:
    """A proof file, taken apart; nothing is verified. `note` is the signed checkpoint with cosignatures."""

    entry: bytes | None
    index: int
    path: tuple[bytes, ...]
    note: bytes

    def encode(self) -> bytes:
        """The file."""
        lines = [_HEADER]
        if self.entry is not None:
            lines.append(f"extra {_text(self.entry)}")
        lines += [f"index {self.index}", *map(_text, self.path), "", ""]
        return "\n".join(lines).encode() + self.note

    @classmethod
    def parse(cls, data: bytes) -> Proof:
        """Read a file. Raises ProofInvalid naming the line."""
        if len(data) > _MAX_BYTES:
            raise ProofInvalid(f"a proof file has at most {_MAX_BYTES} bytes, this one {len(data)}")
        head, separator, note = data.partition(b"\n\n")
        lines = head.decode("utf-8", "replace").split("\n")
        if lines[0] != _HEADER:
            raise ProofInvalid(f"line 1: expected {_HEADER!r}, got {lines[0][:64]!r}; is this a proof file?")
        if not separator:
            raise ProofInvalid("the file ends before the checkpoint: it was cut")
        at = 1
        entry = None
        if at < len(lines) and lines[at].startswith("extra "):
            entry, at = _bytes(lines[at].removeprefix("extra "), at), at + 1
        index = decimal(lines[at].removeprefix("index ")) if at < len(lines) else None
        if index is None or not lines[at].startswith("index "):
            raise ProofInvalid(f"line {at + 1}: expected 'index' and the number of the entry")
        path = tuple(_bytes(line, number) for number, line in enumerate(lines[at + 1 :], at + 1))
        return cls(entry, index, path, note)


def make_proof(reader: LogReader, index: int, *, note: bytes | None = None) -> bytes:
    """The proof file of entry `index`, under the checkpoint that `reader` sees or under an earlier one.

    Args:
        reader: of the log.
        index: of the entry.
        note: a checkpoint that the log signed earlier, with the cosignatures that witnesses gave for it; the log must
            continue it. Signatures are for `verify_proof` to check.

    Raises:
        NotInLog: there is no such entry, or not yet in the tree of `note`.
        ProofInvalid: `note` is of another log.
        LogCorrupt, Untrusted, LogUnavailable: see `LogReader.entry`.
    """
    entry = reader.entry(index)
    if note is None:
        return Proof(entry, index, tuple(reader.inclusion_proof(index)), reader.signed_checkpoint()).encode()
    head = Checkpoint.parse(parse_note(note).text)
    if head.origin != reader.origin:
        raise ProofInvalid(f"the checkpoint to prove under is of {head.origin}, not of {reader.origin}")
    reader.check_continues(head)
    return Proof(entry, index, tuple(reader.inclusion_proof(index, head.size)), note).encode()


def verify_proof(
    proof: bytes, entry: bytes | None, verifiers: KeySet, *, witnesses: KeySet | None = None, quorum: int = 0
) -> Checkpoint:
    """Check that `entry` is in the log whose checkpoint the file holds. Needs neither network nor log.

    Args:
        proof: the file.
        entry: what must be proved; None: what the file itself says, see `Proof.entry`.
        verifiers: keys of logs.
        witnesses: keys of type `COSIGNATURE_V1`.
        quorum: how many different witnesses must have co-signed.

    Raises:
        ProofInvalid: it does not prove that.
        Untrusted: no key that counts has signed the checkpoint.
    """
    parsed = Proof.parse(proof)
    if entry is not None and parsed.entry not in (None, entry):
        raise ProofInvalid("the entry in the file is not the one to prove")
    proven = parsed.entry if entry is None else entry
    if proven is None:
        raise ProofInvalid("the file holds no entry ('extra' line); give the entry beside it")
    checkpoint = open_checkpoint(parsed.note, verifiers)
    verify_inclusion(leaf_hash(proven), parsed.index, checkpoint.size, parsed.path, checkpoint.root)
    found = cosigners(parsed.note, witnesses) if witnesses else {}
    if len(found) < quorum:
        raise ProofInvalid(f"{quorum} witnesses must have co-signed, {len(found)} of the known ones have")
    return checkpoint


def _text(data: bytes) -> str:
    return base64.b64encode(data).decode()


def _bytes(text: str, number: int) -> bytes:
    try:
        data = base64.b64decode(text, validate=True)
    except (binascii.Error, ValueError) as error:
        raise ProofInvalid(f"line {number + 1} is not base64") from error
    if _text(data) != text:
        raise ProofInvalid(f"line {number + 1} is not canonical base64")
    return data
