"""Between Kafka records and a stage's items."""

from __future__ import annotations

import hashlib
from dataclasses import replace
from datetime import UTC, datetime
from uuid import UUID

import orjson
import pytest

from pipeline.streaming.codec import MEDIA_ID_HEADER, RETRY_HEADER, Codec, Identity, RetryTicket, TopicNames
from pipeline.streaming.failure import DeadLetterLimits, SourceRate
from pipeline.streaming.stage import Defer, DeferScope, Item, Output, Reject
from pipeline.streaming.transport import Headers, RawRecord, TopicPartition
from schemas.deadletter import DEAD_LETTER_HEADER, DeadLetter, RejectCode
from schemas.media import MediaReference
from schemas.ocsf import decision_from_finding
from schemas.topics import RETRY_DELAYS_S, Topic
from schemas.types import StageName
from schemas.wire import UnknownMajorVersion, decode
from tests.support.cases import decision
from tests.support.streaming import FakeClock

DEFER = Defer(DeferScope.ITEM, "503")
TRACE = f"00-{'a' * 32}-{'b' * 16}-01"
VALUE = b'{"uri":"file:///x","media_id":"m-1","tenant":"acme","source":"cam-1"}'


def codec(*, edge: bool = True, prefix: str = "", per_minute: int = 60, version: str = "v1") -> Codec[MediaReference]:
    return Codec(
        stage=StageName.CLASSIFIER,
        version=version,
        model=MediaReference,
        identity=lambda r: Identity(r.media_id, r.tenant or "default", r.source or ""),
        cluster="east",
        names=TopicNames(prefix),
        clock=FakeClock(),
        source_rate=SourceRate(DeadLetterLimits(source_full_per_minute=per_minute)),
        edge=edge,
    )


def record(
    value: bytes = VALUE, *, topic: str = Topic.INGEST.value, offset: int = 7, headers: Headers = ()
) -> RawRecord:
    return RawRecord(TopicPartition(topic, 2), offset, b"key", value, headers, 1_700_000_000_500)


def item_of(raw: RawRecord, made: Codec[MediaReference] | None = None) -> Item[MediaReference]:
    read = (made or codec()).read(raw)
    assert isinstance(read, Item)
    return read


def header(headers: Headers, name: str) -> bytes:
    return next(v for k, v in reversed(headers) if k == name)


# -- in --


def test_a_record_becomes_an_item_with_all_that_is_known_of_it() -> None:
    item = item_of(record(headers=(("traceparent", TRACE.encode()),)))
    assert (item.media_id, item.tenant, item.source) == ("m-1", "acme", "cam-1")
    assert (item.origin, item.attempt, item.queued_at_s) == ("media.ingest-2-7", 1, 1_700_000_000.5)
    assert item.trace_id == "a" * 32
    assert item.value.uri == "file:///x"


def test_an_id_that_the_producer_left_out_is_minted_from_the_place() -> None:
    raw = record(b'{"uri":"file:///x"}')
    assert item_of(raw).media_id == "east-media.ingest-2-7"
    assert item_of(raw).trace_id == item_of(raw).trace_id
    assert item_of(record(b'{"uri":"file:///x"}', offset=8)).trace_id != item_of(raw).trace_id


def test_a_minted_id_is_an_identifier_of_at_most_128_characters() -> None:
    raw = RawRecord(TopicPartition("p" * 200, 1), 3, None, b"")
    assert len(codec(prefix="p").media_id(raw)) == 128


@pytest.mark.parametrize("carried", [b"", b"../../etc", b"\xff\xfe", b"a b", b"x" * 129])
def test_a_carried_id_that_is_no_identifier_is_not_believed(carried: bytes) -> None:
    assert codec().media_id(record(headers=((MEDIA_ID_HEADER, carried),))) == "east-media.ingest-2-7"


def test_what_cannot_be_read_is_rejected_with_its_code() -> None:
    read = codec().read(record(b'{"uri":'))
    assert isinstance(read, Reject)
    assert read.code is RejectCode.TRUNCATED_JSON


def test_an_unknown_major_version_is_the_producers_at_the_edge_and_ours_inside() -> None:
    raw = record(b'{"schema_version":"2.0","uri":"file:///x"}')
    read = codec(edge=True).read(raw)
    assert isinstance(read, Reject)
    assert read.code is RejectCode.UNSUPPORTED_VERSION
    with pytest.raises(UnknownMajorVersion):
        codec(edge=False).read(raw)


