"""Between Kafka records and a stage's items: decoding, ids, traces, and what goes out."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from typing import Generic, TypeVar

import orjson

from pipeline.streaming.clock import Clock
from pipeline.streaming.failure import SourceRate
from pipeline.streaming.stage import Defer, Item, Output, Reject
from pipeline.streaming.trace import FlagLimit, RecordTrace, Samples, trace_of
from pipeline.streaming.transport import Headers, OutRecord, RawRecord
from schemas.base import Record
from schemas.deadletter import DEAD_LETTER_HEADER, DeadLetter, RejectCode
from schemas.decision import Decision
from schemas.envelope import TRACEPARENT_HEADER, child_of, event_id, headers_for, schema_uri
from schemas.ocsf import DetectionFinding, encode_finding, finding_from_decision
from schemas.topics import RETRY_DELAYS_S, Topic
from schemas.types import StageName
from schemas.wire import UnknownMajorVersion, WireError, decode, encode

R = TypeVar("R", bound=Record)

RETRY_HEADER = "mediasieve-retry"
MAX_UNASKED_MS = 3_600_000
MEDIA_ID_HEADER = "mediasieve-media-id"
_IDENTIFIER = re.compile(r"[A-Za-z0-9][A-Za-z0-9._:@-]{0,127}")


@dataclass(frozen=True, slots=True)
class Identity:
    """Whose item it is; `media_id` None when the producer gave none, `source` empty likewise."""

    media_id: str | None
    tenant: str
    source: str


@dataclass(frozen=True, slots=True)
class RetryTicket:
    """What a retry topic's record carries beside the producer's own."""

    attempt: int
    due_ms: int
    origin: str
    since_ms: int

    def encode(self) -> bytes:
        """JSON of a header."""
        values = {"attempt": self.attempt, "due_ms": self.due_ms, "origin": self.origin, "since_ms": self.since_ms}
        return orjson.dumps(values)

    @staticmethod
    def of(raw: RawRecord) -> RetryTicket | None:
        """None where the record is on its first way; ValueError for a header that is not ours."""
        value = raw.header(RETRY_HEADER)
        if value is None:
            return None
        try:
            data = orjson.loads(value)
            return RetryTicket(int(data["attempt"]), int(data["due_ms"]), str(data["origin"]), int(data["since_ms"]))
        except (KeyError, TypeError) as error:
            raise ValueError(f"{RETRY_HEADER}: {error}") from error


@dataclass(frozen=True, slots=True)
class TopicNames:
    """Logical topics <-> the names of this deployment."""

    prefix: str = ""

    def physical(self, topic: Topic) -> str:
        """With the deployment's prefix."""
        return f"{self.prefix}.{topic.value}" if self.prefix else topic.value

    def logical(self, name: str) -> Topic:
        """Raises ValueError for a topic that is none of ours."""
        return Topic(name.removeprefix(f"{self.prefix}.") if self.prefix else name)


