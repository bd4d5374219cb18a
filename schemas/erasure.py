"""A payload that nobody can read any more, and why."""

from __future__ import annotations

from enum import StrEnum
from typing import Annotated, ClassVar
from uuid import UUID

from pydantic import Field

from schemas.base import Record
from schemas.types import Identifier, Sha256, Text, Timestamp


class ErasureCause(StrEnum):
    """What asked for it."""

    RETENTION = "retention"
    REQUEST = "request"


class Erasure(Record):
    """The keys of these payloads of one media item are destroyed; written before that is done, and again if repeated.

    Digests stay: proofs of what was decided remain valid, what it was decided on cannot be read.
    """

    event_type: ClassVar[str] = "dev.mediasieve.evidence.erasure.v1"

    erasure_id: UUID
    tenant: Identifier
    media_id: Identifier
    sha256s: Annotated[tuple[Sha256, ...], Field(min_length=1, max_length=64)]
    cause: ErasureCause
    actor: Identifier
    detail: Text
    erased_at: Timestamp
