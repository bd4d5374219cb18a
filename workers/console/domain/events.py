"""What the console says to Kafka: reviews, actions, and the findings' later events."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any
from uuid import UUID, uuid4

from pydantic import BaseModel

from schemas.decision import Decision, Outcome
from schemas.ocsf import (
    DetectionFinding,
    encode_finding,
    finding_from_closed_case,
    finding_from_review,
)
from schemas.review import ActionKind, ReviewAction, ReviewVerdict
from schemas.topics import DECISION_TOPICS, Topic
from schemas.wire import encode


@dataclass(frozen=True, slots=True)
class Event:
    """A record to publish. Its bytes and ids are made once, with the database change, however often it is sent."""

    topic: Topic
    event_id: UUID
    event_type: str
    schema: type[BaseModel]
    at: datetime
    value: bytes


def review_event(verdict: ReviewVerdict) -> Event:
    """One reviewer's answer, on the topic of reviews."""
    return Event(
        Topic.REVIEWS,
        verdict.review_id,
        ReviewVerdict.event_type,
        ReviewVerdict,
        verdict.reviewed_at,
        encode(verdict),
    )


def update_event(
    decision: Decision, verdict: ReviewVerdict, sequence: int, *, before: Outcome, after: Outcome
) -> Event:
    """The finding's Update, on the topic of the outcome `after` it; it says what was in force when it was given."""
    return _finding(finding_from_review(decision, verdict, sequence, before), verdict.reviewed_at, after)


def close_event(decision: Decision, verdict: ReviewVerdict, sequence: int, outcome: Outcome) -> Event:
    """The finding's Close, on the topic of the final outcome."""
    found = finding_from_closed_case(decision, verdict, verdict.reviewed_at, sequence)
    return _finding(found, verdict.reviewed_at, outcome)


def action_event(
    *, case_id: UUID, decision: Decision, kind: ActionKind, actor: str, at: datetime, rest: Mapping[str, Any]
) -> Event:
    """Something that a person did; `rest` are further fields of the record."""
    action = ReviewAction(
        action_id=uuid4(),
        case_id=case_id,
        decision_uid=decision.decision_uid,
        tenant=decision.admission.tenant,
        media_id=decision.admission.media_id,
        action=kind,
        actor=actor,
        acted_at=at,
        **rest,
    )
    return Event(Topic.REVIEW_ACTIONS, action.action_id, action.event_type, ReviewAction, at, encode(action))


def _finding(finding: DetectionFinding, at: datetime, outcome: Outcome) -> Event:
    return Event(
        DECISION_TOPICS[outcome],
        finding.metadata.uid,
        Decision.event_type,
        DetectionFinding,
        at,
        encode_finding(finding),
    )
