"""From records of the decision and dead-letter topics to what the gateway tells of them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, Literal
from urllib.parse import quote
from uuid import NAMESPACE_URL, uuid5

from pipeline.streaming.transport import RawRecord
from schemas.api import DecisionEvent, EvidenceLink, RejectionEvent
from schemas.deadletter import DEAD_LETTER_HEADER, DeadLetter
from schemas.decision import Outcome
from schemas.media import EvidenceRef
from schemas.ocsf import Activity, DetectionFinding, decode_finding
from schemas.topics import DECISION_TOPICS, Topic
from schemas.wire import decode

PROJECTED_TOPICS = (*DECISION_TOPICS.values(), Topic.DEAD_LETTER)

_OUTCOMES = {topic: outcome for outcome, topic in DECISION_TOPICS.items()}
_STRICTEST = (Outcome.BLOCK, Outcome.ESCALATE, Outcome.PASS)
_ACTIVITIES: dict[Activity, Literal["create", "update", "close"]] = {
    Activity.CREATE: "create",
    Activity.UPDATE: "update",
    Activity.CLOSE: "close",
}
_EVENT_NAMESPACE = uuid5(NAMESPACE_URL, "https://mediasieve.dev/gateway-event")


@dataclass(frozen=True, slots=True)
class Projected:
    """One event, and where the evidence behind its links lies."""

    event: DecisionEvent | RejectionEvent
    evidence: tuple[EvidenceRef, ...] = ()


def project(topic: Topic, raw: RawRecord) -> Projected | None:
    """The event of one record; None for a dead letter that names no tenant: it belongs to nobody.

    Raises:
        schemas.wire.WireError: not what the topic carries.
        schemas.wire.UnknownMajorVersion: of a newer release.
    """
    return _rejection(raw) if topic is Topic.DEAD_LETTER else _decision(topic, decode_finding(raw.value))


def current(events: Sequence[DecisionEvent]) -> DecisionEvent | None:
    """The event that holds now.

    Of the newest decision: what people said last, else the strictest of what the machine said.
    """
    if not events:
        return None
    newest = max(events, key=lambda e: (e.activity == "create", e.occurred_at)).decision_uid
    same = [e for e in events if e.decision_uid == newest]
    return min(same, key=lambda e: (-e.sequence, _STRICTEST.index(e.outcome)))


def evidence_href(tenant: str, media_id: str, sha256: str) -> str:
    """Where the gateway gives a blob out."""
    return f"/v1/media/{quote(media_id, safe='')}/evidence/{sha256}?tenant={quote(tenant, safe='')}"


def _decision(topic: Topic, finding: DetectionFinding) -> Projected:
    decision, review = finding.unmapped.mediasieve, finding.unmapped.review
    admission = decision.admission
    links = tuple(
        EvidenceLink(
            kind=ref.kind, sha256=ref.sha256, href=evidence_href(admission.tenant, admission.media_id, ref.sha256)
        )
        for ref in decision.evidence
    )
    fields: dict[str, Any] = {name: getattr(decision, name) for name in _SAME}
    event = DecisionEvent(
        **fields,
        event_uid=finding.metadata.uid,
        tenant=admission.tenant,
        media_id=admission.media_id,
        uri=admission.uri,
        sequence=finding.metadata.sequence,
        activity=_ACTIVITIES[finding.activity_id],
        outcome=_OUTCOMES[topic],
        machine_outcome=decision.outcome,
        policy_version=admission.policy_version,
        bundle_version=admission.bundle_version,
        content_sha256=decision.facts.sha256 if decision.facts else None,
        review_label=review.label if review else None,
        evidence=links,
        occurred_at=datetime.fromtimestamp(finding.time / 1000, UTC),
    )
    return Projected(event, decision.evidence)


_SAME = ("decision_uid", "risk", "final_score", "mode", "stage_exited", "reasons", "scores")


def _rejection(raw: RawRecord) -> Projected | None:
    letter = decode(DeadLetter, raw.header(DEAD_LETTER_HEADER) or b"")
    if letter.tenant is None:
        return None
    place = f"{letter.topic}-{letter.partition}-{letter.offset}"
    event = RejectionEvent(
        event_uid=uuid5(_EVENT_NAMESPACE, place),
        tenant=letter.tenant,
        media_id=letter.media_id,
        code=letter.code,
        detail=letter.detail,
        occurred_at=letter.failed_at,
    )
    return Projected(event)
