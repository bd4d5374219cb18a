"""A regression of the detectors themselves, as an OCSF Application Error (6008) for the SIEM that reads the decisions.

Named as https://schema.ocsf.io/1.5.0/classes/application_error says. `schema_version` is ours: a record says its own.
"""

from __future__ import annotations

from enum import StrEnum
from typing import Annotated, ClassVar, Literal
from uuid import UUID

from pydantic import Field

from schemas.base import Part, Record
from schemas.types import ShortText, Text, Timestamp, Version


class QualitySource(StrEnum):
    """Which measurement found it."""

    WEEKLY = "weekly"
    DRIFT = "drift"


class QualityProduct(Part):
    """OCSF object `product`."""

    name: Literal["mediasieve"] = "mediasieve"
    vendor_name: Literal["mediasieve"] = "mediasieve"
    version: ShortText


class QualityMetadata(Part):
    """OCSF object `metadata`; the same findings on the same day have the same `uid`."""

    version: Literal["1.5.0"] = "1.5.0"
    product: QualityProduct
    uid: UUID
    event_code: ShortText


class Finding(Part):
    """One thing that got worse: where (set, source), which number, from what to what."""

    subject: ShortText
    measure: ShortText
    before: float | None = None
    after: float | None = None
    detail: Text = ""


class QualityDetails(Part):
    """Ours, inside OCSF's `unmapped`."""

    source: QualitySource
    bundle_version: Version
    policy_version: Version
    findings: Annotated[tuple[Finding, ...], Field(min_length=1, max_length=64)]
    measured_at: Timestamp


class QualityEvent(Record):
    """See the module. `time` in milliseconds since the epoch."""

    event_type: ClassVar[str] = "dev.mediasieve.quality.v1"

    activity_id: Literal[1] = 1
    activity_name: Literal["General Error"] = "General Error"
    category_uid: Literal[6] = 6
    category_name: Literal["Application Activity"] = "Application Activity"
    class_uid: Literal[6008] = 6008
    class_name: Literal["Application Error"] = "Application Error"
    type_uid: Literal[600801] = 600801
    type_name: Literal["Application Error: General Error"] = "Application Error: General Error"
    severity_id: Literal[4] = 4
    severity: Literal["High"] = "High"
    time: int
    message: Text
    metadata: QualityMetadata
    unmapped: QualityDetails
