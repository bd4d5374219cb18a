"""A consumer-group member as a Source."""

from __future__ import annotations

import logging
import math
import time
from collections.abc import Collection, Mapping
from typing import Any

import structlog
from confluent_kafka import OFFSET_BEGINNING, Consumer, KafkaError, KafkaException, Message
from confluent_kafka import TopicPartition as KafkaPartition

from pipeline.streaming.kafka.errors import waits
from pipeline.streaming.transport import (
    AssignmentListener,
    CommitPoint,
    Headers,
    Member,
    Polled,
    RawRecord,
    SourceFailed,
    TopicPartition,
)

log = structlog.get_logger(__name__)

_BOUNDS_TIMEOUT_S = 5.0
_HIGHS_EVERY_S = 1.0
_COMMITTED_TIMEOUT_S = 45.0
"""Longer than a dead member's transaction can hold the offsets: transaction.timeout.ms of 15 s, and 10 s more until
the broker looks (transaction.abort.timed.out.transaction.cleanup.interval.ms)."""


class KafkaSource:
    """One confluent_kafka.Consumer; every call from one thread.

    Assignment is incremental under both group protocols. A partition starts where the group committed, else at
    the beginning; the listener hears the committed point with its note.
    """

    def __init__(self, config: dict[str, Any], *, held: bool = False) -> None:
        """`config` as made by KafkaSettings.consumer. `held`: see PositionedSource."""
        self._consumer = Consumer({**config, "on_commit": self._on_commit}, logger=logging.getLogger("librdkafka"))
        self._held = held
        self._listener: AssignmentListener | None = None
        self._closed = False
        self._moved: set[tuple[str | None, int | None]] = set()
        self._refused: set[TopicPartition] = set()
        self._highs_at_s = -math.inf

    def subscribe(self, topics: Collection[str], listener: AssignmentListener) -> None:
        """See Source."""
        self._listener = listener
        self._consumer.subscribe(
            list(topics), on_assign=self._on_assign, on_revoke=self._on_revoke, on_lost=self._on_lost
        )

    def poll(self, timeout_s: float, limit: int) -> Polled:
        """See Source. `poll` wakes at the first record; `consume` alone would wait for `limit` of them."""
        first = self._consumer.poll(timeout_s)
        if first is None:
            return Polled(highs=self._highs())
        self._moved.clear()
        rest = self._consumer.consume(limit - 1, 0.0) if limit > 1 else []
        records: list[RawRecord] = []
        ends: dict[TopicPartition, int] = {}
        if (first.topic(), first.partition()) not in self._moved:  # else it is read again, from what is committed
            self._sort(first, records, ends)
        for message in rest:
            self._sort(message, records, ends)
        return Polled(records, ends, self._highs())

    def pause(self, partitions: Collection[TopicPartition]) -> None:
        """See Source."""
        self._consumer.pause(self._still_assigned(partitions))

    def resume(self, partitions: Collection[TopicPartition]) -> None:
        """See Source."""
        self._consumer.resume(self._still_assigned(partitions))

    def rewind(self, partitions: Collection[TopicPartition]) -> Mapping[TopicPartition, CommitPoint | None]:
        """See Source."""
        committed = self._committed(partitions)
        for tp, point in committed.items():
            self._consumer.seek(KafkaPartition(tp.topic, tp.partition, point.offset if point else OFFSET_BEGINNING))
        return committed

    def bounds(self, tp: TopicPartition) -> tuple[int, int] | None:
        """See PositionedSource."""
        try:
            found = self._consumer.get_watermark_offsets(
                KafkaPartition(tp.topic, tp.partition), timeout=_BOUNDS_TIMEOUT_S, cached=False
            )
        except KafkaException as error:
            if waits(error.args[0]):
                log.warning("consumer_waits", error=str(error), partition=str(tp))
                return None
            raise SourceFailed(f"the bounds of {tp} could not be read: {error}") from error
        return (found[0], found[1]) if found is not None else None

    def start(self, tp: TopicPartition, offset: int) -> bool:
        """See PositionedSource."""
        try:
            self._consumer.seek(KafkaPartition(tp.topic, tp.partition, offset))
        except KafkaException as error:
            if error.args[0].code() in (KafkaError._STATE, KafkaError._PREV_IN_PROGRESS) or waits(error.args[0]):
                return False  # the client has not begun to serve it
            raise SourceFailed(f"{tp} cannot be read from offset {offset}: {error}") from error
        self.resume([tp])
        return True

    def commit(self, offsets: Mapping[TopicPartition, CommitPoint]) -> None:
        """See PositionedSource."""
        points = [KafkaPartition(tp.topic, tp.partition, p.offset, p.note) for tp, p in offsets.items()]
        try:
            self._consumer.commit(offsets=points, asynchronous=True)
        except KafkaException as error:
            log.warning("commit_failed", error=str(error))
            self._refused |= offsets.keys()

    def refused(self) -> set[TopicPartition]:
        """See PositionedSource. The answers to commits arrive during `poll`."""
        refused, self._refused = self._refused, set()
        return refused

    def member(self) -> Member:
        """See Source."""
        return self._consumer.consumer_group_metadata()  # type: ignore[no-any-return]

    def close(self) -> None:
        """See Source."""
        if not self._closed:
            self._closed = True
            self._consumer.close()

    def _highs(self) -> dict[TopicPartition, int]:
        """Without asking the broker: that of a paused partition stays what its last fetch told."""
        now_s = time.monotonic()
        if now_s - self._highs_at_s < _HIGHS_EVERY_S:
            return {}
        self._highs_at_s = now_s
        found: dict[TopicPartition, int] = {}
        for p in self._consumer.assignment():
            bounds = self._consumer.get_watermark_offsets(p, cached=True)
            if bounds is not None and bounds[1] >= 0:
                found[TopicPartition(p.topic, p.partition)] = bounds[1]
        return found

    def _sort(self, message: Message, records: list[RawRecord], ends: dict[TopicPartition, int]) -> None:
        error = message.error()
        if error is None:
            records.append(raw_record(message))
        elif error.code() == KafkaError._PARTITION_EOF:
            ends[TopicPartition(message.topic() or "", message.partition() or 0)] = message.offset() or 0
        elif waits(error):
            log.warning("consumer_waits", error=str(error))
        else:
            raise SourceFailed(f"the broker refuses to be read: {error}")

    def _on_assign(self, consumer: Consumer, partitions: list[KafkaPartition]) -> None:
        if self._closed:
            return  # closing serves pending calls; asking what is committed would hang there
        tps = [TopicPartition(p.topic, p.partition) for p in partitions]
        committed = self._committed(tps)
        starts = [
            KafkaPartition(tp.topic, tp.partition, point.offset if point and not self._held else OFFSET_BEGINNING)
            for tp, point in committed.items()
        ]
        consumer.incremental_assign(starts)
        if starts and self._held:
            consumer.pause(starts)
        elif starts:
            consumer.resume(starts)  # a partition that comes back may still be paused
        if self._listener is not None:
            self._listener.assigned(committed)

    def _on_revoke(self, consumer: Consumer, partitions: list[KafkaPartition]) -> None:
        self._moved |= {(p.topic, p.partition) for p in partitions}
        if self._listener is not None:
            self._listener.revoked([TopicPartition(p.topic, p.partition) for p in partitions])
        if not self._closed:
            consumer.incremental_unassign(partitions)

    def _on_lost(self, consumer: Consumer, partitions: list[KafkaPartition]) -> None:
        self._moved |= {(p.topic, p.partition) for p in partitions}
        if self._listener is not None:
            self._listener.lost([TopicPartition(p.topic, p.partition) for p in partitions])
        if not self._closed:
            consumer.incremental_unassign(partitions)

    def _committed(self, tps: Collection[TopicPartition]) -> dict[TopicPartition, CommitPoint | None]:
        """Asked of the broker, waiting for pending transactional offsets to settle (KIP-447)."""
        if not tps:
            return {}
        asked = [KafkaPartition(tp.topic, tp.partition) for tp in tps]
        try:
            found = self._consumer.committed(asked, timeout=_COMMITTED_TIMEOUT_S)
        except KafkaException as error:
            raise SourceFailed(f"the group's committed offsets could not be read: {error}") from error
        points: dict[TopicPartition, CommitPoint | None] = {}
        for p in found:
            if p.error is not None:
                raise SourceFailed(f"the committed offset of {p.topic}[{p.partition}]: {p.error}")
            points[TopicPartition(p.topic, p.partition)] = (
                CommitPoint(p.offset, p.metadata or "") if p.offset >= 0 else None
            )
        return points

    def _on_commit(self, error: KafkaError | None, partitions: list[KafkaPartition]) -> None:
        """Of `commit` alone: transactions commit elsewhere. Such as REBALANCE_IN_PROGRESS or STALE_MEMBER_EPOCH."""
        failed = [p for p in partitions if p.error or error]
        if failed:
            said = "; ".join(f"{p.topic}[{p.partition}]: {p.error or error}" for p in failed[:3])
            log.warning("commit_failed", error=said, partitions=len(failed))
        self._refused |= {TopicPartition(p.topic, p.partition) for p in failed}

    def _still_assigned(self, partitions: Collection[TopicPartition]) -> list[KafkaPartition]:
        assigned = {(p.topic, p.partition) for p in self._consumer.assignment()}
        return [KafkaPartition(tp.topic, tp.partition) for tp in partitions if (tp.topic, tp.partition) in assigned]


def _headers(message: Message) -> Headers:
    """None where a name is not UTF-8: confluent-kafka cannot give those, and the value is still the record."""
    try:
        return tuple(_header(h) for h in message.headers() or ())
    except UnicodeDecodeError:
        place = {"topic": message.topic(), "partition": message.partition(), "offset": message.offset()}
        log.warning("header_names_unreadable", **place)
        return ()


def _header(header: Any) -> tuple[str, bytes]:
    name, value = header
    return name, value.encode() if isinstance(value, str) else value or b""


def raw_record(message: Message) -> RawRecord:
    """A message without error as a RawRecord."""
    value = message.value()
    key = message.key()
    return RawRecord(
        tp=TopicPartition(message.topic() or "", message.partition() or 0),
        offset=message.offset() or 0,
        key=key.encode() if isinstance(key, str) else key,
        value=value.encode() if isinstance(value, str) else value or b"",
        headers=_headers(message),
        timestamp_ms=max(0, message.timestamp()[1]),
    )
