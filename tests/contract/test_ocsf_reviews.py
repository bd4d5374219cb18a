"""What people say of a decision: Update for a review, Close for a closed case, with the incident profile."""

from __future__ import annotations

import json
from datetime import timedelta
from typing import Any
from uuid import UUID

import ocsf_emitter
import pytest
from ocsf_emitter import models as oracle

from schemas.decision import Decision, Outcome
from schemas.ocsf import (
    Activity,
    decision_from_finding,
    decode_finding,
    encode_finding,
    event_uid,
    finding_from_closed_case,
    finding_from_decision,
    finding_from_review,
)
from schemas.review import Label
from tests.support.findings import FINDINGS, decision, review_of

HELD = decision("escalate_uncertain")


def reviewed(label: Label, decided: Decision = HELD) -> dict[str, Any]:
    loaded: dict[str, Any] = json.loads(encode_finding(finding_from_review(decided, review_of(decided, label), 1)))
    return loaded


def closed(label: Label | None, decided: Decision = HELD) -> dict[str, Any]:
    review = None if label is None else review_of(decided, label)
    at = decided.decided_at + timedelta(hours=1)
    loaded: dict[str, Any] = json.loads(encode_finding(finding_from_closed_case(decided, review, at, 2)))
    return loaded


@pytest.mark.parametrize(
    ("label", "verdict", "severity", "alert"),
    [
        (Label.GENERATED, (2, "True Positive"), 4, True),
        (Label.AI_PROCESSED, (4, "Suspicious"), 2, False),
        (Label.PHOTOGRAPH, (1, "False Positive"), 1, False),
        (Label.UNDECIDABLE, (7, "Insufficient Data"), 3, False),
    ],
)
def test_a_review_is_an_update_with_its_verdict(
    label: Label, verdict: tuple[int, str], severity: int, alert: bool
) -> None:
    found = reviewed(label)
    assert (found["activity_id"], found["type_uid"], found["metadata"]["profiles"][1]) == (2, 200402, "incident")
    assert (found["verdict_id"], found["verdict"]) == verdict
    assert (found["severity_id"], found["is_alert"]) == (severity, alert)
    assert (found["status_id"], found["status"]) == (2, "In Progress")
    assert found["metadata"]["event_code"] == f"review.{label}"
    assert found["assignee"] == {"name": "r.meyer"}
    assert found["comment"] == "seen at full size"
    assert found["time"] == found["finding_info"]["created_time"] + 600_000


@pytest.mark.parametrize("label", Label)
def test_a_review_alone_lets_nothing_through(label: Label) -> None:
    found, before = reviewed(label), json.loads(encode_finding(finding_from_decision(HELD)))
    assert (found["action_id"], found["disposition_id"]) == (before["action_id"], before["disposition_id"]) == (2, 14)


@pytest.mark.parametrize(
    ("label", "control", "status"),
    [
        (Label.GENERATED, (2, 2), "Resolved"),
        (Label.AI_PROCESSED, (1, 1), "Resolved"),
        (Label.PHOTOGRAPH, (1, 1), "Suppressed"),
        (Label.UNDECIDABLE, (2, 2), "Resolved"),
        (None, (2, 2), "Archived"),
    ],
)
def test_a_close_says_what_finally_happens(label: Label | None, control: tuple[int, int], status: str) -> None:
    found = closed(label)
    assert (found["activity_id"], found["type_uid"], found["is_alert"]) == (3, 200403, False)
    assert ((found["action_id"], found["disposition_id"]), found["status"]) == (control, status)
    assert found["metadata"]["event_code"] == "closed"
    assert ("verdict_id" in found) == ("assignee" in found) == (label is not None)


@pytest.mark.parametrize("outcome", [Outcome.BLOCK, Outcome.PASS])
def test_closing_without_a_review_leaves_what_the_machine_did(outcome: Outcome) -> None:
    decided = decision("block" if outcome is Outcome.BLOCK else "pass_cleared")
    created = json.loads(encode_finding(finding_from_decision(decided)))
    assert [closed(None, decided)[key] for key in ("action_id", "disposition_id")] == [
        created["action_id"],
        created["disposition_id"],
    ]


def test_a_missed_generated_image_alerts_though_it_had_passed() -> None:
    found = reviewed(Label.GENERATED, decision("pass_cleared"))
    assert (found["is_alert"], found["verdict"], found["action"]) == (True, "True Positive", "Allowed")
    assert found["metadata"]["profiles"] == ["security_control", "incident"]


def test_events_of_a_finding_share_one_uid_and_have_one_each() -> None:
    create = json.loads(encode_finding(finding_from_decision(HELD)))
    events = [create, reviewed(Label.GENERATED), closed(Label.GENERATED)]
    assert [event["metadata"]["uid"] for event in events] == [
        str(event_uid(HELD.decision_uid, activity, n)) for n, activity in enumerate(Activity)
    ]
    assert {event["finding_info"]["uid"] for event in events} == {str(HELD.decision_uid)}
    assert {event["metadata"]["correlation_uid"] for event in events} == {"news-desk/img-20260131-0042"}


@pytest.mark.parametrize("label", Label)
def test_the_decision_and_the_review_lie_inside(label: Label) -> None:
    value = json.dumps(reviewed(label)).encode()
    assert decision_from_finding(value) == HELD
    assert decode_finding(value).unmapped.review == review_of(HELD, label)
    ocsf_emitter.validate(oracle.DetectionFinding.model_validate_json(value))
    ocsf_emitter.validate(oracle.DetectionFinding.model_validate(closed(label)))


def test_a_review_of_another_decision_is_refused() -> None:
    other = review_of(HELD).model_copy(update={"decision_uid": UUID(int=1)})
    with pytest.raises(ValueError, match="decision_uid"):
        finding_from_review(HELD, other, 1)
    with pytest.raises(ValueError, match="decision_uid"):
        finding_from_closed_case(HELD, other, HELD.decided_at, 1)


def test_the_number_of_the_create_is_refused() -> None:
    with pytest.raises(ValueError, match="sequence is 0"):
        finding_from_review(HELD, review_of(HELD), 0)


def test_every_kind_of_event_is_a_golden_file() -> None:
    codes = {json.loads(path.read_bytes())["metadata"]["event_code"] for path in FINDINGS}
    assert codes == {
        *("block", "escalate", "pass.released", "pass.low_risk", "pass.cleared", "closed"),
        *(f"review.{label}" for label in Label),
    }
