"""The machine's verdict as a finding: Create, or Update when the machine decides again."""

from __future__ import annotations

from enum import IntEnum
from importlib.metadata import version
from typing import Any

from schemas.decision import Decision, Outcome, ReasonCode
from schemas.ocsf.finding import DetectionFinding, event_uid, milliseconds
from schemas.ocsf.numbers import Action, Activity, Confidence, Disposition, IncidentPriority, Severity, Status, caption
from schemas.ocsf.objects import (
    Analytic,
    EvidenceData,
    Evidences,
    File,
    FindingInfo,
    Fingerprint,
    Metadata,
    Product,
    SecurityPolicy,
    Unmapped,
    Url,
)

PRODUCT_VERSION = version("mediasieve")

FAILED_ANALYSIS = frozenset(
    {
        ReasonCode.MEDIA_TRUNCATED,
        ReasonCode.MEDIA_TOO_LARGE,
        ReasonCode.MEDIA_UNSUPPORTED,
        ReasonCode.MEDIA_TYPE_MISMATCH,
        ReasonCode.MEDIA_UNDECODABLE,
        ReasonCode.ANALYSIS_CRASH,
        ReasonCode.DEPENDENCY_UNAVAILABLE,
        ReasonCode.CONTENT_MISSING,
        ReasonCode.MLLM_UNAVAILABLE,
        ReasonCode.MLLM_TIMEOUT,
        ReasonCode.MLLM_REFUSED,
        ReasonCode.MLLM_INVALID_REPORT,
        ReasonCode.MLLM_OVERLOADED,
    }
)
"""Something that should have looked could not: disposition Error. A tier that nobody configured, a spectrum without
an answer and media that came too late are no failures; people look at them as at any other held media."""

_TITLE = {
    Outcome.BLOCK: "Synthetic media blocked",
    Outcome.ESCALATE: "Media held for review",
    Outcome.PASS: "Media passed",
}


def finding_from_decision(decision: Decision) -> DetectionFinding:
    """The finding that a SIEM reads. Sequence 0 is a Create, every later one an Update."""
    activity = Activity.CREATE if decision.sequence == 0 else Activity.UPDATE
    alert = decision.outcome is not Outcome.PASS
    action, disposition = control(decision)
    reason = decision.reasons[0]
    return DetectionFinding(
        **activity_fields(activity),
        **captioned("severity", severity(decision)),
        **captioned("status", Status.NEW if alert else None),
        **captioned("action", action),
        **captioned("disposition", disposition),
        **common_fields(decision),
        time=milliseconds(decision.decided_at),
        message=": ".join(filter(None, (_TITLE[decision.outcome], reason.code.value, reason.detail))),
        is_alert=alert,
        metadata=metadata(
            decision,
            activity,
            decision.sequence,
            ".".join(filter(None, (decision.outcome, decision.risk))),
            incident=decision.outcome is Outcome.ESCALATE,
        ),
        unmapped=Unmapped(mediasieve=decision),
    )


def control(decision: Decision) -> tuple[Action, Disposition]:
    """What was done with the media. Failed analysis is an Error and stays denied."""
    if decision.outcome is Outcome.PASS:
        return Action.ALLOWED, Disposition.ALLOWED
    if decision.outcome is Outcome.BLOCK:
        return Action.DENIED, Disposition.BLOCKED
    failed = any(reason.code in FAILED_ANALYSIS for reason in decision.reasons)
    return Action.DENIED, Disposition.ERROR if failed else Disposition.DELAYED


def severity(decision: Decision) -> Severity:
    """By outcome and score.

    Held media weighs as much as it is likely synthetic. A pass is Low when some tier had scored it at least
    `priority` and a later one overruled it.
    """
    thresholds = decision.thresholds
    if decision.outcome is Outcome.BLOCK:
        return Severity.HIGH
    if decision.outcome is Outcome.ESCALATE:
        score = decision.final_score
        if score is None:
            return Severity.MEDIUM
        if score >= thresholds.priority:
            return Severity.HIGH
        return Severity.MEDIUM if score >= thresholds.uncertain else Severity.LOW
    overruled = any(s.score is not None and s.score >= thresholds.priority for s in decision.scores)
    return Severity.LOW if overruled else Severity.INFORMATIONAL


def common_fields(decision: Decision) -> dict[str, Any]:
    """What every event of the decision says alike."""
    score = decision.final_score
    held = decision.outcome is Outcome.ESCALATE
    return {
        **captioned("confidence", _confidence(score)),
        **captioned("priority", _incident_priority(decision) if held else None),
        "risk_score": None if score is None else round(100 * score),
        "finding_info": _finding_info(decision),
        "policy": SecurityPolicy(version=decision.admission.policy_version),
        "evidences": (_evidences(decision),),
    }


def activity_fields(activity: Activity) -> dict[str, Any]:
    """`activity_*` and `type_*`, which follow from each other."""
    name = caption(activity)
    return {
        "activity_id": activity,
        "activity_name": name,
        "type_uid": 200400 + activity.value,
        "type_name": f"Detection Finding: {name}",
    }


def captioned(attribute: str, value: IntEnum | None) -> dict[str, Any]:
    """The pair `<attribute>_id` and `<attribute>`; neither when there is no value."""
    return {} if value is None else {f"{attribute}_id": value, attribute: caption(value)}


def metadata(decision: Decision, activity: Activity, sequence: int, event_code: str, *, incident: bool) -> Metadata:
    """Who says it, of what, and as which event."""
    admission = decision.admission
    source = () if admission.source is None else (f"source:{admission.source}",)
    risk = () if decision.risk is None else (f"risk:{decision.risk}",)
    return Metadata(
        product=Product(version=PRODUCT_VERSION),
        profiles=("security_control", "incident") if incident else ("security_control",),
        uid=event_uid(decision.decision_uid, activity, sequence),
        sequence=sequence,
        correlation_uid=f"{admission.tenant}/{admission.media_id}",
        tenant_uid=admission.tenant,
        event_code=event_code,
        labels=(f"outcome:{decision.outcome}", *risk, f"stage:{decision.stage_exited}", *source),
    )


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


def _finding_info(decision: Decision) -> FindingInfo:
    admission = decision.admission
    return FindingInfo(
        uid=decision.decision_uid,
        title=_TITLE[decision.outcome],
        desc=", ".join(reason.code.value for reason in decision.reasons),
        analytic=Analytic(
            uid=admission.bundle_version, version=f"{admission.bundle_version}/{admission.policy_version}"
        ),
        created_time=milliseconds(decision.decided_at),
        data_sources=None if admission.source is None else (admission.source,),
    )


def _evidences(decision: Decision) -> Evidences:
    return Evidences(
        url=Url(url_string=decision.admission.uri),
        file=_file(decision),
        data=EvidenceData(evidence=decision.evidence) if decision.evidence else None,
    )


def _file(decision: Decision) -> File | None:
    """None where the bytes were never obtained."""
    name, facts = decision.admission.media_id, decision.facts
    if facts is not None:
        hashes = (Fingerprint(value=facts.sha256),)
        return File(name=name, size=facts.size_bytes, mime_type=f"image/{facts.format}", hashes=hashes)
    original = next((ref for ref in decision.evidence if ref.kind == "original"), None)
    return None if original is None else File(name=name, hashes=(Fingerprint(value=original.sha256),))
