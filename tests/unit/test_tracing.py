"""Spans: whose they are, which are made, and that OpenTelemetry exports them under the ids that headers told."""

from __future__ import annotations

import builtins
import random
import threading
from collections.abc import Sequence
from typing import Any

import pytest
import structlog
from opentelemetry.sdk.trace import ReadableSpan
from opentelemetry.sdk.trace.export import BatchSpanProcessor, SimpleSpanProcessor, SpanExporter, SpanExportResult
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.sdk.trace.sampling import Decision, TraceIdRatioBased

from pipeline.observability.otel import OtelTracing
from pipeline.observability.record_spans import RecordSpans
from pipeline.observability.tracing import NoTracing, Span, SpanKind, TraceSettings, TracingUnavailable, open_tracing
from pipeline.streaming.partitions import Entry
from pipeline.streaming.stage import Step
from pipeline.streaming.trace import RecordTrace, ratio, trace_of
from pipeline.streaming.transport import OutRecord
from schemas.deadletter import RejectCode
from schemas.envelope import TraceContext, child_of, new_trace
from tests.support.entries import entry

TIMEOUT_S = 60.0
PARENT = TraceContext("4bf92f3577b34da6a3ce929d0e0e4736", "00f067aa0ba902b7", sampled=True)


def given(sampled: bool = True) -> bytes:
    return TraceContext(PARENT.trace_id, PARENT.span_id, sampled).format().encode()


def test_the_work_on_a_record_is_a_child_of_what_sent_it() -> None:
    own = trace_of(given(), "kafka-media.ingest-0-7", "classifier", ratio(0.0))
    assert (own.trace_id, own.parent_id, own.sampled) == (PARENT.trace_id, PARENT.span_id, True)
    assert own == trace_of(given(), "kafka-media.ingest-0-7", "classifier", ratio(0.0)), "the same at a redelivery"
    others = {
        trace_of(given(), "kafka-media.ingest-0-8", "classifier", ratio(0.0)).span_id,
        trace_of(given(), "kafka-media.ingest-0-7", "spectral", ratio(0.0)).span_id,
    }
    assert len(others | {own.span_id, PARENT.span_id}) == 4


def test_a_producers_flag_is_followed_and_others_are_sampled_by_ratio() -> None:
    assert not trace_of(given(sampled=False), "s", "classifier", ratio(1.0)).sampled
    own = trace_of(None, "s", "classifier", ratio(1.0))
    assert (own.trace_id, own.span_id, own.parent_id, own.sampled) == (*_ids("s"), None, True)
    assert not trace_of(b"nonsense", "s", "classifier", ratio(0.0)).sampled


def _ids(seed: str) -> tuple[str, str]:
    made = new_trace(seed)
    return made.trace_id, made.span_id


@pytest.mark.parametrize("share", [0.0, 1e-6, 0.01, 0.5, 1.0])
def test_the_ratio_is_opentelemetrys(share: float) -> None:
    ours, theirs = ratio(share), TraceIdRatioBased(share)
    rng = random.Random(share)
    edges = [1, theirs.bound - 1, theirs.bound, 2**64 - 1]
    for low in [e for e in edges if 0 <= e < 2**64] + [rng.getrandbits(64) for _ in range(500)]:
        trace_id = rng.getrandbits(63) << 64 | low
        drawn = theirs.should_sample(None, trace_id, "x").decision is Decision.RECORD_AND_SAMPLE
        assert ours(f"{trace_id:032x}") is drawn


def test_without_an_exporter_no_trace_begins_as_a_recorded_one() -> None:
    assert not TraceSettings(ratio=1.0).samples("f" * 32)
    assert TraceSettings(exporter="console", ratio=1.0).samples("f" * 32)
    assert TraceSettings().flags is None
    assert TraceSettings(exporter="console").flags is not None
    assert isinstance(open_tracing(TraceSettings(), "classifier"), NoTracing)


def test_a_missing_extra_is_named_with_the_way_out(monkeypatch: pytest.MonkeyPatch) -> None:
    real = builtins.__import__

    def without(name: str, *rest: Any, **more: Any) -> Any:
        if name == "pipeline.observability.otel":
            raise ImportError("no", name="opentelemetry")
        return real(name, *rest, **more)

    monkeypatch.setattr(builtins, "__import__", without)
    with pytest.raises(TracingUnavailable, match=r"trace\.exporter.*opentelemetry: pip install 'mediasieve\[otel\]'"):
        open_tracing(TraceSettings(exporter="otlp"), "classifier")


class Exported:
    """OtelTracing over an exporter in memory."""

    def __init__(self) -> None:
        self.exporter = InMemorySpanExporter()
        self.tracing = OtelTracing(SimpleSpanProcessor(self.exporter), "classifier")

    def spans(self) -> dict[str, ReadableSpan]:
        return {span.name: span for span in self.exporter.get_finished_spans()}


