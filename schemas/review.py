"""What people decide, and what the references learn from it."""

from __future__ import annotations

from enum import StrEnum
from typing import Annotated, ClassVar
from uuid import UUID

from pydantic import ConfigDict, Field, model_validator
from pydantic.config import JsonDict

from schemas.base import Record
from schemas.types import FamilyName, Identifier, Sha256, ShortText, Text, Timestamp, Version


class Label(StrEnum):
    """The three targets; an AI-processed photograph alone never blocks."""

    GENERATED = "generated"
    AI_PROCESSED = "ai_processed"
    PHOTOGRAPH = "photograph"
    UNDECIDABLE = "undecidable"


class ReviewVerdict(Record):
    """A reviewer's answer to one escalated decision. `family`: the generator, where the reviewer can name it."""

    event_type: ClassVar[str] = "dev.mediasieve.review.verdict.v1"

    review_id: UUID
    decision_uid: UUID
    tenant: Identifier
    media_id: Identifier
    label: Label
    family: FamilyName | None = None
    reviewer: Identifier
    rationale: Text
    reviewed_at: Timestamp


class ActionKind(StrEnum):
    """What people do to a case. An expired lease is seen, and written down, at the next claim of the case."""

    CLAIMED = "claimed"
    RELEASED = "released"
    SKIPPED = "skipped"
    EXPIRED = "expired"
    REVIEWED = "reviewed"
    CLOSED = "closed"
    APPEALED = "appealed"


class ReviewAction(Record):
    """One thing that a person did in the review console: who, to which case, when.

    `round` counts a case's appeals. `detail` is the reason that the person gave. `gold`: the case was given to measure
    the reviewer, and nothing follows from the answer.
    """

    event_type: ClassVar[str] = "dev.mediasieve.review.action.v1"

    action_id: UUID
    case_id: UUID
    decision_uid: UUID
    tenant: Identifier
    media_id: Identifier
    action: ActionKind
    actor: Identifier
    round: Annotated[int, Field(ge=0)] = 0
    label: Label | None = None
    detail: Text = ""
    gold: bool = False
    acted_at: Timestamp


class UpdateAction(StrEnum):
    """A reference update can always be taken back."""

    ADD = "add"
    REVOKE = "revoke"


_UNDECIDABLE: JsonDict = {"properties": {"label": {"const": "undecidable"}}, "required": ["label"]}


class ReferenceUpdate(Record):
    """A confirmed sample enters, or leaves, the reference of its stratum.

    `reference`: content hash of the reference that it is in, or is no longer in.
    """

    model_config = ConfigDict(json_schema_extra={"not": _UNDECIDABLE})
    event_type: ClassVar[str] = "dev.mediasieve.reference.update.v1"

    update_id: UUID
    action: UpdateAction
    content_sha256: Sha256
    label: Label
    family: ShortText | None = None
    stratum: ShortText
    bundle_version: Version
    review_id: UUID
    reference: Sha256 | None = None
    updated_at: Timestamp

    @model_validator(mode="after")
    def _only_what_is_certain(self) -> ReferenceUpdate:
        if self.label is Label.UNDECIDABLE:
            raise ValueError("`label` undecidable cannot enter a reference; leave the sample out")
        return self