class Codec(Generic[R]):
    """One stage's reader and writer."""

    def __init__(
        self,
        *,
        stage: StageName,
        version: str,
        model: type[R],
        identity: Callable[[R], Identity],
        cluster: str,
        names: TopicNames,
        clock: Clock,
        source_rate: SourceRate,
        edge: bool = False,
        samples: Samples = lambda _: True,
        flags: FlagLimit | None = None,
    ) -> None:
        """`version` (of the bundle) makes event ids differ between releases; `cluster` begins a minted media id.

        `edge`: the records are producers'; an unknown major version is then theirs to mend, not ours to stop for.
        `samples`: which traces that begin here are flagged as recorded. `flags`: how many of producers' flags count;
        none: all.
        """
        self._stage = stage
        self._version = version
        self._model = model
        self._identity = identity
        self._cluster = cluster
        self._names = names
        self._clock = clock
        self._source_rate = source_rate
        self._edge = edge
        self._samples = samples
        self._flags = flags

    def read(self, raw: RawRecord) -> Item[R] | Reject:
        """Decode one record.

        Raises:
            UnknownMajorVersion: an internal record of a newer release; the worker must stop, uncommitted.
        """
        try:
            value = decode(self._model, raw.value)
        except WireError as error:
            return Reject(error.code, error.detail)
        except UnknownMajorVersion as error:
            if not self._edge:
                raise
            return Reject(RejectCode.UNSUPPORTED_VERSION, str(error))
        who = self._identity(value)
        try:
            ticket = self._ticket(raw)
        except ValueError as error:
            return Reject(RejectCode.UNEXPECTED, str(error))
        return Item(
            value=value,
            media_id=who.media_id or self.media_id(raw),
            tenant=who.tenant,
            source=who.source,
            origin=ticket.origin if ticket else _place(raw),
            trace_id=self.trace_id(raw),
            attempt=ticket.attempt if ticket else 1,
            queued_at_s=raw.timestamp_ms / 1000.0,
        )

    def media_id(self, raw: RawRecord) -> str:
        """The id given by an earlier read, else one minted from where the record was first read."""
        carried = (raw.header(MEDIA_ID_HEADER) or b"").decode("ascii", "replace")
        if _IDENTIFIER.fullmatch(carried):
            return carried
        return f"{self._cluster}-{_place(raw)}"[-128:]

    def trace_id(self, raw: RawRecord) -> str:
        """The producer's trace, or one made from the record's place, the same at each delivery."""
        return self._own(raw).trace_id

    def trace(self, raw: RawRecord) -> RecordTrace:
        """The span that this stage's work on the record is; asked for once at each delivery.

        Its ids are the same every time. Whether a producer's flag counts depends on how many came before it.
        """
        own = self._own(raw)
        if self._flags is None or own.parent_id is None or not own.sampled or not self._from_producer(raw):
            return own
        return own if self._flags.admit(self._clock.monotonic_s()) else replace(own, sampled=False)

    def due_s(self, raw: RawRecord) -> float | None:
        """Wall-clock seconds at which a delayed record may be tried."""
        ticket = self._ticket(raw)
        return ticket.due_ms / 1000.0 if ticket else None

    def write(
        self, raw: RawRecord, trace: RecordTrace, item: Item[R], outputs: Sequence[Output]
    ) -> tuple[OutRecord, ...]:
        """Results with CloudEvents headers and the trace carried on."""
        return tuple(self._write_one(raw, trace, item, i, output) for i, output in enumerate(outputs))

    def dead_letter(self, raw: RawRecord, trace: RecordTrace, item: Item[R] | None, reject: Reject) -> OutRecord:
        """The original value and headers, with what went wrong beside them.

        The headers after the last `mediasieve-dead-letter` are ours, those before it the record's own.
        """
        source = item.source if item else ""
        keep_all = self._source_rate.may_keep_all(source or "(unreadable)", self._clock.monotonic_s())
        kept = raw.value if keep_all else raw.value[: SourceRate.KEPT_BYTES]
        now = datetime.fromtimestamp(self._clock.wall_s(), UTC)
        letter = DeadLetter(
            code=reject.code,
            detail=reject.detail[:1024],
            stage=self._stage,
            topic=raw.tp.topic,
            partition=raw.tp.partition,
            offset=raw.offset,
            attempts=item.attempt if item else 1,
            media_id=item.media_id if item else self.media_id(raw),
            tenant=item.tenant if item else None,
            source=source or None,
            trace_id=trace.trace_id,
            value_sha256=hashlib.sha256(raw.value).hexdigest(),
            value_bytes=len(raw.value),
            value_truncated=len(kept) < len(raw.value),
            failed_at=now,
        )
        ours = headers_for(
            event_type=DeadLetter.event_type,
            source=f"/mediasieve/{self._stage}",
            event_id=event_id(_place(raw), self._stage, 0, self._version),
            subject=f"{letter.tenant}/{letter.media_id}" if letter.tenant else letter.media_id,
            time=now,
            traceparent=_child(trace),
            data_schema=schema_uri(DeadLetter),
            content_type="application/octet-stream",
        )
        headers: Headers = (*raw.headers, (DEAD_LETTER_HEADER, encode(letter)), *ours)
        return OutRecord(self._names.physical(Topic.DEAD_LETTER), raw.key, kept, headers)

    def retry(self, raw: RawRecord, trace: RecordTrace, item: Item[R], defer: Defer) -> OutRecord | None:
        """The producer's record, byte for byte, for the next retry topic; None after the last one.

        An origin that names a time gets at least the first delay that is as long. Where it was not asked the record
        stays on its rung, for an hour at most.
        """
        ticket = self._ticket(raw)
        now_ms = int(self._clock.wall_s() * 1000)
        since_ms = ticket.since_ms if ticket else now_ms
        asked = defer.asked or now_ms - since_ms > MAX_UNASKED_MS
        topic = self._rung(raw, asked=asked, delay_s=defer.retry_after_s)
        if topic is None:
            return None
        attempt = item.attempt + 1 if asked or ticket is None else item.attempt
        due_ms = now_ms + int(RETRY_DELAYS_S[topic] * 1000)
        ours = (RETRY_HEADER, MEDIA_ID_HEADER, "traceparent")
        headers: Headers = (
            *((k, v) for k, v in raw.headers if k not in ours),
            (RETRY_HEADER, RetryTicket(attempt, due_ms, item.origin, since_ms).encode()),
            (MEDIA_ID_HEADER, item.media_id.encode()),
            ("traceparent", _child(trace).encode()),
        )
        return OutRecord(self._names.physical(topic), raw.key, raw.value, headers)

    def _rung(self, raw: RawRecord, *, asked: bool, delay_s: float) -> Topic | None:
        here = self._names.logical(raw.tp.topic)
        ladder = list(RETRY_DELAYS_S)
        rung = ladder.index(here) + (1 if asked else 0) if here in RETRY_DELAYS_S else 0
        higher = ladder[rung:]
        return next((t for t in higher if RETRY_DELAYS_S[t] >= delay_s), higher[-1] if higher else None)

    def _ticket(self, raw: RawRecord) -> RetryTicket | None:
        """Read from retry topics only: elsewhere the header would be a producer's own invention."""
        return RetryTicket.of(raw) if self._names.logical(raw.tp.topic) in RETRY_DELAYS_S else None

    def _write_one(self, raw: RawRecord, trace: RecordTrace, item: Item[R], index: int, output: Output) -> OutRecord:
        record = output.record
        value = encode_finding(finding_from_decision(record)) if isinstance(record, Decision) else encode(record)
        headers = headers_for(
            event_type=type(record).event_type,
            source=f"/mediasieve/{self._stage}",
            event_id=event_id(item.origin, self._stage, index, self._version),
            subject=output.key,
            time=datetime.fromtimestamp(self._clock.wall_s(), UTC),
            traceparent=_child(trace),
            data_schema=schema_uri(DetectionFinding if isinstance(record, Decision) else type(record)),
        )
        return OutRecord(self._names.physical(output.topic), output.key.encode(), value, tuple(headers))

    def _own(self, raw: RawRecord) -> RecordTrace:
        return trace_of(raw.header(TRACEPARENT_HEADER), f"{self._cluster}-{_place(raw)}", self._stage, self._samples)

    def _from_producer(self, raw: RawRecord) -> bool:
        """What comes back from a retry topic, this fleet wrote there."""
        return self._edge and self._names.logical(raw.tp.topic) not in RETRY_DELAYS_S


def _child(trace: RecordTrace) -> str:
    return child_of(trace.context).format()


def _place(raw: RawRecord) -> str:
    return f"{raw.tp.topic}-{raw.tp.partition}-{raw.offset}"
