"""OCSF -> Elastic Common Schema, with names that ECS 8 and 9 share (https://www.elastic.co/docs/reference/ecs).

What ECS has no field for lies under `mediasieve`. The ingest pipeline `deploy/siem/elastic/ingest-pipeline.json` does
the same inside Elasticsearch; tests hold the two equal.
"""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

from schemas.ocsf import DetectionFinding
from schemas.ocsf.numbers import Disposition

ECS_VERSION = "8.17.0"
_NOTHING: tuple[Any, ...] = (None, [], {})
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


def ecs_document(finding: DetectionFinding) -> dict[str, Any]:
    """One document, nested, of JSON values only; absent fields are left out.

    Its id in an index is `event.id`, which is the same for duplicates of an event.
    """
    evidence = finding.evidences[0]
    file, reviewer = evidence.file, None if finding.assignee is None else finding.assignee.name
    analytic, metadata = finding.finding_info.analytic, finding.metadata
    hashes = [file.hashes[0].value] if file else []
    return _given(
        {
            "@timestamp": _timestamp(finding.time),
            "ecs": {"version": ECS_VERSION},
            "message": finding.message,
            "tags": list(metadata.labels),
            "event": _event(finding),
            "rule": {"name": analytic.name, "version": analytic.version, "ruleset": analytic.uid},
            "observer": {
                "vendor": metadata.product.vendor_name,
                "product": metadata.product.name,
                "version": metadata.product.version,
            },
            "organization": {"id": metadata.tenant_uid},
            "file": file
            and {
                "name": file.name,
                "size": file.size,
                "mime_type": file.mime_type,
                "type": "file",
                "hash": {"sha256": file.hashes[0].value},
            },
            "url": {"original": evidence.url.url_string},
            "user": {"name": reviewer},
            "related": {"hash": hashes, "user": [reviewer] if reviewer else []},
            "mediasieve": _own(finding),
        }
    )


def _event(finding: DetectionFinding) -> dict[str, Any]:
    """`outcome` is that of the analysis, not of the media: `failure` when what should have looked could not."""
    failed = finding.disposition_id is Disposition.ERROR
    return {
        "id": str(finding.metadata.uid),
        "kind": "alert" if finding.is_alert else "event",
        "category": ["file"],
        "type": ["info"],
        "action": finding.disposition.lower(),
        "code": finding.metadata.event_code,
        "outcome": "failure" if failed else "success",
        "reason": finding.finding_info.desc,
        "severity": finding.severity_id.value,
        "risk_score": finding.risk_score,
        "sequence": finding.metadata.sequence,
        "module": "mediasieve",
        "dataset": "mediasieve.decisions",
        "provider": "mediasieve",
    }


def _own(finding: DetectionFinding) -> dict[str, Any]:
    data, info = finding.evidences[0].data, finding.finding_info
    return {
        "activity": finding.activity_name,
        "decision_uid": str(info.uid),
        "media": finding.metadata.correlation_uid,
        "action": finding.action,
        "disposition": finding.disposition,
        "severity": finding.severity,
        "confidence": finding.confidence,
        "status": finding.status,
        "priority": finding.priority,
        "verdict": finding.verdict,
        "comment": finding.comment,
        "bundle": info.analytic.uid,
        "policy": finding.policy and finding.policy.version,
        "source": info.data_sources and info.data_sources[0],
        "evidence": [ref.model_dump() for ref in data.evidence] if data else [],
    }


def _timestamp(milliseconds: int) -> str:
    time = _EPOCH + timedelta(milliseconds=milliseconds)
    return time.isoformat(timespec="milliseconds").replace("+00:00", "Z")


def _given(parts: dict[str, Any]) -> dict[str, Any]:
    """Without what is None or empty, at any level."""
    inner = {key: _given(part) if isinstance(part, dict) else part for key, part in parts.items()}
    return {key: part for key, part in inner.items() if part not in _NOTHING}