def test_a_retry_ticket_is_believed_on_a_retry_topic_only() -> None:
    ticket = RetryTicket(3, 1_700_000_060_000, "media.ingest-0-1", 1_700_000_000_000)
    headers: Headers = ((RETRY_HEADER, ticket.encode()), (MEDIA_ID_HEADER, b"minted-1"))
    forged = record(headers=headers)
    assert (item_of(forged).attempt, item_of(forged).origin, codec().due_s(forged)) == (1, "media.ingest-2-7", None)
    honest = replace(forged, tp=TopicPartition(Topic.RETRY_1M.value, 0))
    assert (item_of(honest).attempt, item_of(honest).origin) == (3, "media.ingest-0-1")
    assert codec().due_s(honest) == 1_700_000_060.0


# -- topic names --


@pytest.mark.parametrize("prefix", ["", "prod", "media"])
@pytest.mark.parametrize("topic", Topic)
def test_names_go_there_and_back(prefix: str, topic: Topic) -> None:
    names = TopicNames(prefix)
    assert names.logical(names.physical(topic)) is topic


def test_a_foreign_topic_is_refused() -> None:
    with pytest.raises(ValueError, match=r"other\.ingest"):
        TopicNames("prod").logical("other.ingest")


# -- out --


def test_results_carry_cloudevents_headers_and_the_trace() -> None:
    raw = record(headers=(("traceparent", TRACE.encode()),))
    item = item_of(raw)
    outputs = (Output(Topic.SUSPECT, "acme/m-1", item.value), Output(Topic.SUSPECT, "acme/m-1", item.value))
    first, second = codec(prefix="prod").write(
        record(topic="prod.media.ingest", headers=raw.headers), codec().trace(raw), item, outputs
    )
    assert (first.topic, first.key) == ("prod.media.suspect", b"acme/m-1")
    assert decode(MediaReference, first.value) == item.value
    assert header(first.headers, "ce_type") == MediaReference.event_type.encode()
    assert header(first.headers, "ce_source") == b"/mediasieve/classifier"
    assert header(first.headers, "ce_subject") == b"acme/m-1"
    assert header(first.headers, "traceparent").startswith(b"00-" + b"a" * 32)
    assert header(first.headers, "traceparent") != TRACE.encode()
    assert header(first.headers, "ce_id") != header(second.headers, "ce_id")


def test_a_redelivered_record_makes_the_same_events_again_and_another_release_others() -> None:
    raw = record()
    outputs = (Output(Topic.SUSPECT, "k", item_of(raw).value),)

    def made_id(version: str) -> bytes:
        return header(codec(version=version).write(raw, codec().trace(raw), item_of(raw), outputs)[0].headers, "ce_id")

    assert made_id("v1") == made_id("v1")
    assert UUID(made_id("v1").decode()).version == 5
    assert made_id("v1") != made_id("v2")


def test_a_decision_goes_out_as_an_ocsf_finding() -> None:
    raw = record()
    made = decision()
    (out,) = codec().write(raw, codec().trace(raw), item_of(raw), (Output(Topic.PASS, "k", made),))
    assert decision_from_finding(out.value) == made
    assert header(out.headers, "ce_dataschema").endswith(b"/detection_finding.json")


# -- the retry ladder --


def test_each_rung_leads_to_the_next_and_the_last_to_none() -> None:
    raw, topics = record(), []
    made = codec()
    item = item_of(raw)
    while (again := made.retry(raw, made.trace(raw), item, DEFER)) is not None:
        topics.append(again.topic)
        assert (again.value, again.key) == (VALUE, b"key")
        raw = RawRecord(TopicPartition(again.topic, 0), 1, again.key, again.value, again.headers)
        item = item_of(raw, made)
        assert item.attempt == len(topics) + 1
        assert item.origin == "media.ingest-2-7"
        assert [k for k, _ in again.headers].count(RETRY_HEADER) == 1
    assert topics == [t.value for t in RETRY_DELAYS_S]


def test_an_origin_that_was_not_asked_stays_on_its_rung_for_an_hour() -> None:
    made, raw = codec(), record()
    unasked = Defer(DeferScope.ITEM, "host busy", asked=False)
    for _ in range(3):
        again = made.retry(raw, made.trace(raw), item_of(raw, made), unasked)
        assert again is not None
        assert again.topic == Topic.RETRY_10S
        raw = RawRecord(TopicPartition(again.topic, 0), 1, again.key, again.value, again.headers)
        assert item_of(raw, made).attempt == 2
    made._clock.advance(3601)  # type: ignore[attr-defined]
    later = made.retry(raw, made.trace(raw), item_of(raw, made), unasked)
    assert later is not None
    assert later.topic == Topic.RETRY_1M


