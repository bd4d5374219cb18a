"""The Detection Finding itself, and its bytes."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Annotated, Any, Literal
from uuid import UUID, uuid5

import orjson
from pydantic import Field, ValidationError

from schemas.base import Part
from schemas.deadletter import RejectCode
from schemas.decision import Decision
from schemas.ocsf.numbers import (
    CLASS_UID,
    Action,
    Activity,
    Confidence,
    Disposition,
    IncidentPriority,
    Severity,
    Status,
    Verdict,
)
from schemas.ocsf.objects import Evidences, FindingInfo, Metadata, SecurityPolicy, Unmapped, User
from schemas.wire import WireError, describe, parse_json, read

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_END_MS = 253_402_300_800_000  # the year 10000, which no datetime has


class DetectionFinding(Part):
    """OCSF class 2004 with the profiles security_control and, for what people look at, incident.

    `risk_score` is 100 P(synthetic), rounded; absent when nothing could be scored.
    """

    activity_id: Activity
    activity_name: str
    category_uid: Literal[2] = 2
    category_name: Literal["Findings"] = "Findings"
    class_uid: Literal[2004] = CLASS_UID
    class_name: Literal["Detection Finding"] = "Detection Finding"
    type_uid: Literal[200401, 200402, 200403]
    type_name: str
    time: int = Field(description="When it was decided, reviewed or closed, in milliseconds since the epoch.")
    message: str
    severity_id: Severity
    severity: str
    confidence_id: Confidence
    confidence: str
    is_alert: bool
    risk_score: int | None = None
    status_id: Status | None = None
    status: str | None = None
    action_id: Action
    action: str
    disposition_id: Disposition
    disposition: str
    priority_id: IncidentPriority | None = None
    priority: str | None = None
    verdict_id: Verdict | None = None
    verdict: str | None = None
    assignee: User | None = None
    comment: str | None = None
    metadata: Metadata
    finding_info: FindingInfo
    policy: SecurityPolicy | None = None
    evidences: Annotated[tuple[Evidences, ...], Field(min_length=1)]
    unmapped: Unmapped


def event_uid(decision_uid: UUID, activity: Activity, sequence: int) -> UUID:
    """UUIDv5 of one event of a finding: what a SIEM drops duplicates by (`metadata.uid`)."""
    return uuid5(decision_uid, f"{activity.value}/{sequence}")


def milliseconds(time: datetime) -> int:
    """Since the epoch, rounded down."""
    return (time - _EPOCH) // timedelta(milliseconds=1)


def encode_finding(finding: DetectionFinding) -> bytes:
    """UTF-8 JSON without the attributes that are not given; our records inside keep their nulls."""
    outer = finding.model_dump(exclude_none=True, exclude={"unmapped"})
    inner = {name: record.model_dump() for name, record in finding.unmapped if record is not None}
    return orjson.dumps({**outer, "unmapped": inner}, option=orjson.OPT_UTC_Z)


def decision_from_finding(value: bytes | dict[str, Any]) -> Decision:
    """Our decision out of a finding, ignoring unknown attributes.

    Raises:
        schemas.wire.WireError: no JSON, no Detection Finding of ours, or a decision that is not one.
        schemas.wire.UnknownMajorVersion: a decision of a newer major version.
    """
    data = parse_json(value) if isinstance(value, bytes) else value
    if not isinstance(data, dict) or data.get("class_uid") != CLASS_UID:
        raise WireError(RejectCode.SCHEMA_INVALID, f"class_uid: expected an OCSF object of class {CLASS_UID}")
    unmapped, info = data.get("unmapped"), data.get("finding_info")
    if not isinstance(unmapped, dict) or "mediasieve" not in unmapped:
        raise WireError(RejectCode.SCHEMA_INVALID, "unmapped.mediasieve: missing; not a finding of mediasieve")
    decision = read(Decision, unmapped["mediasieve"])
    if not isinstance(info, dict) or info.get("uid") != str(decision.decision_uid):
        raise WireError(RejectCode.SCHEMA_INVALID, "finding_info.uid: differs from the decision's uid")
    return decision


def machine_decision(value: bytes | dict[str, Any]) -> Decision | None:
    """The decision out of a finding by which the machine decides; None for what people make of one (review, close).

    For whoever counts decisions: the events of reviews lie on the same topics. Raises as `decision_from_finding` does.
    """
    data = parse_json(value) if isinstance(value, bytes) else value
    decision = decision_from_finding(data)
    return None if _by_people(data) else decision


def reviewed_at(value: bytes | dict[str, Any]) -> datetime | None:
    """When people said what this finding tells (`time`, UTC); None where it is the machine's, or no finding of ours."""
    try:
        data = parse_json(value) if isinstance(value, bytes) else value
    except WireError:
        return None
    if not isinstance(data, dict) or not isinstance(data.get("unmapped"), dict) or not _by_people(data):
        return None
    time = data.get("time")
    return _EPOCH + timedelta(milliseconds=time) if isinstance(time, int) and 0 <= time < _END_MS else None


def _by_people(data: dict[str, Any]) -> bool:
    return data.get("activity_id") == Activity.CLOSE or data["unmapped"].get("review") is not None


def decode_finding(value: bytes) -> DetectionFinding:
    """The whole finding, for projections; raises as `decision_from_finding` does."""
    data = parse_json(value)
    decision_from_finding(data)
    try:
        return DetectionFinding.model_validate(data, extra="ignore")
    except ValidationError as error:
        raise WireError(RejectCode.SCHEMA_INVALID, describe(error)) from error