def committed(sampled: bool = True) -> Entry:
    """Polled at 10 s, done at 12.5 s, of a clock that is 1,000 s behind the wall; two steps, one result."""
    done = entry(7, polled_at_s=10.0)
    done.trace = trace_of(given(sampled), "seed", "classifier", ratio(0.0))
    done.done_at_s = 12.5
    done.steps = (Step("fetch", 1_011_000_000_000, 1_011_500_000_000), Step("infer", 1_011_500_000_000, 10**12 * 2))
    header = child_of(done.trace.context).format().encode()
    done.out = (OutRecord("media.suspect", b"k", b"{}", (("ce_id", b"1"), ("traceparent", header))),)
    return done


def test_a_committed_record_is_a_tree_of_spans_with_true_times() -> None:
    exported, done = Exported(), committed()
    for span in RecordSpans("classifier", wall_s=1_013.0, monotonic_s=13.0, took_s=0.25).of(done):
        exported.tracing.record(span)
    found = exported.spans()
    assert list(found) == ["process media.ingest", "fetch", "infer", "commit", "send media.suspect"]
    own = done.trace
    assert own is not None
    top = found["process media.ingest"]
    assert top.context is not None
    assert top.parent is not None
    assert f"{top.context.span_id:016x}" == own.span_id
    assert f"{top.parent.span_id:016x}" == PARENT.span_id
    assert {f"{span.context.trace_id:032x}" for span in found.values() if span.context} == {PARENT.trace_id}
    parents = {span.parent.span_id for span in found.values() if span.parent and span is not top}
    assert parents == {top.context.span_id}
    sent = found["send media.suspect"]
    assert sent.context is not None
    assert f"{sent.context.span_id:016x}" == done.out[0].headers[1][1].decode().split("-")[2]
    times = {name: ((span.start_time or 0) / 1e9, (span.end_time or 0) / 1e9) for name, span in found.items()}
    assert times["process media.ingest"] == (1_010.0, 1_013.0)
    assert times["fetch"] == (1_011.0, 1_011.5)
    assert times["commit"] == (1_012.75, 1_013.0)
    assert times["send media.suspect"] == (1_012.5, 1_013.0)
    attributes = dict(top.attributes or {})
    assert attributes["messaging.destination.partition.id"] == "0"
    assert attributes["messaging.kafka.offset"] == 7
    assert top.resource.attributes["service.name"] == "mediasieve-classifier"


def test_what_is_not_sampled_costs_no_span() -> None:
    assert list(RecordSpans("classifier", 1_013.0, 13.0, 0.1).of(committed(sampled=False))) == []
    assert list(RecordSpans("classifier", 1_013.0, 13.0, 0.1).of(entry(7))) == []


def test_a_reject_of_ours_is_a_failed_span() -> None:
    exported, done = Exported(), committed()
    done.own_reject = RejectCode.UNEXPECTED
    for span in RecordSpans("classifier", 1_013.0, 13.0, 0.1).of(done):
        exported.tracing.record(span)
    status = exported.spans()["process media.ingest"].status
    assert (status.status_code.name, status.description) == ("ERROR", "unexpected")


class Away(SpanExporter):
    """A collector that takes the connection and never answers."""

    def __init__(self) -> None:
        self.begun, self.answer = threading.Event(), threading.Event()

    def export(self, spans: Sequence[ReadableSpan]) -> SpanExportResult:
        self.begun.set()
        self.answer.wait()
        return SpanExportResult.FAILURE


def test_a_collector_that_never_answers_holds_neither_the_work_nor_the_end_of_a_worker() -> None:
    """Returns at all: OpenTelemetry's own flush and shutdown wait for the exporter, whatever time they are given."""
    away = Away()
    tracing = OtelTracing(BatchSpanProcessor(away, max_queue_size=64, max_export_batch_size=32), "classifier", 0.01)
    own = RecordTrace("a" * 32, "b" * 16, None, sampled=True)
    with structlog.testing.capture_logs() as logs:
        for number in range(1_000):
            tracing.record(Span("process x", SpanKind.CONSUMER, own, number, number + 1))
        assert away.begun.wait(TIMEOUT_S)
        tracing.close()
    assert [line["event"] for line in logs] == ["spans_lost"]
    assert not away.answer.is_set()
    away.answer.set()


def test_the_end_of_a_worker_sends_what_waits() -> None:
    exporter = InMemorySpanExporter()
    tracing = OtelTracing(BatchSpanProcessor(exporter, schedule_delay_millis=3_600_000), "classifier")
    own = RecordTrace("a" * 32, "b" * 16, None, sampled=True)
    for number in range(3):
        tracing.record(Span("process x", SpanKind.CONSUMER, own, number, number + 1))
    with structlog.testing.capture_logs() as logs:
        tracing.close()
    assert (len(exporter.get_finished_spans()), logs) == (3, [])


def test_a_trace_that_begins_with_the_record_has_no_parent() -> None:
    exported = Exported()
    own = RecordTrace("a" * 32, "b" * 16, None, sampled=True)
    exported.tracing.record(Span("process x", SpanKind.CONSUMER, own, 1, 2))
    exported.tracing.close()
    (span,) = exported.exporter.get_finished_spans()
    assert span.parent is None
    assert span.context is not None
    assert (f"{span.context.trace_id:032x}", f"{span.context.span_id:016x}") == ("a" * 32, "b" * 16)
