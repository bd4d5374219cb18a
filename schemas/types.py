"""Bounded field types shared by every record, so that no producer can send an unbounded one."""

from __future__ import annotations

from enum import StrEnum
from typing import Annotated, Literal

from pydantic import AwareDatetime, Field, StringConstraints

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
Labels = Annotated[dict[LabelKey, LabelValue], Field(max_length=32)]
Version = Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9][A-Za-z0-9._+-]{0,63}$")]
"""A bundle's, policy's or model's version."""

SchemaVersion = Annotated[str, StringConstraints(pattern=r"^[0-9]{1,4}\.[0-9]{1,4}$")]
Probability = Annotated[float, Field(ge=0.0, le=1.0)]
Milliseconds = Annotated[float, Field(ge=0.0, le=1e12)]
Timestamp = AwareDatetime
"""Always with a zone; written as UTC with a trailing Z."""


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
