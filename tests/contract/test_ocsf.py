"""Findings against OCSF 1.5.0 as an independent package has it, and against the numbers we promise."""

from __future__ import annotations

import json
from enum import IntEnum
from pathlib import Path
from typing import Any
from uuid import uuid5

import ocsf_emitter
import pytest
from ocsf_emitter import models as oracle
from pydantic import BaseModel, ValidationError

from schemas.deadletter import RejectCode
from schemas.decision import Decision, Outcome, ReasonCode, Risk
from schemas.ocsf import (
    Activity,
    DetectionFinding,
    decision_from_finding,
    decode_finding,
    encode_finding,
    event_uid,
    finding_from_decision,
)
from schemas.ocsf.decided import FAILED_ANALYSIS
from schemas.ocsf.numbers import Action, Confidence, Disposition, IncidentPriority, Severity, Status, Verdict, caption
from schemas.wire import UnknownMajorVersion, WireError, decode
from tests.support.findings import DECISIONS, FINDINGS, VALID, decision

PROFILE_ATTRIBUTES = {
    "security_control": {"action", "action_id", "disposition", "disposition_id", "policy"},
    "incident": {"priority", "priority_id", "verdict", "verdict_id", "assignee"},
}
"""The oracle's Detection Finding has the base class only; what the two profiles add is checked below."""


def stem(path: Path) -> str:
    return path.stem


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
    added = [PROFILE_ATTRIBUTES[profile] for profile in seen.metadata.profiles or []]
    assert set(unknown_attributes(seen)) <= set().union(*added)


@pytest.mark.parametrize("path", FINDINGS, ids=stem)
def test_the_oracle_knows_the_objects_of_the_profiles(path: Path) -> None:
    """Incident Finding has the incident profile's attributes in its base class."""
    found = json.loads(path.read_bytes())
    assert oracle.Policy.model_validate(found["policy"]).model_extra == {}
    if "assignee" in found:
        assert oracle.User.model_validate(found["assignee"]).model_extra == {}
    incident = set(oracle.IncidentFinding.model_fields)
    assert incident >= PROFILE_ATTRIBUTES["incident"]
    for attribute, enum in (("priority_id", oracle.PriorityId), ("verdict_id", oracle.VerdictId)):
        assert attribute not in found or enum(found[attribute])


CAPTIONS = {
    Activity: {1: "Create", 2: "Update", 3: "Close"},
    Severity: {1: "Informational", 2: "Low", 3: "Medium", 4: "High"},
    Confidence: {0: "Unknown", 1: "Low", 2: "Medium", 3: "High"},
    Status: {1: "New", 2: "In Progress", 3: "Suppressed", 4: "Resolved", 5: "Archived"},
    Action: {1: "Allowed", 2: "Denied"},
    Disposition: {1: "Allowed", 2: "Blocked", 14: "Delayed", 27: "Error"},
    IncidentPriority: {1: "Low", 2: "Medium", 3: "High"},
    Verdict: {1: "False Positive", 2: "True Positive", 4: "Suspicious", 7: "Insufficient Data"},
}
"""As schema.ocsf.io/1.5.0 captions them."""


@pytest.mark.parametrize("enum", CAPTIONS, ids=lambda enum: enum.__name__)
def test_numbers_are_captioned_as_in_the_schema(enum: type[IntEnum]) -> None:
    assert {value.value: caption(value) for value in enum} == CAPTIONS[enum]


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
        (
            "escalate_undecodable",
            {"severity_id": 3, "action_id": 2, "disposition_id": 27, "is_alert": True, "status_id": 1},
        ),
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
def test_a_pass_says_how_where_a_siem_filters(risk: Risk) -> None:
    found = finding("pass_cleared", risk=risk)
    assert found["metadata"]["event_code"] == f"pass.{risk}"
    assert f"risk:{risk}" in found["metadata"]["labels"]
    assert found["unmapped"]["mediasieve"]["risk"] == risk.value


@pytest.mark.parametrize(("name", "code"), [("block", "block"), ("escalate_uncertain", "escalate")])
def test_what_is_no_pass_has_no_risk(name: str, code: str) -> None:
    found = finding(name)
    assert found["metadata"]["event_code"] == code
    assert [label.partition(":")[0] for label in found["metadata"]["labels"]] == ["outcome", "stage", "source"]


