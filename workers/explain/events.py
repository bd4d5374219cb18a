"""One event of a finding, read from the bytes that were published."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from schemas.deadletter import RejectCode
from schemas.decision import Decision, Outcome
from schemas.ocsf import decision_from_finding
from schemas.review import ReviewVerdict
from schemas.topics import Topic
from schemas.wire import WireError, describe, parse_json, read

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_STRICTEST_FIRST = {Outcome.BLOCK: 0, Outcome.ESCALATE: 1, Outcome.PASS: 2}
_LAST_MS = 253_402_300_799_000
"""End of the year 9999, where Python's dates end."""


@dataclass(frozen=True, slots=True)
class Place:
    """Where a record lies in Kafka; `topic` is the logical name."""

    topic: Topic
    partition: int
    offset: int

    def __str__(self) -> str:
        return f"{self.topic.value}[{self.partition}]@{self.offset}"


class _Tolerant(BaseModel):
    """A later release may say more."""

    model_config = ConfigDict(frozen=True, extra="ignore")


class _Product(_Tolerant):
    version: str


class _Metadata(_Tolerant):
    uid: str
    sequence: int
    product: _Product


class _Envelope(_Tolerant):
    """The OCSF attributes around our decision that the story tells. `time` in milliseconds since the epoch."""

    activity_name: str
    time: int = Field(ge=0, le=_LAST_MS)
    message: str = ""
    disposition: str = ""
    metadata: _Metadata


@dataclass(frozen=True, slots=True)
class Event:
    """One finding: its bytes as they were published, and what they say."""

    value: bytes
    decision: Decision
    activity: str
    sequence: int
    uid: str
    at: datetime
    message: str
    disposition: str
    product_version: str
    review: ReviewVerdict | None = None
    place: Place | None = None

    @property
    def sha256(self) -> str:
        """Digest of the bytes, by which the audit log knows the record."""
        return hashlib.sha256(self.value).hexdigest()

    @property
    def rank(self) -> tuple[int, int, int]:
        """Machine verdict before its updates; of equal sequence the strictest outcome, which is the one that counts."""
        return self.sequence, _STRICTEST_FIRST[self.decision.outcome], self.decision.sequence


def read_event(value: bytes, place: Place | None = None) -> Event:
    """Our finding out of its bytes, unknown attributes ignored.

    Raises:
        schemas.wire.WireError: no JSON, or no finding of ours.
        schemas.wire.UnknownMajorVersion: a decision or review of a newer major version.
    """
    data = parse_json(value)
    decision = decision_from_finding(data)
    try:
        outer = _Envelope.model_validate(data)
    except ValidationError as error:
        raise WireError(RejectCode.SCHEMA_INVALID, describe(error)) from error
    review = data["unmapped"].get("review")
    return Event(
        value=value,
        decision=decision,
        activity=outer.activity_name,
        sequence=outer.metadata.sequence,
        uid=outer.metadata.uid,
        at=_EPOCH + timedelta(milliseconds=outer.time),
        message=outer.message,
        disposition=outer.disposition,
        product_version=outer.metadata.product.version,
        review=None if review is None else read(ReviewVerdict, review),
        place=place,
    )
