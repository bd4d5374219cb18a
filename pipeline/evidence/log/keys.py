"""Ed25519 public keys of logs and witnesses, in the forms of C2SP signed notes.

A public key is one line of text, a vkey: `<name>+<key id as 8 hex digits>+<base64 of type byte and key>`.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
from dataclasses import dataclass
from enum import IntEnum

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

from pipeline.evidence.log.errors import KeyFileInvalid


class KeyType(IntEnum):
    """Signature types of signed notes."""

    ED25519 = 0x01
    COSIGNATURE_V1 = 0x04


@dataclass(frozen=True, slots=True)
class Verifier:
    """One public key. `public` is its 32 bytes, `key_id` its 4-byte hint in signature lines."""

    name: str
    public: bytes
    type: KeyType = KeyType.ED25519

    def __post_init__(self) -> None:
        if not valid_name(self.name):
            raise KeyFileInvalid(f"key name {self.name!r}: expected text without spaces, control characters and '+'")
        if len(self.public) != 32:
            raise KeyFileInvalid(f"key {self.name}: an Ed25519 public key has 32 bytes, this one {len(self.public)}")

    @property
    def key_id(self) -> bytes:
        """First 4 bytes of SHA-256(name || 0x0A || type || public key)."""
        return hashlib.sha256(self.name.encode() + b"\n" + bytes([self.type]) + self.public).digest()[:4]

    @property
    def vkey(self) -> str:
        """The public key as one line of text."""
        encoded = base64.b64encode(bytes([self.type]) + self.public).decode()
        return f"{self.name}+{self.key_id.hex()}+{encoded}"

    @classmethod
    def from_vkey(cls, text: str) -> Verifier:
        """Read a line that `vkey` wrote. Raises KeyFileInvalid saying what is wrong with it."""
        name, _, rest = text.strip().partition("+")
        key_id, _, encoded = rest.partition("+")
        try:
            data = base64.b64decode(encoded, validate=True)
            found = cls(name, data[1:], KeyType(data[0]))
        except (binascii.Error, IndexError, ValueError) as error:
            raise KeyFileInvalid(f"{text!r} is no public key: expected <name>+<8 hex digits>+<base64>") from error
        if found.key_id.hex() != key_id:
            raise KeyFileInvalid(f"{text!r}: the key id must be {found.key_id.hex()}; copy the whole line again")
        return found

    def verifies(self, signature: bytes, message: bytes) -> bool:
        """Whether the 64 bytes are this key's signature of exactly this message."""
        try:
            Ed25519PublicKey.from_public_bytes(self.public).verify(signature, message)
        except InvalidSignature:
            return False
        return True


def valid_name(name: str) -> bool:
    """Whether a key name or origin is text without white space, control characters and plus signs."""
    return bool(name) and name.isprintable() and "+" not in name and not any(c.isspace() for c in name)
