"""What the ingest gateway says over HTTP; the gateway and its client share these models."""

from __future__ import annotations

from enum import StrEnum
from typing import Annotated, Literal
from uuid import UUID

from pydantic import ConfigDict, Field

from schemas.base import Part
from schemas.deadletter import RejectCode
from schemas.decision import Mode, Outcome, Reason, Risk
from schemas.media import StageScore
from schemas.review import Label
from schemas.types import Identifier, Probability, Sha256, ShortText, StageName, Text, Timestamp, Uri, Version

MAX_BATCH = 1_000
IDEMPOTENCY_KEY = r"^[\x21-\x7e]{1,255}$"
"""Visible ASCII: a UUID, an order number, a digest."""


class FieldProblem(Part):
    """One fault of one field."""

    field: Annotated[str, Field(max_length=256)]
    detail: Annotated[str, Field(max_length=512)]


class Problem(Part):
    """An answer that is no success, as RFC 9457 has it."""

    model_config = ConfigDict(
        json_schema_extra={
            "examples": [
                {
                    "type": "https://mediasieve.dev/problems/invalid",
                    "title": "The request is invalid",
                    "status": 422,
                    "detail": "uri: Field required",
                    "errors": [{"field": "uri", "detail": "Field required"}],
                }
            ]
        }
    )

    type: Annotated[str, Field(max_length=256, description="a URI that names the kind of problem and stays the same")]
    title: ShortText
    status: Annotated[int, Field(ge=400, le=599)]
    detail: Text
    errors: tuple[FieldProblem, ...] = ()


class Accepted(Part):
    """The broker has it: the fleet will answer with a decision or a dead letter."""

    model_config = ConfigDict(
        json_schema_extra={
            "examples": [
                {
                    "media_id": "acme-1",
                    "tenant": "acme",
                    "submitted_at": "2026-01-31T12:00:00Z",
                    "status_url": "/v1/media/acme-1?tenant=acme",
                }
            ]
        }
    )

    media_id: Identifier
    tenant: Identifier
    submitted_at: Timestamp
    status_url: Annotated[str, Field(max_length=512, description="relative to the gateway")]


class BatchItem(Part):
    """What became of one item of a batch. `accepted` with status 202, else `problem`."""

    index: Annotated[int, Field(ge=0, lt=MAX_BATCH)]
    status: Annotated[int, Field(ge=200, le=599)]
    accepted: Accepted | None = None
    problem: Problem | None = None


class BatchAnswer(Part):
    """One result for each item, in the order of the request."""

    accepted: Annotated[int, Field(ge=0, le=MAX_BATCH)]
    refused: Annotated[int, Field(ge=0, le=MAX_BATCH)]
    items: Annotated[tuple[BatchItem, ...], Field(max_length=MAX_BATCH)]


class MediaState(StrEnum):
    """Where a submission is.

    `pending`: registered, but not acknowledged by the broker: send it again. `rejected`: a dead letter says why.
    """

    PENDING = "pending"
    ACCEPTED = "accepted"
    DECIDED = "decided"
    REJECTED = "rejected"


class EvidenceLink(Part):
    """A blob that a decision rests on; `href` is relative to the gateway."""

    kind: ShortText
    sha256: Sha256
    href: Annotated[str, Field(max_length=512)]


class DecisionEvent(Part):
    """One event of a decision: the machine's verdict, a review of it, or the end of its case.

    `outcome` is what holds now; `machine_outcome` is what the fleet had decided.
    """

    type: Literal["decision"] = "decision"
    event_uid: UUID
    tenant: Identifier
    media_id: Identifier
    uri: Uri
    decision_uid: UUID
    sequence: Annotated[int, Field(ge=0)]
    activity: Literal["create", "update", "close"]
    outcome: Outcome
    machine_outcome: Outcome
    risk: Risk | None = None
    final_score: Probability | None = None
    mode: Mode
    stage_exited: StageName
    reasons: tuple[Reason, ...]
    scores: tuple[StageScore, ...]
    policy_version: Version
    bundle_version: Version
    content_sha256: Sha256 | None = None
    review_label: Label | None = None
    evidence: tuple[EvidenceLink, ...] = ()
    occurred_at: Timestamp


class RejectionEvent(Part):
    """A submission that ended as a dead letter."""

    type: Literal["rejection"] = "rejection"
    event_uid: UUID
    tenant: Identifier
    media_id: Identifier
    code: RejectCode
    detail: Text
    occurred_at: Timestamp


class MediaStatus(Part):
    """What is known of one media item. `decision` is the event that holds now, `events` are all, oldest first."""

    media_id: Identifier
    tenant: Identifier
    state: MediaState
    submitted_at: Timestamp | None = None
    decision: DecisionEvent | None = None
    rejection: RejectionEvent | None = None
    events: tuple[DecisionEvent, ...] = ()
