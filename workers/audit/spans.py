"""The last span of a decision's trace: from its record to the leaf under a checkpoint and the archive behind it."""

from __future__ import annotations

from collections.abc import Sequence

from pipeline.observability.tracing import Span, SpanKind, Tracing, Value
from pipeline.streaming.clock import Clock
from pipeline.streaming.trace import ratio, trace_of
from pipeline.streaming.transport import RawRecord
from schemas.envelope import TRACEPARENT_HEADER
from schemas.topics import Topic
from workers.audit.tree import OnLogged

_BEGINS_NONE = ratio(0.0)


def traced(on_logged: OnLogged, tracing: Tracing, clock: Clock, group: str) -> OnLogged:
    """`on_logged`, and a span for each record whose trace is sampled once that has returned.

    A record that is handed on again, after a crash, is the same span: its id follows from the record's place.
    """
    if not tracing.on:
        return on_logged

    def with_spans(topic: Topic, records: Sequence[RawRecord]) -> None:
        on_logged(topic, records)
        end_ns = int(clock.wall_s() * 1e9)
        for record in records:
            span = _span(record, end_ns, group)
            if span is not None:
                tracing.record(span)

    return with_spans


def _span(record: RawRecord, end_ns: int, group: str) -> Span | None:
    place = f"{record.tp.topic}-{record.tp.partition}-{record.offset}"
    own = trace_of(record.header(TRACEPARENT_HEADER), place, group, _BEGINS_NONE)
    if not own.sampled:
        return None
    attributes: dict[str, Value] = {
        "messaging.system": "kafka",
        "messaging.operation.type": "process",
        "messaging.operation.name": "audit",
        "messaging.consumer.group.name": group,
        "messaging.destination.name": record.tp.topic,
        "messaging.destination.partition.id": str(record.tp.partition),
        "messaging.kafka.offset": record.offset,
    }
    start_ns = min(record.timestamp_ms * 1_000_000, end_ns)
    return Span(f"audit {record.tp.topic}", SpanKind.CONSUMER, own, start_ns, end_ns, attributes)
