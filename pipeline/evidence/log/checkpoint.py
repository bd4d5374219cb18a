"""C2SP checkpoints: what a log signs about its tree."""

from __future__ import annotations

import base64
import binascii
from dataclasses import dataclass
from typing import TYPE_CHECKING

from pipeline.evidence.log.errors import Untrusted
from pipeline.evidence.log.keys import KeyType, Verifier, valid_name
from pipeline.evidence.log.merkle import HASH_BYTES
from pipeline.evidence.log.note import NoteSignature, SignedNote, parse_note

if TYPE_CHECKING:  # a key set holds checkpoints of its own
    from pipeline.evidence.log.key_set import KeySet
    from pipeline.evidence.log.signer import Signer

_MAX_SIZE = 2**63 - 1


@dataclass(frozen=True, slots=True)
class Checkpoint:
    """The tree `origin` has `size` leaves and the 32-byte `root`."""

    origin: str
    size: int
    root: bytes

    def encode(self) -> bytes:
        """The note's text: three lines, which are what is signed."""
        return f"{self.origin}\n{self.size}\n{base64.b64encode(self.root).decode()}\n".encode()

    @classmethod
    def parse(cls, text: bytes) -> Checkpoint:
        """Read what `encode` wrote; extension lines are refused, because nobody could audit them.

        Raises:
            Untrusted: it is no checkpoint; says why.
        """
        lines = text.decode("utf-8", "replace").split("\n")
        if len(lines) != 4 or lines[3]:
            raise Untrusted(f"a checkpoint has three lines, this text {len(lines) - 1}")
        origin, size, encoded, _ = lines
        if not valid_name(origin):
            raise Untrusted(f"checkpoint origin {origin[:128]!r}: expected text without spaces and '+'")
        number = decimal(size)
        if number is None:
            raise Untrusted(f"{origin}: tree size {size[:32]!r} is no decimal number without leading zeroes")
        try:
            root = base64.b64decode(encoded, validate=True)
        except binascii.Error:
            root = b""
        found = cls(origin, number, root)
        if len(root) != HASH_BYTES or found.encode() != text:
            raise Untrusted(f"{origin}: the root {encoded[:64]!r} is not the base64 of {HASH_BYTES} bytes")
        return found


def decimal(text: str) -> int | None:
    """A number of at most 63 bits as specifications want it: ASCII digits, no leading zeroes; else None."""
    if not text.isascii() or not text.isdigit() or len(text) > 19 or (text[0] == "0" and text != "0"):
        return None
    return number if (number := int(text)) <= _MAX_SIZE else None


def sign_checkpoint(checkpoint: Checkpoint, signer: Signer) -> bytes:
    """The signed note. Whether this may be signed is the caller's to know: see `AuditLog.append`."""
    text, key = checkpoint.encode(), signer.verifier
    return SignedNote(text, (NoteSignature(key.name, key.key_id, signer.sign(text)),)).encode()


def open_checkpoint(note: bytes, verifiers: KeySet, origin: str | None = None) -> Checkpoint:
    """Verify a signed note and read it.

    Counts a signature when its key is known, is not retired for a tree of this size, and its name begins the origin,
    so that the key of one log cannot sign for another. Unknown signatures are ignored, wrong ones of known keys not.

    Raises:
        Untrusted: no signature counts, one of a known key is wrong, or the origin is not `origin` where that is given.
    """
    signed = parse_note(note)
    checkpoint = Checkpoint.parse(signed.text)
    if origin is not None and checkpoint.origin != origin:
        raise Untrusted(f"this is a checkpoint of {checkpoint.origin}, not of {origin}")
    known = [(verifiers.find(line.name, line.key_id), line) for line in signed.signatures]
    keys = [_verified(key, line, signed.text) for key, line in known if key and serves(key, checkpoint.origin)]
    if not keys:
        names = ", ".join(f"{line.name}+{line.key_id.hex()}" for line in signed.signatures)
        raise Untrusted(f"{checkpoint.origin}: no trusted key has signed, only {names[:256]}")
    _one_in_time(keys, verifiers, checkpoint)
    return checkpoint


def serves(key: Verifier, origin: str) -> bool:
    """Whether `key` is one of a log, and that log's name begins the origin."""
    return key.type is KeyType.ED25519 and (origin == key.name or origin.startswith(f"{key.name}/"))


def _verified(key: Verifier, line: NoteSignature, text: bytes) -> Verifier:
    if len(line.data) != 64 or not key.verifies(line.data, text):
        raise Untrusted(f"the signature of {key.name}+{key.key_id.hex()} is wrong: the checkpoint was changed")
    return key


def _one_in_time(keys: list[Verifier], verifiers: KeySet, checkpoint: Checkpoint) -> None:
    """Raise what speaks against the last of `keys` when something speaks against each."""
    refused: Untrusted | None = None
    for key in keys:
        try:
            verifiers.check(key, checkpoint)
        except Untrusted as error:
            refused = error
        else:
            return
    if refused is not None:
        raise refused
