"""Spans by OpenTelemetry's SDK; the only module that imports it. Needs the extra `otel`."""

from __future__ import annotations

import os
import socket
import threading

import structlog
from opentelemetry import trace
from opentelemetry.context import Context
from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import SpanProcessor, TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor, ConsoleSpanExporter
from opentelemetry.sdk.trace.id_generator import IdGenerator
from opentelemetry.sdk.trace.sampling import ALWAYS_ON

from pipeline.observability.tracing import Span, SpanKind, TraceSettings

_KINDS = {
    SpanKind.CONSUMER: trace.SpanKind.CONSUMER,
    SpanKind.PRODUCER: trace.SpanKind.PRODUCER,
    SpanKind.INTERNAL: trace.SpanKind.INTERNAL,
}
_FLUSH_S = 5.0
_EXPORT_S = 5.0

log = structlog.get_logger("mediasieve")


class OtelTracing:
    """Hands finished spans with ids of their own to a processor; thread-safe."""

    on = True

    def __init__(self, processor: SpanProcessor, worker: str, flush_s: float = _FLUSH_S) -> None:
        """Samples nothing away: whoever makes a span has looked at its trace's flag."""
        self._flush_s = flush_s
        self._lock = threading.Lock()
        self._ids = _GivenIds()
        resource = Resource.create(
            {
                "service.namespace": "mediasieve",
                "service.name": f"mediasieve-{worker}",
                "service.instance.id": f"{socket.gethostname()}-{os.getpid()}",
            }
        )
        self._provider = TracerProvider(
            sampler=ALWAYS_ON, resource=resource, shutdown_on_exit=False, id_generator=self._ids
        )
        self._provider.add_span_processor(processor)
        self._tracer = self._provider.get_tracer("mediasieve")

    def record(self, span: Span) -> None:
        """See Tracing."""
        own = span.trace
        with self._lock:
            self._ids.trace_id, self._ids.span_id = int(own.trace_id, 16), int(own.span_id, 16)
            made = self._tracer.start_span(
                span.name,
                _parent(own.trace_id, own.parent_id),
                _KINDS[span.kind],
                span.attributes,
                start_time=span.start_ns,
            )
        if span.failed:
            made.set_status(trace.StatusCode.ERROR, span.failed)
        made.end(span.end_ns)

    def close(self) -> None:
        """See Tracing. The SDK's own flush and shutdown wait for the exporter, whatever time they are given."""
        flush = threading.Thread(target=self._provider.shutdown, name="spans-flush", daemon=True)
        flush.start()
        flush.join(self._flush_s)
        if flush.is_alive():
            log.warning("spans_lost", detail=f"the exporter did not take them within {self._flush_s:g} s")


def open_otel(settings: TraceSettings, worker: str) -> OtelTracing:
    """Exports in a thread of its own; when its queue of 2,048 spans is full, spans are dropped."""
    exporter = (
        ConsoleSpanExporter()
        if settings.exporter == "console"
        else OTLPSpanExporter(endpoint=settings.endpoint, timeout=_EXPORT_S)
    )
    return OtelTracing(BatchSpanProcessor(exporter), worker)


class _GivenIds(IdGenerator):
    """The ids that headers have already told others."""

    trace_id = 0
    span_id = 0

    def generate_trace_id(self) -> int:
        return self.trace_id

    def generate_span_id(self) -> int:
        return self.span_id


def _parent(trace_id: str, span_id: str | None) -> Context:
    """The context to start under; an empty one for a trace that begins with the span."""
    if span_id is None:
        return Context()
    flags = trace.TraceFlags(trace.TraceFlags.SAMPLED)
    context = trace.SpanContext(int(trace_id, 16), int(span_id, 16), is_remote=True, trace_flags=flags)
    return trace.set_span_in_context(trace.NonRecordingSpan(context), Context())
