"""Decisions as OCSF 1.5.0 Detection Findings (class 2004), so that a SIEM reads them without a mapping.

Only the attributes that we fill, named and numbered as https://schema.ocsf.io/1.5.0/classes/detection_finding
says. Our own Decision lies whole under `unmapped.mediasieve`, hence the way back loses nothing.
"""

from schemas.ocsf.decided import finding_from_decision
from schemas.ocsf.finding import (
    DetectionFinding,
    decision_from_finding,
    decode_finding,
    encode_finding,
    event_uid,
    machine_decision,
    reviewed_at,
)
from schemas.ocsf.numbers import Activity
from schemas.ocsf.reviewed import finding_from_closed_case, finding_from_review

__all__ = [
    "Activity",
    "DetectionFinding",
    "decision_from_finding",
    "decode_finding",
    "encode_finding",
    "event_uid",
    "finding_from_closed_case",
    "finding_from_decision",
    "finding_from_review",
    "machine_decision",
    "reviewed_at",
]
