"""C2SP signed notes: a text, an empty line, signature lines. Which signatures count is decided elsewhere."""

from __future__ import annotations

import base64
import binascii
from dataclasses import dataclass

from pipeline.evidence.log.errors import Untrusted

_MAX_BYTES = 65_536
_MAX_SIGNATURES = 64
_SIGNED = "— "


@dataclass(frozen=True, slots=True)
class NoteSignature:
    """One signature line: `data` is what follows the 4 bytes of key id."""

    name: str
    key_id: bytes
    data: bytes

    def line(self) -> bytes:
        """The line with its newline."""
        return f"{_SIGNED}{self.name} {base64.b64encode(self.key_id + self.data).decode()}\n".encode()


@dataclass(frozen=True, slots=True)
class SignedNote:
    """`text` ends with a newline and is what signatures are of."""

    text: bytes
    signatures: tuple[NoteSignature, ...]

    def encode(self) -> bytes:
        """The whole note."""
        return self.text + b"\n" + b"".join(signature.line() for signature in self.signatures)


def parse_note(data: bytes) -> SignedNote:
    """Split a note; nothing is verified here.

    Raises:
        Untrusted: it is no signed note; says why.
    """
    if len(data) > _MAX_BYTES:
        raise Untrusted(f"a signed note has at most {_MAX_BYTES} bytes, this one {len(data)}")
    try:
        note = data.decode("utf-8")
    except UnicodeDecodeError as error:
        raise Untrusted("a signed note is UTF-8, this is not") from error
    if any(character < " " and character != "\n" for character in note):
        raise Untrusted("a signed note has no control characters but newlines, this one has")
    text, separator, lines = note.rpartition("\n\n")
    if not separator or not lines.endswith("\n"):
        raise Untrusted("a signed note ends with an empty line and whole signature lines, this one does not")
    rows = lines[:-1].split("\n")
    if len(rows) > _MAX_SIGNATURES:
        raise Untrusted(f"a signed note has at most {_MAX_SIGNATURES} signatures, this one {len(rows)}")
    return SignedNote(f"{text}\n".encode(), tuple(parse_signature(row) for row in rows))


def parse_signature(line: str) -> NoteSignature:
    """Read a signature line, without its newline. Raises Untrusted when it is none."""
    name, separator, encoded = line.removeprefix(_SIGNED).partition(" ")
    try:
        data = base64.b64decode(encoded, validate=True)
    except binascii.Error:
        data = b""
    found = NoteSignature(name, data[:4], data[4:])
    # Base64 with set bits behind its end says the same in other bytes; one form only, so that no bit is free.
    if not name or not separator or len(data) <= 4 or found.line() != f"{line}\n".encode():
        raise Untrusted(f"{line[:128]!r} is no signature line")
    return found
