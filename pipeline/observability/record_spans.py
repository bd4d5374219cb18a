"""The spans of records whose results were committed, from the times that the runner and the stage took anyway.

    process media.ingest            poll to commit, child of whatever sent the record
      fetch, decode, infer, ...     the stage's steps, wherever they ran
      commit                        the transaction that made the results visible
      send media.suspect            one for each result; its id is the result's `traceparent`

So a trace that began at a producer goes through every stage to the decision, with nothing kept between processes.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator

from pipeline.observability.tracing import Span, SpanKind, Value
from pipeline.streaming.partitions import Entry
from pipeline.streaming.trace import RecordTrace
from pipeline.streaming.transport import OutRecord
from schemas.envelope import TRACEPARENT_HEADER, parse_traceparent


class RecordSpans:
    """Of one commit; `wall_s` and `monotonic_s` are the same moment, when it was done after `took_s`."""

    def __init__(self, group: str, wall_s: float, monotonic_s: float, took_s: float) -> None:
        """Monotonic times of entries become wall-clock times by the difference."""
        self._group = group
        self._skew_s = wall_s - monotonic_s
        self._now_ns = _ns(wall_s)
        self._commit_ns = _ns(wall_s - took_s)

    def of(self, entry: Entry) -> Iterator[Span]:
        """The parent first; nothing for a record whose trace is not sampled."""
        own = entry.trace
        if own is None or not own.sampled:
            return
        started_ns = _ns(entry.polled_at_s + self._skew_s)
        attributes = self._attributes(entry)
        failed = entry.own_reject.value if entry.own_reject is not None else ""
        yield Span(f"process {entry.tp.topic}", SpanKind.CONSUMER, own, started_ns, self._now_ns, attributes, failed)
        for number, step in enumerate(entry.steps):
            yield Span(step.name, SpanKind.INTERNAL, _below(own, f"{number}{step.name}"), step.start_ns, step.end_ns)
        yield Span("commit", SpanKind.INTERNAL, _below(own, "commit"), self._commit_ns, self._now_ns)
        for out in entry.out:
            sent = self._sent(own, out, _ns(entry.done_at_s + self._skew_s))
            if sent is not None:
                yield sent

    def _attributes(self, entry: Entry) -> dict[str, Value]:
        """By OpenTelemetry's conventions for messaging, where they have a name."""
        found: dict[str, Value] = {
            "messaging.system": "kafka",
            "messaging.operation.type": "process",
            "messaging.operation.name": "process",
            "messaging.consumer.group.name": self._group,
            "messaging.destination.name": entry.tp.topic,
            "messaging.destination.partition.id": str(entry.tp.partition),
            "messaging.kafka.offset": entry.raw.offset,
            "mediasieve.queued_ms": round((entry.polled_at_s + self._skew_s) * 1000.0 - entry.raw.timestamp_ms, 3),
        }
        if entry.item is not None:
            found |= {"mediasieve.media_id": entry.item.media_id, "mediasieve.attempt": entry.item.attempt}
        return found

    def _sent(self, own: RecordTrace, out: OutRecord, done_ns: int) -> Span | None:
        """From the finished result to the commit; its headers tell the id."""
        value = next((value for name, value in reversed(out.headers) if name == TRACEPARENT_HEADER), None)
        context = parse_traceparent(value)
        if context is None:
            return None
        trace = RecordTrace(own.trace_id, context.span_id, own.span_id, own.sampled)
        attributes: dict[str, Value] = {
            "messaging.system": "kafka",
            "messaging.operation.type": "send",
            "messaging.operation.name": "send",
            "messaging.destination.name": out.topic,
        }
        return Span(f"send {out.topic}", SpanKind.PRODUCER, trace, done_ns, self._now_ns, attributes)


def _below(own: RecordTrace, what: str) -> RecordTrace:
    """A child whose id follows from its parent's."""
    span_id = hashlib.sha256(f"{own.span_id}\x1f{what}".encode()).hexdigest()[:16]
    return RecordTrace(own.trace_id, span_id, own.span_id, own.sampled)


def _ns(seconds: float) -> int:
    return int(seconds * 1e9)