@pytest.mark.parametrize("code", ReasonCode)
@pytest.mark.parametrize("outcome", Outcome)
def test_failed_analysis_is_an_error_and_stays_denied(outcome: Outcome, code: ReasonCode) -> None:
    reasons = ({"code": ReasonCode.UNCERTAIN}, {"code": code})
    risk = Risk.LOW_RISK if outcome is Outcome.PASS else None
    found = finding("escalate_uncertain", outcome=outcome, risk=risk, reasons=reasons)
    expected = {Outcome.PASS: (1, 1), Outcome.BLOCK: (2, 2), Outcome.ESCALATE: (2, 14)}[outcome]
    if outcome is Outcome.ESCALATE and code in FAILED_ANALYSIS:
        expected = (2, 27)
    assert (found["action_id"], found["disposition_id"]) == expected


def test_what_counts_as_failed_analysis() -> None:
    scored = {code for code in ReasonCode if code.value.startswith(("score_", "anomaly_", "synthetic_", "authentic_"))}
    judged = {ReasonCode.UNCERTAIN, ReasonCode.NOT_BLOCKED, ReasonCode.NOT_CLEARED}
    nothing_failed = {ReasonCode.SPECTRAL_NOT_APPLICABLE, ReasonCode.EXPIRED, ReasonCode.MLLM_UNCONFIGURED}
    assert set(ReasonCode) - FAILED_ANALYSIS == scored | judged | nothing_failed


@pytest.mark.parametrize(
    ("name", "changes", "severity"),
    [
        ("block", {}, 4),
        ("escalate_uncertain", {"final_score": 0.76}, 4),
        ("escalate_uncertain", {"final_score": 0.5}, 3),
        ("escalate_uncertain", {"final_score": 0.49}, 2),
        ("escalate_uncertain", {"final_score": None}, 3),
        ("pass_low_risk", {}, 1),
        ("pass_cleared", {"thresholds": {**decision("pass_cleared").thresholds.model_dump(), "priority": 0.3}}, 2),
        ("pass_cleared", {"scores": ()}, 1),
    ],
)
def test_severity_by_outcome_and_score(name: str, changes: dict[str, Any], severity: int) -> None:
    assert finding(name, **changes)["severity_id"] == severity


@pytest.mark.parametrize(("score", "risk_score"), [(0.0, 0), (0.944, 94), (0.946, 95), (1.0, 100), (None, None)])
def test_the_score_is_in_percent(score: float | None, risk_score: int | None) -> None:
    assert finding("escalate_uncertain", final_score=score).get("risk_score") == risk_score


def test_who_sent_it_and_what_decided() -> None:
    found = finding("block")
    assert found["finding_info"]["data_sources"] == ["upload-api"]
    assert found["finding_info"]["analytic"]["uid"] == "first-1.0"
    assert found["policy"] == {"name": "mediasieve", "version": "2026.1"}
    assert found["finding_info"]["created_time"] == found["time"]
    assert "data_sources" not in finding("minimal")["finding_info"]


@pytest.mark.parametrize("path", FINDINGS, ids=stem)
def test_a_finding_is_read_whole(path: Path) -> None:
    value = path.read_bytes()
    assert json.loads(encode_finding(decode_finding(value))) == json.loads(value)


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
    value = {**finding("block"), **change}
    for read in (decision_from_finding, lambda broken: decode_finding(json.dumps(broken).encode())):
        with pytest.raises(WireError, match=field) as caught:
            read(value)
        assert caught.value.code is RejectCode.SCHEMA_INVALID


def test_an_attribute_of_another_type_is_refused_by_name() -> None:
    with pytest.raises(WireError, match="severity_id") as caught:
        decode_finding(json.dumps({**finding("block"), "severity_id": 98}).encode())
    assert caught.value.code is RejectCode.SCHEMA_INVALID


def test_a_decision_of_another_major_version_stops_the_reader() -> None:
    later = finding("block")
    later["unmapped"]["mediasieve"]["schema_version"] = "2.0"
    with pytest.raises(UnknownMajorVersion):
        decision_from_finding(later)
