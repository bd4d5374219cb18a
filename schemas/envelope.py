"""What travels beside a record: CloudEvents 1.0 headers in Kafka's binary mode, and the W3C trace context."""

from __future__ import annotations

import hashlib
import re
import secrets
from dataclasses import dataclass
from datetime import datetime
from functools import cache
from typing import Any
from uuid import NAMESPACE_URL, uuid5

from cloudevents.core.bindings.kafka import to_binary
from cloudevents.core.formats.json import JSONFormat
from cloudevents.core.v1.event import CloudEvent
from pydantic import BaseModel

from schemas.base import SCHEMA_VERSION

TRACEPARENT_HEADER = "traceparent"
SCHEMA_BASE_URI = f"https://mediasieve.dev/schemas/{SCHEMA_VERSION}"
EVENT_NAMESPACE = uuid5(NAMESPACE_URL, "https://mediasieve.dev/event")

_FORMAT = JSONFormat()
_WORD_START = re.compile(r"(?<=[a-z0-9])(?=[A-Z])")
_TRACEPARENT = re.compile(r"([0-9a-f]{2})-([0-9a-f]{32})-([0-9a-f]{16})-([0-9a-f]{2})(-.*)?", re.DOTALL)
_SAMPLED = 0x01


def headers_for(  # noqa: PLR0917 - the attributes of the CloudEvents specification
    event_type: str,
    source: str,
    event_id: str,
    subject: str,
    time: datetime,
    traceparent: str,
    data_schema: str | None,
    content_type: str = "application/json",
) -> list[tuple[str, bytes]]:
    """Kafka headers of one event; the value stays the record's own bytes.

    The trace context goes out twice: `ce_traceparent` as CloudEvents' distributed tracing extension defines
    it, and `traceparent`, which tracing agents read.

    Raises:
        cloudevents.core.exceptions.CloudEventValidationError: an attribute is empty, or `time` has no zone.
    """
    attributes: dict[str, Any] = {
        "id": event_id,
        "type": event_type,
        "source": source,
        "subject": subject,
        "time": time,
        "datacontenttype": content_type,
        "traceparent": traceparent,
    }
    if data_schema is not None:
        attributes["dataschema"] = data_schema
    headers = list(to_binary(CloudEvent(attributes, b""), _FORMAT).headers.items())
    headers.append((TRACEPARENT_HEADER, traceparent.encode("ascii")))
    return headers


def event_id(origin: str, stage: str, index: int, version: str) -> str:
    """UUIDv5 of what made the event, so that a redelivered record makes the same events again.

    `origin` is `topic-partition-offset` of the input, `index` counts its outputs, `version` names the bundle.
    """
    return str(uuid5(EVENT_NAMESPACE, "\x1f".join((origin, stage, str(index), version))))


@cache
def schema_name(model: type[BaseModel]) -> str:
    """`MediaReference` -> `media_reference`: the name of its schema file and of its folder of examples."""
    return _WORD_START.sub("_", model.__name__).lower()


@cache
def schema_uri(model: type[BaseModel]) -> str:
    """The `$id` of the model's JSON Schema, for `ce_dataschema`."""
    return f"{SCHEMA_BASE_URI}/{schema_name(model)}.json"


@dataclass(frozen=True, slots=True)
class TraceContext:
    """One span of a trace: lower-case hex ids of 32 and 16 digits, never all zero."""

    trace_id: str
    span_id: str
    sampled: bool

    def format(self) -> str:
        """The `traceparent` value, version 00."""
        return f"00-{self.trace_id}-{self.span_id}-{int(self.sampled):02x}"


def parse_traceparent(value: bytes | None) -> TraceContext | None:
    """Read a `traceparent` as https://www.w3.org/TR/trace-context/#traceparent-header says, or None.

    Version ff, all-zero ids and upper case are invalid. Version 00 has nothing after the flags; a later
    version may, behind a dash.
    """
    if value is None or not value.isascii():
        return None
    match = _TRACEPARENT.fullmatch(value.decode("ascii"))
    if match is None:
        return None
    version, trace_id, span_id, flags, rest = match.groups()
    if version == "ff" or (version == "00" and rest is not None):
        return None
    if not trace_id.strip("0") or not span_id.strip("0"):
        return None
    return TraceContext(trace_id, span_id, sampled=bool(int(flags, 16) & _SAMPLED))


def child_of(context: TraceContext) -> TraceContext:
    """A new span of the same trace, with a random id."""
    return TraceContext(context.trace_id, secrets.token_hex(8), context.sampled)


def new_trace(seed: str) -> TraceContext:
    """The trace of a record that came without one. The same seed (its origin) gives the same trace again."""
    digest = hashlib.sha256(seed.encode()).hexdigest()
    return TraceContext(digest[:32], digest[32:48], sampled=True)
