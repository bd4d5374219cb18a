"""The envelope around what is stored: prefix, header, payload.

The prefix is `MSV1` and the header's length as a big-endian uint32; the header is JSON. Its `alg` says what the
payload is: `none`, the plain bytes; `A256GCM`, AES-256 in GCM (NIST SP 800-38D) with a 16-byte tag at the end, under a
key of the object's own, a random nonce of 96 bits, and tenant, digest and key generation as authenticated data. One
key seals one plaintext only, again after a power cut or under another suffix at most, so that the 2^32 messages up to
which random nonces are safe are never near. A payload has at most 2^31 - 1 bytes, the limit of the library's call.
"""

from __future__ import annotations

import base64
import hashlib
import json
import os
import struct
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from pipeline.media.errors import ContentCorrupt, StoreUnavailable
from pipeline.media.key_store import DataKey

MAGIC = b"MSV1"
PLAIN, SEALED = "none", "A256GCM"
HEADER_BYTES = 512
"""No header that this release writes is longer, its prefix included."""

_PREFIX = struct.Struct(">4sI")
_MAX_HEADER_BYTES = 65_536
_VERSION = 1
_NONCE_BYTES, _TAG_BYTES = 12, 16

GetKey = Callable[[int], bytes]
"""From a key's generation to its 32 bytes; raises what `KeyStore.get` does."""


@dataclass(frozen=True, slots=True)
class Subject:
    """Whose copy of what: an envelope opens for no other."""

    tenant: str
    sha256: str

    def authenticated(self, generation: int) -> bytes:
        """The additional data of AES-GCM."""
        return "\0".join(("mediasieve envelope v1", self.tenant, self.sha256, str(generation))).encode()


@dataclass(frozen=True, slots=True)
class Header:
    """What an envelope says of itself. `payload_at` is the payload's place in bytes."""

    fields: dict[str, Any]
    payload_at: int

    @property
    def alg(self) -> object:
        """How the payload is encrypted."""
        return self.fields.get("alg")

    @property
    def generation(self) -> object:
        """Of the key that opens the payload; None in a plain envelope."""
        return self.fields.get("key")


def seal(subject: Subject, data: bytes, key: DataKey | None) -> bytes:
    """The envelope of `data`, plain when there is no key."""
    fields: dict[str, Any] = {"v": _VERSION, "alg": PLAIN, "sha256": subject.sha256, "bytes": len(data)}
    if key is None:
        return _joined(fields, data)
    nonce = os.urandom(_NONCE_BYTES)
    fields |= {"alg": SEALED, "key": key.generation, "nonce": base64.b64encode(nonce).decode()}
    return _joined(fields, AESGCM(key.secret).encrypt(nonce, data, subject.authenticated(key.generation)))


def unseal(blob: bytes, subject: Subject, name: str, get_key: GetKey | None) -> bytes:
    """What was sealed, verified against the subject's digest. `name` is the object's, for messages.

    Raises:
        ContentErased, ContentMissing: the key was destroyed, or is not there.
        ContentCorrupt: not what was sealed for this subject.
        StoreUnavailable: a newer release sealed it, or no key store is configured.
    """
    header = read_header(blob, name)
    if header.fields.get("v") != _VERSION or header.alg not in (PLAIN, SEALED):
        # A newer release wrote it: waiting for the upgrade loses nothing, a verdict of corruption would.
        version = header.fields.get("v")
        raise StoreUnavailable(f"{name} has envelope version {version!r} and alg {header.alg!r}: upgrade this worker")
    data = blob[header.payload_at :] if header.alg == PLAIN else _decrypted(blob, header, subject, name, get_key)
    if header.fields.get("sha256") != subject.sha256 or header.fields.get("bytes") != len(data):
        raise ContentCorrupt(f"{name}: the envelope does not fit its name or its length")
    if hashlib.sha256(data).hexdigest() != subject.sha256:
        raise ContentCorrupt(f"{name} does not have the digest in its name")
    return data


def read_header(start: bytes, name: str, size: int | None = None) -> Header:
    """The header of an object that begins with `start` and has `size` bytes in all. Raises ContentCorrupt."""
    try:
        magic, header_bytes = _PREFIX.unpack_from(start)
        end = _PREFIX.size + header_bytes
        if magic != MAGIC or header_bytes > _MAX_HEADER_BYTES or end > (len(start) if size is None else size):
            raise ContentCorrupt(f"{name} does not begin with an envelope")
        fields = json.loads(start[_PREFIX.size : end])
    except (struct.error, ValueError, RecursionError) as error:
        raise ContentCorrupt(f"{name} does not begin with an envelope") from error
    if not isinstance(fields, dict):
        raise ContentCorrupt(f"{name} does not begin with an envelope")
    return Header(fields, end)


def _joined(fields: dict[str, Any], payload: bytes) -> bytes:
    header = json.dumps(fields, separators=(",", ":")).encode()
    return b"".join((_PREFIX.pack(MAGIC, len(header)), header, payload))


def _decrypted(blob: bytes, header: Header, subject: Subject, name: str, get_key: GetKey | None) -> bytes:
    if get_key is None:
        raise StoreUnavailable(f"{name} is encrypted and no key store is configured here: set store.keys")
    generation = header.generation
    try:
        nonce = base64.b64decode(header.fields["nonce"], validate=True)
    except (KeyError, TypeError, ValueError) as error:
        raise ContentCorrupt(f"{name}: the envelope has no nonce") from error
    if not isinstance(generation, int) or generation < 0 or len(nonce) != _NONCE_BYTES:
        raise ContentCorrupt(f"{name}: the envelope names no key or no nonce")
    secret = get_key(generation)
    try:
        payload = memoryview(blob)[header.payload_at :]
        return AESGCM(secret).decrypt(nonce, payload, subject.authenticated(generation))
    except (InvalidTag, ValueError) as error:
        raise ContentCorrupt(f"{name}: what is in the envelope was not sealed for {subject.tenant}") from error
