"""The AsyncAPI 3.0 document of every topic, made from `schemas.topics`."""

from __future__ import annotations

import json
import re
from typing import Any

from schemas.base import SCHEMA_VERSION, Part
from schemas.deadletter import DEAD_LETTER_HEADER, DeadLetter
from schemas.decision import Decision
from schemas.envelope import schema_name
from schemas.erasure import Erasure
from schemas.media import AnomalousMedia, MediaReference, SuspectMedia
from schemas.ocsf import DetectionFinding
from schemas.quality import QualityEvent
from schemas.reference import ReferencePointer
from schemas.review import ReferenceUpdate, ReviewAction, ReviewVerdict
from schemas.shadow import AuditSample, ShadowResult
from schemas.topics import DECISION_TOPICS, TOPICS, Topic, TopicSpec

_PLAIN_KEY = re.compile(r"[A-Za-z$][A-Za-z0-9_.$-]*")
_NO_PLAIN_KEY = frozenset({"true", "false", "null", "yes", "no", "on", "off", "y", "n"})
"""YAML 1.1 readers take these for something else than text."""

_PLAIN = (
    ReviewVerdict,
    ReviewAction,
    ReferenceUpdate,
    ReferencePointer,
    Erasure,
    AuditSample,
    ShadowResult,
    QualityEvent,
)
_DECISIONS = frozenset(DECISION_TOPICS.values())
_INFO = {
    "title": "mediasieve",
    "version": SCHEMA_VERSION,
    "description": "Topics of the mediasieve fleet. Messages carry references and results, never pixels. "
    "Headers follow CloudEvents 1.0 in Kafka's binary mode, so a value is the record itself.",
    "license": {"name": "Apache-2.0"},
}
_HEADERS = {
    "ce_id": "UUIDv5: a redelivered record makes the same events again",
    "ce_source": "the stage that wrote the event",
    "ce_specversion": "CloudEvents version, 1.0",
    "ce_subject": "tenant/media_id, as the key",
    "ce_time": "RFC 3339, UTC",
    "ce_type": "type and major version of the record",
    "ce_dataschema": "the $id of the value's JSON Schema",
    "ce_traceparent": "W3C trace context",
    "traceparent": "the same, for tracing agents",
    "content-type": "media type of the value",
}


def document() -> dict[str, Any]:
    """Channels, messages and operations; every payload refers to a file under `json/`."""
    return {
        "asyncapi": "3.0.0",
        "info": _INFO,
        "defaultContentType": "application/json",
        "channels": {spec.topic.value: _channel(spec) for spec in TOPICS},
        "operations": {
            "submitMedia": _operation("receive", Topic.INGEST),
            **{f"announce{o.value.capitalize()}": _operation("send", t) for o, t in DECISION_TOPICS.items()},
            "reportDeadLetter": _operation("send", Topic.DEAD_LETTER),
            "submitReview": _operation("receive", Topic.REVIEWS),
            "reportReviewAction": _operation("send", Topic.REVIEW_ACTIONS),
            "submitReferenceUpdate": _operation("receive", Topic.REFERENCE_UPDATES),
            "publishReference": _operation("send", Topic.REFERENCES),
            "announceErasure": _operation("send", Topic.ERASURES),
            "reportAuditSample": _operation("send", Topic.AUDIT_SAMPLES),
            "reportShadowResult": _operation("send", Topic.SHADOW_RESULTS),
            "announceRegression": _operation("send", Topic.QUALITY),
        },
        "components": {
            "messages": {
                "MediaReference": _message(MediaReference, MediaReference.event_type, _headers(())),
                "SuspectMedia": _message(SuspectMedia, SuspectMedia.event_type, _stage_headers()),
                "AnomalousMedia": _message(AnomalousMedia, AnomalousMedia.event_type, _stage_headers()),
                "DetectionFinding": _message(DetectionFinding, Decision.event_type, _stage_headers()),
                "DeadLetter": _dead_letter(),
                **{model.__name__: _message(model, model.event_type, _headers(())) for model in _PLAIN},
            },
        },
    }


def to_yaml(node: Any, indent: int = 0) -> str:
    """Block-style YAML 1.2 of mappings, lists and JSON scalars, in the order given."""
    pad = "  " * indent
    if isinstance(node, dict) and node:
        return "".join(f"{pad}{_key(k)}:{_value(v, indent)}" for k, v in node.items())
    if isinstance(node, list) and node:
        return "".join(f"{pad}-{_value(item, indent)}" for item in node)
    return f"{pad}{json.dumps(node, ensure_ascii=False)}\n"


def _value(node: Any, indent: int) -> str:
    if isinstance(node, dict | list) and node:
        return "\n" + to_yaml(node, indent + 1)
    return " " + to_yaml(node).lstrip()


def _key(name: str) -> str:
    plain = _PLAIN_KEY.fullmatch(name) and name.lower() not in _NO_PLAIN_KEY
    return name if plain else json.dumps(name)


def _channel(spec: TopicSpec) -> dict[str, Any]:
    name = _message_name(spec)
    return {
        "address": spec.topic.value,
        "description": spec.purpose,
        "messages": {name: {"$ref": f"#/components/messages/{name}"}},
        "bindings": {
            "kafka": {
                "topicConfiguration": {
                    "cleanup.policy": [spec.cleanup],
                    "retention.ms": spec.retention_ms,
                    "max.message.bytes": spec.max_bytes,
                },
                "bindingVersion": "0.5.0",
            }
        },
    }


def _message_name(spec: TopicSpec) -> str:
    if spec.topic in _DECISIONS:
        return DetectionFinding.__name__
    return (spec.record or DeadLetter).__name__


def _message(model: type[Part], event_type: str, headers: dict[str, Any]) -> dict[str, Any]:
    return {
        "name": event_type,
        "contentType": "application/json",
        "headers": headers,
        "payload": {"$ref": f"json/{schema_name(model)}.json"},
    }


def _dead_letter() -> dict[str, Any]:
    headers = _headers((DEAD_LETTER_HEADER,))
    headers["properties"][DEAD_LETTER_HEADER] = {
        "type": "string",
        "description": "why the record failed, as JSON",
        "contentMediaType": "application/json",
        "contentSchema": {"$ref": f"json/{schema_name(DeadLetter)}.json"},
    }
    return {
        "name": DeadLetter.event_type,
        "description": "The original value, byte for byte, with its original headers.",
        "contentType": "application/octet-stream",
        "headers": headers,
        "payload": {},
    }


def _stage_headers() -> dict[str, Any]:
    return _headers(tuple(name for name in _HEADERS if name != "ce_dataschema"))


def _headers(required: tuple[str, ...]) -> dict[str, Any]:
    properties = {name: {"type": "string", "description": text} for name, text in _HEADERS.items()}
    return {"type": "object", "properties": properties, "required": list(required)}


def _operation(action: str, topic: Topic) -> dict[str, Any]:
    return {"action": action, "channel": {"$ref": f"#/channels/{topic.value}"}}
