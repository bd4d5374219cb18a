"""Decisions as OCSF 1.5.0 Detection Findings (class 2004), so that a SIEM reads them without a mapping.

Only the attributes that we fill, named and numbered as https://schema.ocsf.io/1.5.0/classes/detection_finding
says. Our own Decision lies whole under `unmapped.mediasieve`, hence the way back loses nothing.
"""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from enum import IntEnum
from importlib.metadata import version
from typing import Annotated, Any, Literal
from uuid import UUID, uuid5

import orjson
from pydantic import Field

from schemas.base import Part
from schemas.deadletter import RejectCode
from schemas.decision import Decision, Outcome
from schemas.media import EvidenceRef
from schemas.wire import WireError, parse_json, read

OCSF_VERSION: Literal["1.5.0"] = "1.5.0"
CLASS_UID: Literal[2004] = 2004
PRODUCT_VERSION = version("mediasieve")

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


class Activity(IntEnum):
    """The machine's verdict creates a finding; each later event of the same decision updates it."""

    CREATE = 1
    UPDATE = 2


class Severity(IntEnum):
    """OCSF `severity_id`."""

    INFORMATIONAL = 1
    MEDIUM = 3
    HIGH = 4


class Confidence(IntEnum):
    """OCSF `confidence_id`."""

    UNKNOWN = 0
    LOW = 1
    MEDIUM = 2
    HIGH = 3


class Action(IntEnum):
    """OCSF `action_id`. Held media is denied until a reviewer allows it."""

    ALLOWED = 1
    DENIED = 2


class Disposition(IntEnum):
    """OCSF `disposition_id`."""

    ALLOWED = 1
    BLOCKED = 2
    DELAYED = 14


class IncidentPriority(IntEnum):
    """OCSF `priority_id`."""

    LOW = 1
    MEDIUM = 2
    HIGH = 3


class Product(Part):
    """OCSF object `product`."""

    name: Literal["mediasieve"] = "mediasieve"
    vendor_name: Literal["mediasieve"] = "mediasieve"
    version: str


class Metadata(Part):
    """OCSF object `metadata`: duplicates share `uid`, events of one media item `correlation_uid`."""

    version: Literal["1.5.0"] = OCSF_VERSION
    product: Product
    profiles: tuple[str, ...]
    uid: UUID
    sequence: int
    correlation_uid: str
    tenant_uid: str


class Analytic(Part):
    """OCSF object `analytic`; `version` is `<bundle>/<policy>`."""

    name: Literal["mediasieve"] = "mediasieve"
    type_id: Literal[4] = 4
    type: Literal["Learning (ML/DL)"] = "Learning (ML/DL)"
    version: str


class FindingInfo(Part):
    """OCSF object `finding_info`; `uid` groups all events of one decision."""

    uid: UUID
    title: str
    desc: str
    analytic: Analytic


class Fingerprint(Part):
    """OCSF object `fingerprint`."""

    algorithm_id: Literal[3] = 3
    algorithm: Literal["SHA-256"] = "SHA-256"
    value: str


class File(Part):
    """OCSF object `file`; size in bytes."""

    name: str
    type_id: Literal[1] = 1
    type: Literal["Regular File"] = "Regular File"
    size: int
    mime_type: str
    hashes: tuple[Fingerprint, ...]


class Url(Part):
    """OCSF object `url`."""

    url_string: str


class EvidenceData(Part):
    """Where the evidence lies and its digests, never the evidence itself."""

    evidence: tuple[EvidenceRef, ...]


class Evidences(Part):
    """OCSF object `evidences`."""

    url: Url
    file: File | None = None
    data: EvidenceData | None = None


class Unmapped(Part):
    """OCSF object for what the class has no attribute for."""

    mediasieve: Decision


class DetectionFinding(Part):
    """OCSF class 2004 with the profiles security_control and, for what people must look at, incident."""

    activity_id: Activity
    activity_name: str
    category_uid: Literal[2] = 2
    category_name: Literal["Findings"] = "Findings"
    class_uid: Literal[2004] = CLASS_UID
    class_name: Literal["Detection Finding"] = "Detection Finding"
    type_uid: Literal[200401, 200402]
    type_name: str
    time: int = Field(description="When it was decided, in milliseconds since the epoch.")
    message: str
    severity_id: Severity
    severity: str
    confidence_id: Confidence
    confidence: str
    is_alert: bool
    status_id: Literal[1] | None = None
    status: Literal["New"] | None = None
    action_id: Action
    action: str
    disposition_id: Disposition
    disposition: str
    priority_id: IncidentPriority | None = None
    priority: str | None = None
    metadata: Metadata
    finding_info: FindingInfo
    evidences: Annotated[tuple[Evidences, ...], Field(min_length=1)]
    unmapped: Unmapped


