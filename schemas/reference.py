"""Which spectral reference decides: the signed pointer on the compacted topic `references`."""

from __future__ import annotations

from enum import StrEnum
from typing import Annotated, ClassVar

from pydantic import Field, StringConstraints, model_validator

from schemas.base import Part, Record
from schemas.types import FamilyName, Identifier, Sha256, ShortText, Text, Timestamp, Uri

SignatureText = Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9+/]{86}==$")]
"""Base64 of the 64 bytes of an Ed25519 signature."""


class ReferenceArtefact(Part):
    """One immutable reference file: `version` is its content hash, `sha256` that of its bytes at `uri`."""

    version: Sha256
    sha256: Sha256
    uri: Uri
    families: Annotated[tuple[FamilyName, ...], Field(max_length=64)]


class PublicationAction(StrEnum):
    """What the pointer changed."""

    PROMOTE = "promote"
    SHADOW = "shadow"
    ROLLBACK = "rollback"


class PointerSignature(Part):
    """By the key `name` with this 4-byte key id, as in the audit log's signature lines."""

    name: ShortText
    key_id: Annotated[str, StringConstraints(pattern=r"^[0-9a-f]{8}$")]
    signature: SignatureText


class ReferencePointer(Record):
    """The reference that decides for all bundles that hold `base`, and the one that only watches.

    `base` is the content hash of the bundle's own reference, and the record's key. `active` None: the bundle's own
    decides. `sequence` rises by one with each pointer of a base. The signature is of all other fields.
    """

    event_type: ClassVar[str] = "dev.mediasieve.reference.pointer.v1"

    base: Sha256
    sequence: Annotated[int, Field(ge=1)]
    action: PublicationAction
    active: ReferenceArtefact | None
    shadow: ReferenceArtefact | None
    actor: Identifier
    reason: Text
    published_at: Timestamp
    signature: PointerSignature

    @model_validator(mode="after")
    def _a_shadow_differs(self) -> ReferencePointer:
        if self.shadow is not None and self.shadow == self.active:
            raise ValueError("`shadow` is what `active` is; leave it out")
        return self
