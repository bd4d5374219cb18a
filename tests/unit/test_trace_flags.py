"""Who may turn tracing on, and the spans beside the runner's: the gateway's and the audit worker's."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import pytest
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

from pipeline.observability.otel import OtelTracing
from pipeline.observability.tracing import NoTracing
from pipeline.streaming.codec import Codec, Identity, TopicNames
from pipeline.streaming.failure import DeadLetterLimits, SourceRate
from pipeline.streaming.stage import Reject
from pipeline.streaming.trace import FlagLimit, ratio
from pipeline.streaming.transport import OutRecord, RawRecord, TopicPartition
from schemas.deadletter import RejectCode
from schemas.envelope import TraceContext, parse_traceparent
from schemas.media import MediaReference
from schemas.topics import Topic
from schemas.types import StageName
from tests.support.entries import raw
from tests.support.streaming import FakeClock
from workers.audit.spans import traced
from workers.gateway.sending import Sending

PARENT = TraceContext("4bf92f3577b34da6a3ce929d0e0e4736", "00f067aa0ba902b7", sampled=True)


def given(sampled: bool = True) -> bytes:
    return TraceContext(PARENT.trace_id, PARENT.span_id, sampled).format().encode()


def exported() -> tuple[InMemorySpanExporter, OtelTracing]:
    exporter = InMemorySpanExporter()
    return exporter, OtelTracing(SimpleSpanProcessor(exporter), "worker")


def test_producers_flags_turn_on_so_many_traces_a_second_and_no_more() -> None:
    limit = FlagLimit(2.0)
    assert [limit.admit(100.0) for _ in range(5)] == [True, True, False, False, False]
    assert [limit.admit(100.5), limit.admit(100.5)] == [True, False]
    assert [limit.admit(200.0) for _ in range(3)] == [True, True, False], "a pause saves up one second's worth"
    assert not FlagLimit(0.0).admit(1.0)
    assert [FlagLimit(0.1).admit(1.0), FlagLimit(0.1).admit(1.0)] == [True, True], "at least one at once"


def edge_codec(flags: FlagLimit | None, share: float = 0.0) -> Codec[MediaReference]:
    return Codec(
        stage=StageName.CLASSIFIER,
        version="v1",
        model=MediaReference,
        identity=lambda r: Identity(r.media_id, "default", ""),
        cluster="kafka",
        names=TopicNames(),
        clock=FakeClock(),
        source_rate=SourceRate(DeadLetterLimits()),
        edge=True,
        samples=ratio(share),
        flags=flags,
    )


def test_a_flag_that_does_not_count_is_off_in_the_whole_fleet_and_the_ids_stay() -> None:
    """Span, results and dead letters of a record are told the same: its trace is whole or not there."""
    made = edge_codec(FlagLimit(1.0))
    records = [raw(n, headers=(("traceparent", given()),)) for n in range(2)]
    traces = [made.trace(record) for record in records]
    assert [t.sampled for t in traces] == [True, False]
    assert {t.trace_id for t in traces} == {PARENT.trace_id}
    for record, trace in zip(records, traces, strict=True):
        letter = made.dead_letter(record, trace, None, Reject(RejectCode.MALFORMED_JSON, "byte 0"))
        told = parse_traceparent(dict(letter.headers)["traceparent"])
        assert told is not None
        assert (told.trace_id, told.sampled) == (PARENT.trace_id, trace.sampled)


def test_what_this_fleet_sampled_itself_does_not_count_as_a_producers_flag() -> None:
    retry = TopicPartition(Topic.RETRY_1M.value, 0)
    made = edge_codec(FlagLimit(1.0), 1.0)
    assert all(made.trace(raw(n)).sampled for n in range(3)), "begins here"
    assert all(made.trace(raw(n, tp=retry, headers=(("traceparent", given()),))).sampled for n in range(3))
    assert [made.trace(raw(n, headers=(("traceparent", given()),))).sampled for n in range(2)] == [True, False]


def test_the_gateway_counts_its_callers_flags() -> None:
    exporter, tracing = exported()
    sending = Sending(tracing, ratio(0.0), FlagLimit(1.0), now_s=lambda: 5.0)
    for number, subject in enumerate(("acme/a", "acme/b")):
        context = sending.context(given().decode(), subject)
        assert (context.trace_id, context.sampled) == (PARENT.trace_id, number == 0)
        record = OutRecord("media.ingest", b"k", b"{}", (("traceparent", context.format().encode()),))
        sending.sent(record, given().decode(), subject, 1.0, 2.0)
    (span,) = exporter.get_finished_spans()
    assert span.parent is not None
    assert (span.name, f"{span.parent.span_id:016x}") == ("send media.ingest", PARENT.span_id)
    assert not sending.context(None, "acme/c").sampled


def test_a_trace_ends_with_the_leaf_of_its_decision_in_the_audit_log() -> None:
    (exporter, tracing), clock = exported(), FakeClock()
    handed: list[int] = []
    decided = TopicPartition(Topic.PASS.value, 1)
    records = [
        replace(
            raw(n, tp=decided, headers=(("traceparent", given(n != 8)),)), timestamp_ms=int(clock.wall_s() * 1000) - 9
        )
        for n in (7, 8)
    ]
    on_logged = traced(lambda _topic, logged: handed.extend(r.offset for r in logged), tracing, clock, "audit")
    for _ in range(2):
        on_logged(Topic.PASS, [*records, raw(9, tp=decided)])
    first, again = exporter.get_finished_spans()
    assert handed == [7, 8, 9] * 2
    assert first.name == "audit decisions.pass"
    assert first.parent is not None
    assert f"{first.parent.span_id:016x}" == PARENT.span_id
    assert ((first.end_time or 0) - (first.start_time or 0)) / 1e6 == pytest.approx(9.0, abs=1.0)
    assert first.context == again.context, "handed on again, it is the same span"


def test_what_is_not_archived_has_no_span_and_without_tracing_nothing_is_wrapped() -> None:
    def away(_topic: Topic, _records: Sequence[RawRecord]) -> None:
        raise OSError("the archive is away")

    exporter, tracing = exported()
    with pytest.raises(OSError, match="archive"):
        traced(away, tracing, FakeClock(), "audit")(Topic.PASS, [raw(7, headers=(("traceparent", given()),))])
    assert exporter.get_finished_spans() == ()
    assert traced(away, NoTracing(), FakeClock(), "audit") is away
