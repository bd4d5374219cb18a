"""The private key that signs checkpoints: a PEM file (PKCS #8, not encrypted: readable by its worker alone)."""

from __future__ import annotations

import os
from pathlib import Path

from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    PublicFormat,
    load_pem_private_key,
)

from pipeline.evidence.log.errors import KeyFileInvalid
from pipeline.evidence.log.keys import KeyType, Verifier


class Signer:
    """A private key with the name that its signature lines carry: the log's name, which begins each tree's origin."""

    def __init__(self, name: str, private: Ed25519PrivateKey, key_type: KeyType = KeyType.ED25519) -> None:
        """Raises KeyFileInvalid for a name that no signature line can hold."""
        public = private.public_key().public_bytes(Encoding.Raw, PublicFormat.Raw)
        self._private = private
        self.verifier = Verifier(name, public, key_type)
        """Its public half."""

    @classmethod
    def generate(cls, name: str, key_type: KeyType = KeyType.ED25519) -> Signer:
        """A new random key."""
        return cls(name, Ed25519PrivateKey.generate(), key_type)

    @classmethod
    def load(cls, name: str, path: Path, key_type: KeyType = KeyType.ED25519) -> Signer:
        """Read a PEM file. Raises KeyFileInvalid naming the file."""
        try:
            private = load_pem_private_key(path.read_bytes(), password=None)
        except (OSError, ValueError, TypeError, UnsupportedAlgorithm) as error:
            raise KeyFileInvalid(f"{path} is no readable, unencrypted PEM private key: {error}") from error
        if not isinstance(private, Ed25519PrivateKey):
            raise KeyFileInvalid(f"{path} holds another kind of key; expected Ed25519")
        return cls(name, private, key_type)

    def save(self, path: Path) -> None:
        """Write a new PEM file that only its owner may read. Raises KeyFileInvalid when it exists or cannot be made."""
        pem = self._private.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
        try:
            fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
            with os.fdopen(fd, "wb") as file:
                file.write(pem)
                file.flush()
                os.fsync(file.fileno())
        except OSError as error:
            raise KeyFileInvalid(f"cannot write the private key {path}: {error.strerror}") from error

    def sign(self, message: bytes) -> bytes:
        """64 bytes; the same for the same message each time."""
        return self._private.sign(message)
