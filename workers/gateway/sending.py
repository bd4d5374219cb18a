"""The span of a submission: from the request's draft to the brokers' acknowledgement."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import replace

from pipeline.observability.tracing import NoTracing, Span, SpanKind, Tracing, Value
from pipeline.streaming.trace import FlagLimit, RecordTrace, Samples
from pipeline.streaming.transport import OutRecord
from schemas.envelope import TRACEPARENT_HEADER, TraceContext, child_of, new_trace, parse_traceparent


class Sending:
    """The record's `traceparent` is the id of this span, which is a child of the caller's, where it has one."""

    def __init__(
        self,
        tracing: Tracing | None = None,
        samples: Samples = lambda _: True,
        flags: FlagLimit | None = None,
        now_s: Callable[[], float] = time.monotonic,
    ) -> None:
        """`samples`: of traces that begin here. `flags`: how many of callers' flags count; none: all."""
        self._tracing = tracing or NoTracing()
        self._samples = samples
        self._flags = flags
        self._now_s = now_s

    def context(self, traceparent: str | None, subject: str) -> TraceContext:
        """For the record's headers. Without a caller's trace the subject makes one, the same for a repetition."""
        given = parse_traceparent((traceparent or "").encode())
        if given is not None:
            counts = given.sampled and (self._flags is None or self._flags.admit(self._now_s()))
            return replace(child_of(given), sampled=counts)
        new = new_trace(subject)
        return replace(new, sampled=self._samples(new.trace_id))

    def sent(
        self, record: OutRecord, traceparent: str | None, media_id: str, started_s: float, acknowledged_s: float
    ) -> None:
        """Record the span of an acknowledged record; seconds since the epoch."""
        context = parse_traceparent(dict(record.headers).get(TRACEPARENT_HEADER))
        if not self._tracing.on or context is None or not context.sampled:
            return
        given = parse_traceparent((traceparent or "").encode())
        trace = RecordTrace(context.trace_id, context.span_id, given.span_id if given else None, sampled=True)
        attributes: dict[str, Value] = {
            "messaging.system": "kafka",
            "messaging.operation.type": "send",
            "messaging.operation.name": "send",
            "messaging.destination.name": record.topic,
            "mediasieve.media_id": media_id,
        }
        start_ns, end_ns = int(started_s * 1e9), int(acknowledged_s * 1e9)
        self._tracing.record(Span(f"send {record.topic}", SpanKind.PRODUCER, trace, start_ns, end_ns, attributes))
