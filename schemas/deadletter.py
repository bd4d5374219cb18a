"""Records that cannot be processed.

On `media.deadletter` the Kafka value is the ORIGINAL value, byte for byte, and the original headers are
kept; this model travels beside them, as JSON, in the header `mediasieve-dead-letter`. So a dead letter is
never much larger than its original, and a replay is a plain copy.
"""

from __future__ import annotations

from enum import StrEnum
from typing import Annotated, ClassVar

from pydantic import Field

from schemas.base import Record
from schemas.types import Identifier, Sha256, ShortText, Text, Timestamp

DEAD_LETTER_HEADER = "mediasieve-dead-letter"


class RejectCode(StrEnum):
    """Why a record left the pipeline without a decision."""

    TOO_LARGE = "too_large"
    NOT_UTF8 = "not_utf8"
    TRUNCATED_JSON = "truncated_json"
    MALFORMED_JSON = "malformed_json"
    TOO_DEEP = "too_deep"
    NON_FINITE_NUMBER = "non_finite_number"
    DUPLICATE_KEY = "duplicate_key"
    SCHEMA_INVALID = "schema_invalid"
    UNSUPPORTED_VERSION = "unsupported_version"
    URI_REFUSED = "uri_refused"
    TENANT_REFUSED = "tenant_refused"
    SOURCE_GONE = "source_gone"
    SOURCE_FORBIDDEN = "source_forbidden"
    SOURCE_UNAVAILABLE = "source_unavailable"
    DECLARED_MISMATCH = "declared_mismatch"
    MEDIA_EMPTY = "media_empty"
    UNEXPECTED = "unexpected"


EDGE_CODES = frozenset(RejectCode) - {RejectCode.UNEXPECTED}
"""What a producer's own input can cause on `media.ingest`.

Anything else there, and any reject elsewhere, is ours.
"""


class DeadLetter(Record):
    """Where the record came from and why it could not be processed."""

    event_type: ClassVar[str] = "dev.mediasieve.deadletter.v1"

    code: RejectCode
    detail: Text
    stage: ShortText
    topic: ShortText
    partition: Annotated[int, Field(ge=0)]
    offset: Annotated[int, Field(ge=0)]
    attempts: Annotated[int, Field(ge=1)] = 1
    media_id: Identifier
    tenant: Identifier | None = None
    source: Identifier | None = None
    trace_id: Annotated[str, Field(pattern=r"^[0-9a-f]{32}$")]
    value_sha256: Sha256
    value_bytes: Annotated[int, Field(ge=0)]
    value_truncated: bool = False
    failed_at: Timestamp
