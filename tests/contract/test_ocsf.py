"""Findings against OCSF 1.5.0 as an independent package has it, and against the numbers we promise."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any
from uuid import uuid5

import ocsf_emitter
import pytest
from ocsf_emitter import models as oracle
from pydantic import BaseModel, ValidationError

from schemas import generate
from schemas.deadletter import RejectCode
from schemas.decision import Decision, ReasonCode, Risk
from schemas.ocsf import (
    Activity,
    DetectionFinding,
    decision_from_finding,
    encode_finding,
    event_uid,
    finding_from_decision,
)
from schemas.wire import UnknownMajorVersion, WireError, decode

VALID = generate.ROOT / "examples/valid"
DECISIONS = sorted((VALID / "decision").glob("*.json"))
FINDINGS = sorted((VALID / "detection_finding").glob("*.json"))
PROFILE_ATTRIBUTES = {"action", "action_id", "disposition", "disposition_id", "priority", "priority_id"}
"""The oracle has the base class only; its models of incidents and dispositions are checked below by number."""


def stem(path: Path) -> str:
    return path.stem


def decision(name: str, **changes: Any) -> Decision:
    found = decode(Decision, (VALID / f"decision/{name}.json").read_bytes())
    return Decision.model_validate({**found.model_dump(), **changes})


def finding(name: str, **changes: Any) -> dict[str, Any]:
    loaded: dict[str, Any] = json.loads(encode_finding(finding_from_decision(decision(name, **changes))))
    return loaded


def unknown_attributes(model: BaseModel, path: str = "") -> list[str]:
    """Attributes that the oracle kept as extras, at any level that OCSF defines."""
    found = [f"{path}{name}" for name in model.model_extra or {}]
    for name in type(model).model_fields:
        value = getattr(model, name)
        for part in value if isinstance(value, list) else [value]:
            if isinstance(part, BaseModel) and not isinstance(part, oracle.Object):
                found += unknown_attributes(part, f"{path}{name}.")
    return found


@pytest.mark.parametrize("path", FINDINGS, ids=stem)
def test_the_oracle_accepts_every_finding_and_knows_every_attribute(path: Path) -> None:
    seen = oracle.DetectionFinding.model_validate_json(path.read_bytes())
    ocsf_emitter.validate(seen)
    assert set(unknown_attributes(seen)) <= PROFILE_ATTRIBUTES


@pytest.mark.parametrize("attribute", ["type_uid", "severity_id", "time", "metadata", "finding_info", "class_uid"])
def test_the_oracle_would_notice_a_missing_attribute(attribute: str) -> None:
    broken = finding("block")
    del broken[attribute]
    with pytest.raises(ValidationError, match=attribute):
        oracle.DetectionFinding.model_validate(broken)


def test_the_oracle_would_notice_a_misspelt_attribute() -> None:
    broken = finding("block")
    broken["finding_info"]["titel"] = broken["finding_info"].pop("title")
    assert "finding_info.titel" in unknown_attributes(oracle.DetectionFinding.model_validate(broken))


@pytest.mark.parametrize("path", DECISIONS, ids=stem)
def test_the_example_of_a_finding_is_its_decision(path: Path) -> None:
    expected = decode(Decision, path.read_bytes())
    assert decision_from_finding((VALID / "detection_finding" / path.name).read_bytes()) == expected
    assert DetectionFinding.model_validate_json(encode_finding(finding_from_decision(expected)))


@pytest.mark.parametrize(
    ("name", "numbers"),
    [
        ("block", {"severity_id": 4, "action_id": 2, "disposition_id": 2, "is_alert": True, "status_id": 1}),
        (
            "escalate_uncertain",
            {"severity_id": 3, "action_id": 2, "disposition_id": 14, "is_alert": True, "status_id": 1},
        ),
        ("pass_released", {"severity_id": 1, "action_id": 1, "disposition_id": 1, "is_alert": False}),
        ("pass_low_risk", {"severity_id": 1, "action_id": 1, "disposition_id": 1, "is_alert": False}),
        ("pass_cleared", {"severity_id": 1, "action_id": 1, "disposition_id": 1, "is_alert": False}),
    ],
)
def test_numbers_by_outcome(name: str, numbers: dict[str, Any]) -> None:
    found = finding(name)
    assert {key: found[key] for key in numbers} == numbers
    assert ("status_id" in found) == found["is_alert"]
    held = name.startswith("escalate")
    assert found["metadata"]["profiles"] == ["security_control"] + ["incident"] * held
    assert ("priority_id" in found) == held


def test_identity_and_time() -> None:
    found, decided = finding("block"), decision("block")
    assert (found["class_uid"], found["category_uid"], found["type_uid"], found["activity_id"]) == (2004, 2, 200401, 1)
    assert found["time"] == 1769860803123
    assert found["finding_info"]["uid"] == str(decided.decision_uid)
    assert found["metadata"]["uid"] == str(uuid5(decided.decision_uid, "1/0"))
    assert found["metadata"]["version"] == "1.5.0"
    assert found["metadata"]["correlation_uid"] == "news-desk/img-20260131-0042"
    assert found["finding_info"]["analytic"]["version"] == "first-1.0/2026.1"


def test_a_later_event_of_the_same_decision_is_an_update_with_an_uid_of_its_own() -> None:
    first, second, third = (finding("escalate_uncertain", sequence=n) for n in range(3))
    assert (second["activity_id"], second["type_uid"], second["metadata"]["sequence"]) == (2, 200402, 1)
    assert len({f["metadata"]["uid"] for f in (first, second, third)}) == 3
    assert len({f["finding_info"]["uid"] for f in (first, second, third)}) == 1
    ocsf_emitter.validate(oracle.DetectionFinding.model_validate(second))


def test_event_uids_differ_by_activity_and_sequence_and_nothing_else() -> None:
    uid = decision("block").decision_uid
    assert event_uid(uid, Activity.CREATE, 0) == event_uid(uid, Activity.CREATE, 0)
    assert event_uid(uid, Activity.CREATE, 1) != event_uid(uid, Activity.UPDATE, 1)


def test_evidence_is_named_by_digest_and_never_inline() -> None:
    (evidence,) = finding("block")["evidences"]
    facts = decision("block").facts
    assert facts is not None
    assert evidence["file"]["hashes"] == [{"algorithm": "SHA-256", "algorithm_id": 3, "value": facts.sha256}]
    assert [set(entry) for entry in evidence["data"]["evidence"]] == [{"kind", "uri", "sha256"}] * 2
    (unfetched,) = finding("escalate_undecodable")["evidences"]
    assert set(unfetched) == {"url"}


@pytest.mark.parametrize(("score", "priority"), [(0.9, 3), (0.75, 3), (0.6, 2), (0.5, 2), (0.3, 1), (None, 2)])
def test_what_people_see_first(score: float | None, priority: int) -> None:
    assert finding("escalate_uncertain", final_score=score)["priority_id"] == priority


@pytest.mark.parametrize(("score", "confidence"), [(0.95, 3), (0.05, 3), (0.75, 2), (0.25, 2), (0.6, 1), (None, 0)])
def test_confidence_by_margin(score: float | None, confidence: int) -> None:
    assert finding("escalate_uncertain", final_score=score)["confidence_id"] == confidence


@pytest.mark.parametrize("code", ReasonCode)
def test_every_reason_reads_in_the_finding(code: ReasonCode) -> None:
    found = finding("escalate_uncertain", reasons=({"code": code, "detail": "why"},))
    assert found["finding_info"]["desc"] == code.value
    assert found["message"].endswith(f"{code.value}: why")


@pytest.mark.parametrize("risk", Risk)
def test_a_pass_says_how_in_the_decision(risk: Risk) -> None:
    assert finding("pass_cleared", risk=risk)["unmapped"]["mediasieve"]["risk"] == risk.value


@pytest.mark.parametrize(
    ("change", "field"),
    [
        ({"class_uid": 2005}, "class_uid"),
        ({"unmapped": None}, "unmapped.mediasieve"),
        ({"unmapped": {}}, "unmapped.mediasieve"),
        ({"unmapped": {"mediasieve": []}}, "object"),
        ({"finding_info": {"uid": "00000000-0000-0000-0000-000000000000"}}, "finding_info.uid"),
        ({"finding_info": None}, "finding_info.uid"),
    ],
)
def test_what_is_no_finding_of_ours_is_refused_by_name(change: dict[str, Any], field: str) -> None:
    with pytest.raises(WireError, match=field) as caught:
        decision_from_finding({**finding("block"), **change})
    assert caught.value.code is RejectCode.SCHEMA_INVALID


def test_a_decision_of_another_major_version_stops_the_reader() -> None:
    later = finding("block")
    later["unmapped"]["mediasieve"]["schema_version"] = "2.0"
    with pytest.raises(UnknownMajorVersion):
        decision_from_finding(later)
