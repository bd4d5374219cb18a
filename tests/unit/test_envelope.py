from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

import pytest
from cloudevents.core.bindings.kafka import KafkaMessage, from_binary
from cloudevents.core.exceptions import CloudEventValidationError
from cloudevents.core.formats.json import JSONFormat

from schemas.envelope import (
    TraceContext,
    child_of,
    event_id,
    headers_for,
    new_trace,
    parse_traceparent,
    schema_name,
    schema_uri,
)
from schemas.media import MediaReference
from schemas.ocsf import DetectionFinding

TRACE = "4bf92f3577b34da6a3ce929d0e0e4736"
SPAN = "00f067aa0ba902b7"
PARENT = f"00-{TRACE}-{SPAN}-01"
TIME = datetime(2026, 1, 31, 12, tzinfo=UTC)


def headers(**changes: Any) -> list[tuple[str, bytes]]:
    given: dict[str, Any] = {
        "event_type": "dev.mediasieve.decision.v1",
        "source": "/mediasieve/mllm",
        "event_id": "e-1",
    }
    rest: dict[str, Any] = {"subject": "news/42", "traceparent": PARENT, "data_schema": schema_uri(DetectionFinding)}
    return headers_for(time=TIME, **{**given, **rest, **changes})


def test_headers_are_cloudevents_binary_mode_with_both_trace_headers() -> None:
    assert dict(headers()) == {
        "ce_specversion": b"1.0",
        "ce_id": b"e-1",
        "ce_type": b"dev.mediasieve.decision.v1",
        "ce_source": b"/mediasieve/mllm",
        "ce_subject": b"news/42",
        "ce_time": b"2026-01-31T12:00:00Z",
        "ce_dataschema": b"https://mediasieve.dev/schemas/1.1/detection_finding.json",
        "ce_traceparent": PARENT.encode(),
        "content-type": b"application/json",
        "traceparent": PARENT.encode(),
    }


def test_no_header_occurs_twice_and_a_schema_may_be_left_out() -> None:
    names = [name for name, _ in headers(data_schema=None)]
    assert len(set(names)) == len(names)
    assert "ce_dataschema" not in names


def test_the_cloudevents_package_reads_them_back() -> None:
    event = from_binary(KafkaMessage(dict(headers()), None, b'{"a": 1}'), JSONFormat())
    assert event.get_id() == "e-1"
    assert event.get_time() == TIME
    assert event.get_subject() == "news/42"
    assert event.get_extension("traceparent") == PARENT
    assert event.get_data() == {"a": 1}


@pytest.mark.parametrize("attribute", ["event_type", "source", "event_id", "subject", "data_schema"])
def test_an_empty_attribute_is_refused(attribute: str) -> None:
    with pytest.raises(CloudEventValidationError):
        headers(**{attribute: ""})


def test_event_ids_depend_on_all_they_are_made_of_and_nothing_else() -> None:
    made = event_id("media.ingest-0-42", "classifier", 0, "first-1.0")
    assert made == event_id("media.ingest-0-42", "classifier", 0, "first-1.0")
    others = {
        event_id("media.ingest-0-43", "classifier", 0, "first-1.0"),
        event_id("media.ingest-0-42", "spectral", 0, "first-1.0"),
        event_id("media.ingest-0-42", "classifier", 1, "first-1.0"),
        event_id("media.ingest-0-42", "classifier", 0, "first-1.1"),
        event_id("media.ingest-0", "42classifier", 0, "first-1.0"),
        made,
    }
    assert len(others) == 6


def test_schema_names() -> None:
    assert schema_name(MediaReference) == "media_reference"
    assert schema_uri(MediaReference) == "https://mediasieve.dev/schemas/1.1/media_reference.json"


def test_a_traceparent_is_read_and_written() -> None:
    context = parse_traceparent(PARENT.encode())
    assert context == TraceContext(TRACE, SPAN, sampled=True)
    assert context is not None
    assert context.format() == PARENT


@pytest.mark.parametrize(("flags", "sampled"), [("00", False), ("01", True), ("02", False), ("ff", True)])
def test_only_the_sampled_flag_is_kept(flags: str, sampled: bool) -> None:
    context = parse_traceparent(f"00-{TRACE}-{SPAN}-{flags}".encode())
    assert context is not None
    assert context.sampled is sampled
    assert context.format()[-2:] == f"0{int(sampled)}"


@pytest.mark.parametrize("later", [f"cc-{TRACE}-{SPAN}-01", f"01-{TRACE}-{SPAN}-01-what-the-future-brings"])
def test_a_later_version_is_read_as_far_as_it_is_known(later: str) -> None:
    context = parse_traceparent(later.encode())
    assert context is not None
    assert context.format() == PARENT


@pytest.mark.parametrize(
    "value",
    [
        None,
        b"",
        f"ff-{TRACE}-{SPAN}-01".encode(),
        f"00-{'0' * 32}-{SPAN}-01".encode(),
        f"00-{TRACE}-{'0' * 16}-01".encode(),
        f"00-{TRACE}-{SPAN}-01-more".encode(),
        f"01-{TRACE}-{SPAN}-01more".encode(),
        f"00-{TRACE.upper()}-{SPAN}-01".encode(),
        f"00-{TRACE}-{SPAN}-1".encode(),
        f"00-{TRACE}-{SPAN}".encode(),
        f"00-{TRACE[1:]}-{SPAN}-01".encode(),
        f"00-{TRACE}g-{SPAN}-01".encode(),
        f" {PARENT}".encode(),
        f"{PARENT}\n".encode(),
        f"{PARENT}".encode("utf-16"),
        b"\xff\xfe",
    ],
)
def test_anything_else_is_no_context(value: bytes | None) -> None:
    assert parse_traceparent(value) is None


def test_a_child_is_another_span_of_the_same_trace() -> None:
    parent = TraceContext(TRACE, SPAN, sampled=False)
    child = child_of(parent)
    assert (child.trace_id, child.sampled) == (TRACE, False)
    assert child.span_id not in {SPAN, child_of(parent).span_id}
    assert parse_traceparent(child.format().encode()) == child


def test_a_record_without_a_trace_gets_the_same_one_at_each_delivery() -> None:
    context = new_trace("media.ingest-0-42")
    assert context == new_trace("media.ingest-0-42")
    assert context.trace_id != new_trace("media.ingest-0-43").trace_id
    assert parse_traceparent(context.format().encode()) == context