_TITLE = {
    Outcome.BLOCK: "Synthetic media blocked",
    Outcome.ESCALATE: "Media held for review",
    Outcome.PASS: "Media passed",
}
_SEVERITY = {
    Outcome.BLOCK: Severity.HIGH,
    Outcome.ESCALATE: Severity.MEDIUM,
    Outcome.PASS: Severity.INFORMATIONAL,
}
_CONTROL = {
    Outcome.BLOCK: (Action.DENIED, Disposition.BLOCKED),
    Outcome.ESCALATE: (Action.DENIED, Disposition.DELAYED),
    Outcome.PASS: (Action.ALLOWED, Disposition.ALLOWED),
}


def event_uid(decision_uid: UUID, activity: Activity, sequence: int) -> UUID:
    """UUIDv5 of one event of a finding: what a SIEM drops duplicates by (`metadata.uid`)."""
    return uuid5(decision_uid, f"{activity.value}/{sequence}")


def finding_from_decision(decision: Decision) -> DetectionFinding:
    """The finding that a SIEM reads. Sequence 0 is a Create, every later one an Update."""
    activity = Activity.CREATE if decision.sequence == 0 else Activity.UPDATE
    severity, confidence = _SEVERITY[decision.outcome], _confidence(decision.final_score)
    action, disposition = _CONTROL[decision.outcome]
    alert = decision.outcome is not Outcome.PASS
    priority = _incident_priority(decision) if decision.outcome is Outcome.ESCALATE else None
    reason = decision.reasons[0]
    return DetectionFinding(
        activity_id=activity,
        activity_name=_caption(activity),
        type_uid=200401 if activity is Activity.CREATE else 200402,
        type_name=f"Detection Finding: {_caption(activity)}",
        time=(decision.decided_at - _EPOCH) // timedelta(milliseconds=1),
        message=": ".join(filter(None, (_TITLE[decision.outcome], reason.code.value, reason.detail))),
        severity_id=severity,
        severity=_caption(severity),
        confidence_id=confidence,
        confidence=_caption(confidence),
        is_alert=alert,
        status_id=1 if alert else None,
        status="New" if alert else None,
        action_id=action,
        action=_caption(action),
        disposition_id=disposition,
        disposition=_caption(disposition),
        priority_id=priority,
        priority=None if priority is None else _caption(priority),
        metadata=_metadata(decision, activity),
        finding_info=_finding_info(decision),
        evidences=(_evidences(decision),),
        unmapped=Unmapped(mediasieve=decision),
    )


def encode_finding(finding: DetectionFinding) -> bytes:
    """UTF-8 JSON without the attributes that are not given; the decision inside keeps its nulls."""
    outer = finding.model_dump(exclude_none=True, exclude={"unmapped"})
    inner = finding.unmapped.model_dump()
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


def _caption(value: IntEnum) -> str:
    return value.name.capitalize()


def _confidence(score: float | None) -> Confidence:
    """By the distance of P(synthetic) from a coin toss, 0 to 0.5, in steps of 0.2."""
    if score is None:
        return Confidence.UNKNOWN
    margin = abs(score - 0.5)
    return Confidence.HIGH if margin >= 0.4 else Confidence.MEDIUM if margin >= 0.2 else Confidence.LOW


def _incident_priority(decision: Decision) -> IncidentPriority:
    """Media that could not be scored waits with the likely synthetic, before the likely real."""
    score, thresholds = decision.final_score, decision.thresholds
    if score is None:
        return IncidentPriority.MEDIUM
    if score >= thresholds.priority:
        return IncidentPriority.HIGH
    return IncidentPriority.MEDIUM if score >= thresholds.uncertain else IncidentPriority.LOW


def _metadata(decision: Decision, activity: Activity) -> Metadata:
    admission = decision.admission
    held = decision.outcome is Outcome.ESCALATE
    return Metadata(
        product=Product(version=PRODUCT_VERSION),
        profiles=("security_control", "incident") if held else ("security_control",),
        uid=event_uid(decision.decision_uid, activity, decision.sequence),
        sequence=decision.sequence,
        correlation_uid=f"{admission.tenant}/{admission.media_id}",
        tenant_uid=admission.tenant,
    )


def _finding_info(decision: Decision) -> FindingInfo:
    admission = decision.admission
    return FindingInfo(
        uid=decision.decision_uid,
        title=_TITLE[decision.outcome],
        desc=", ".join(reason.code.value for reason in decision.reasons),
        analytic=Analytic(version=f"{admission.bundle_version}/{admission.policy_version}"),
    )


def _evidences(decision: Decision) -> Evidences:
    facts = decision.facts
    file = facts and File(
        name=decision.admission.media_id,
        size=facts.size_bytes,
        mime_type=f"image/{facts.format}",
        hashes=(Fingerprint(value=facts.sha256),),
    )
    return Evidences(
        url=Url(url_string=decision.admission.uri),
        file=file,
        data=EvidenceData(evidence=decision.evidence) if decision.evidence else None,
    )
