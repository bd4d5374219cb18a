"""Bounded field types shared by every record, so that no producer can send an unbounded one."""

from __future__ import annotations

import re
from datetime import UTC, datetime
from enum import StrEnum
from typing import Annotated, Any, Literal

from pydantic import (
    AfterValidator,
    AwareDatetime,
    BeforeValidator,
    Field,
    StringConstraints,
    WithJsonSchema,
)

_RFC3339 = r"^[0-9]{4}-[0-9]{2}-[0-9]{2}[Tt][0-9]{2}:[0-9]{2}:[0-9]{2}([.][0-9]{1,9})?([Zz]|[+-][0-9]{2}:[0-9]{2})$"
_RFC3339_PATTERN = re.compile(_RFC3339)


def _not_a_number(value: Any) -> Any:
    """A bare number could be seconds or milliseconds: nobody shall guess."""
    if isinstance(value, datetime) or (isinstance(value, str) and _RFC3339_PATTERN.fullmatch(value)):
        return value
    raise ValueError("give an RFC 3339 time with its zone, such as 2026-01-31T12:00:00Z")


def _as_utc(value: datetime) -> datetime:
    try:
        return value.astimezone(UTC)
    except OverflowError as error:
        raise ValueError("the time lies outside the years 1 to 9999 in UTC") from error


Sha256 = Annotated[str, StringConstraints(pattern=r"^[0-9a-f]{64}$")]
"""Lower-case hex SHA-256 of the media's original bytes."""

Identifier = Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9][A-Za-z0-9._:@-]{0,127}$")]
"""Media ids, tenants and producer names: they become topic keys, object keys and log fields."""

Uri = Annotated[str, StringConstraints(pattern=r"^[A-Za-z][A-Za-z0-9+.-]{0,15}:[^\x00-\x20\x7f]{1,4079}$")]
"""Scheme and at most 4,096 characters in all; no white space, no control characters."""

ContentType = Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9!#$&^_.+-]{1,63}/[A-Za-z0-9!#$&^_.+;= -]{1,63}$")]
Text = Annotated[str, StringConstraints(max_length=1024)]
ShortText = Annotated[str, StringConstraints(max_length=128)]
LabelKey = Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9][A-Za-z0-9._/-]{0,62}$")]
LabelValue = Annotated[str, StringConstraints(max_length=256)]
Labels = Annotated[dict[LabelKey, LabelValue], Field(max_length=32, json_schema_extra={"additionalProperties": False})]
Version = Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9][A-Za-z0-9._+-]{0,63}$")]
"""A bundle's, policy's or model's version."""

FamilyName = Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]{0,63}$")]
"""A generator family, such as `flux`."""

SchemaVersion = Annotated[str, StringConstraints(pattern=r"^[0-9]{1,4}\.[0-9]{1,4}$")]
Probability = Annotated[float, Field(ge=0.0, le=1.0)]
Milliseconds = Annotated[float, Field(ge=0.0, le=1e12)]
Timestamp = Annotated[
    AwareDatetime,
    BeforeValidator(_not_a_number),
    AfterValidator(_as_utc),
    WithJsonSchema({"type": "string", "format": "date-time", "pattern": _RFC3339}),
]
"""RFC 3339 with a zone; kept and written as UTC with a trailing Z."""


class Priority(StrEnum):
    """The lane a producer asks for; granted within the class configured for it."""

    NORMAL = "normal"
    HIGH = "high"


class StageName(StrEnum):
    """The three tiers, in the order in which an item meets them."""

    CLASSIFIER = "classifier"
    SPECTRAL = "spectral"
    MLLM = "mllm"


MediaFormat = Literal["jpeg", "png", "webp", "tiff", "bmp"]
ChromaSubsampling = Literal["4:4:4", "4:2:2", "4:2:0", "4:4:0", "4:1:1", "4:1:0", "other"]
