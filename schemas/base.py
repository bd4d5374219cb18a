"""What every record has in common: frozen, strict to write, tolerant to read."""

from __future__ import annotations

from typing import ClassVar

from pydantic import BaseModel, ConfigDict

from schemas.types import SchemaVersion

SCHEMA_MAJOR = 1
SCHEMA_VERSION = "1.1"


class Part(BaseModel):
    """A value inside a record.

    Construction refuses unknown fields, so that a writer cannot misspell one; `schemas.wire.decode` reads
    with unknown fields ignored, so that an older reader understands a newer writer of the same major version.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False, ser_json_inf_nan="null")


class Record(Part):
    """A message on a topic. `event_type` is its CloudEvents type."""

    event_type: ClassVar[str]

    schema_version: SchemaVersion = SCHEMA_VERSION
