"""Findings in number: every kind of event, each of an item of its own."""

from __future__ import annotations

from datetime import timedelta
from typing import Any
from uuid import NAMESPACE_OID, uuid5

from schemas import generate
from schemas.decision import Decision
from schemas.media import decision_uid
from schemas.ocsf import (
    DetectionFinding,
    decode_finding,
    encode_finding,
    finding_from_closed_case,
    finding_from_decision,
    finding_from_review,
)
from schemas.review import Label, ReviewVerdict
from schemas.wire import decode

VALID = generate.ROOT / "examples/valid"
DECISIONS = sorted((VALID / "decision").glob("*.json"))
FINDINGS = sorted((VALID / "detection_finding").glob("*.json"))
"""The golden files."""


def decision(name: str, **changes: Any) -> Decision:
    """The example of this name, with fields replaced."""
    found = decode(Decision, (VALID / f"decision/{name}.json").read_bytes())
    return Decision.model_validate({**found.model_dump(), **changes})


def golden(name: str) -> DetectionFinding:
    """The golden finding of this name."""
    return decode_finding((VALID / f"detection_finding/{name}.json").read_bytes())


def decision_of(media_id: str, name: str) -> Decision:
    """The example's decision on another item of media."""
    found = decision(name)
    sha256 = found.facts.sha256 if found.facts else None
    old = found.admission
    uid = decision_uid(old.tenant, media_id, sha256, old.policy_version, old.bundle_version)
    admission = old.model_copy(update={"media_id": media_id, "decision_uid": uid})
    return found.model_copy(update={"admission": admission, "decision_uid": uid})


def review_of(decided: Decision, label: Label = Label.PHOTOGRAPH) -> ReviewVerdict:
    """Ten minutes after the decision."""
    return ReviewVerdict(
        review_id=uuid5(NAMESPACE_OID, str(decided.decision_uid)),
        decision_uid=decided.decision_uid,
        tenant=decided.admission.tenant,
        media_id=decided.admission.media_id,
        label=label,
        reviewer="r.meyer",
        rationale="seen at full size",
        reviewed_at=decided.decided_at + timedelta(minutes=10),
    )


def published(items: int) -> list[bytes]:
    """Events of that many items, as a decision topic holds them: held ones also reviewed and closed."""
    found: list[DetectionFinding] = []
    for number in range(items):
        decided = decision_of(f"item-{number}", DECISIONS[number % len(DECISIONS)].stem)
        found.append(finding_from_decision(decided))
        if found[-1].priority_id is not None:
            review = review_of(decided, list(Label)[number % len(Label)])
            found.append(finding_from_review(decided, review, 1))
            found.append(finding_from_closed_case(decided, review, review.reviewed_at, 2))
    return [encode_finding(finding) for finding in found]
