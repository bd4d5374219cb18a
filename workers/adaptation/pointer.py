"""Signing and checking pointers.

A signature is Ed25519 over a fixed line and the canonical JSON (RFC 8785) of the record as it was written, without its
`signature`: fields that a newer release adds are signed and checked by readers that do not know them.
"""

from __future__ import annotations

import base64
from typing import Any

import orjson
import rfc8785

from pipeline.evidence.log.errors import Untrusted
from pipeline.evidence.log.key_set import KeySet
from pipeline.evidence.log.signer import Signer
from schemas.reference import PointerSignature, ReferencePointer
from schemas.wire import WireError, decode, encode

_DOMAIN = b"mediasieve reference pointer v1\n"
_UNSIGNED = base64.b64encode(bytes(64)).decode()


def signed_pointer(signer: Signer, **fields: Any) -> ReferencePointer:
    """A pointer with these fields and the key's signature. Raises ValidationError for a bad field."""
    key = signer.verifier
    name = {"name": key.name, "key_id": key.key_id.hex()}
    unsigned = ReferencePointer(**fields, signature=PointerSignature(**name, signature=_UNSIGNED))
    signature = base64.b64encode(signer.sign(_message(encode(unsigned)))).decode()
    return unsigned.model_copy(update={"signature": PointerSignature(**name, signature=signature)})


def trusted_pointer(value: bytes, keys: KeySet) -> ReferencePointer:
    """The pointer that a record or object holds.

    Raises:
        Untrusted: it is no pointer, or no key in use has signed exactly this.
        UnknownMajorVersion: of a newer release.
    """
    try:
        pointer = decode(ReferencePointer, value)
    except WireError as error:
        raise Untrusted(f"no reference pointer: {error.detail}") from error
    signature = pointer.signature
    key = keys.find(signature.name, bytes.fromhex(signature.key_id))
    if key is None or not keys.in_use(key):
        raise Untrusted(
            f"pointer {pointer.sequence} of {pointer.base[:12]} is signed by {signature.name}+{signature.key_id}, "
            "which is no key in use: add it to MEDIASIEVE_REFERENCES__PUBLIC_KEYS, or publish with a key that is there"
        )
    if not key.verifies(base64.b64decode(signature.signature), _message(value)):
        raise Untrusted(f"pointer {pointer.sequence} of {pointer.base[:12]}: the signature is not of this pointer")
    return pointer


def _message(value: bytes) -> bytes:
    content = orjson.loads(value)
    del content["signature"]
    try:
        return _DOMAIN + rfc8785.dumps(content)
    except rfc8785.CanonicalizationError as error:
        raise Untrusted(f"no reference pointer: {error}") from error