@pytest.mark.parametrize(
    ("retry_after_s", "topic"), [(5.0, Topic.RETRY_10S), (30.0, Topic.RETRY_1M), (9999.0, Topic.RETRY_10M)]
)
def test_an_origin_that_names_a_time_gets_a_delay_as_long(retry_after_s: float, topic: Topic) -> None:
    again = codec().retry(
        record(), codec().trace(record()), item_of(record()), Defer(DeferScope.ITEM, "429", retry_after_s)
    )
    assert again is not None
    assert again.topic == topic


@pytest.mark.parametrize("value", [b"{}", b"not json", b"[]", b'{"attempt":"x"}', b"null"])
def test_a_retry_header_that_is_not_ours_is_an_unexpected_reject(value: bytes) -> None:
    raw = replace(record(headers=((RETRY_HEADER, value),)), tp=TopicPartition(Topic.RETRY_1M.value, 0))
    read = codec().read(raw)
    assert isinstance(read, Reject)
    assert read.code is RejectCode.UNEXPECTED


def test_a_retry_is_due_after_its_topics_delay() -> None:
    raw = record()
    again = codec().retry(raw, codec().trace(raw), item_of(raw), DEFER)
    assert again is not None
    ticket = orjson.loads(header(again.headers, RETRY_HEADER))
    assert ticket["due_ms"] == int((FakeClock().wall_s() + 10.0) * 1000)


def test_a_retry_keeps_the_producers_headers_and_the_media_id() -> None:
    raw = record(b'{"uri":"file:///x"}', headers=(("x", b"1"), ("traceparent", TRACE.encode())))
    again = codec().retry(raw, codec().trace(raw), item_of(raw), DEFER)
    assert again is not None
    assert again.headers[0] == ("x", b"1")
    assert header(again.headers, MEDIA_ID_HEADER) == b"east-media.ingest-2-7"
    assert [k for k, _ in again.headers].count("traceparent") == 1


# -- dead letters --


def letter_of(headers: Headers) -> DeadLetter:
    return decode(DeadLetter, header(headers, DEAD_LETTER_HEADER))


def test_a_dead_letter_is_the_original_with_the_reason_beside_it() -> None:
    raw = record(headers=(("x", b"1"), ("traceparent", TRACE.encode())))
    out = codec().dead_letter(raw, codec().trace(raw), item_of(raw), Reject(RejectCode.SOURCE_GONE, "404"))
    assert (out.topic, out.key, out.value) == (Topic.DEAD_LETTER.value, b"key", VALUE)
    assert out.headers[:2] == raw.headers
    letter = letter_of(out.headers)
    assert letter.code is RejectCode.SOURCE_GONE
    assert (letter.topic, letter.partition, letter.offset) == ("media.ingest", 2, 7)
    assert (letter.media_id, letter.tenant, letter.source) == ("m-1", "acme", "cam-1")
    assert letter.value_sha256 == hashlib.sha256(VALUE).hexdigest()
    assert (letter.value_bytes, letter.value_truncated, letter.trace_id) == (len(VALUE), False, "a" * 32)
    assert letter.failed_at == datetime.fromtimestamp(FakeClock().wall_s(), UTC)


def test_a_dead_letter_of_what_could_not_be_read() -> None:
    out = codec().dead_letter(
        record(b"\xff"), codec().trace(record(b"\xff")), None, Reject(RejectCode.NOT_UTF8, "byte 0")
    )
    letter = letter_of(out.headers)
    assert (letter.media_id, letter.tenant, letter.source) == ("east-media.ingest-2-7", None, None)
    assert header(out.headers, "ce_subject") == b"east-media.ingest-2-7"


def test_a_forged_dead_letter_header_does_not_hide_ours() -> None:
    raw = record(headers=((DEAD_LETTER_HEADER, b"forged"),))
    out = codec().dead_letter(raw, codec().trace(raw), item_of(raw), Reject(RejectCode.SOURCE_GONE, "404"))
    assert letter_of(out.headers).code is RejectCode.SOURCE_GONE


def test_past_its_rate_a_source_keeps_4_kib_and_the_digest_of_all() -> None:
    made = codec(per_minute=1)
    value = b'{"uri":"file:///x","labels":{' + b" " * 9000 + b"}}"
    reject = Reject(RejectCode.SOURCE_GONE, "404")
    first, second = (made.dead_letter(record(value), codec().trace(record(value)), None, reject) for _ in range(2))
    assert (len(first.value), len(second.value)) == (len(value), 4096)
    letter = letter_of(second.headers)
    assert letter.value_truncated
    assert (letter.value_bytes, letter.value_sha256) == (len(value), hashlib.sha256(value).hexdigest())


def test_a_long_detail_is_cut() -> None:
    out = codec().dead_letter(record(), codec().trace(record()), None, Reject(RejectCode.SOURCE_GONE, "x" * 5000))
    assert len(letter_of(out.headers).detail) == 1024
