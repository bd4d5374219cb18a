"""Reading and writing for people and tools: no group, no transaction."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from types import TracebackType
from typing import Self

from confluent_kafka import (
    OFFSET_BEGINNING,
    OFFSET_END,
    Consumer,
    KafkaError,
    KafkaException,
    Message,
    Producer,
)
from confluent_kafka import TopicPartition as KafkaPartition

from pipeline.streaming.kafka.config import KafkaSettings
from pipeline.streaming.kafka.errors import waits
from pipeline.streaming.kafka.source import raw_record
from pipeline.streaming.transport import CommitPoint, OutRecord, RawRecord, TopicPartition

_TIMEOUT_S = 20.0


class KafkaUnavailable(Exception):
    """The cluster does not answer, or a topic is missing; the text says which and what to do."""


class RecordWriter:
    """Produces with acks=all; `flush` raises unless every record is on the brokers."""

    def __init__(self, settings: KafkaSettings) -> None:
        """Connects at the first record."""
        self._producer = Producer(settings.plain_producer())
        self._where = settings.bootstrap
        self._failures: list[str] = []

    def write(self, record: OutRecord) -> None:
        """Queue one record, waiting while the local queue is full."""
        while True:
            try:
                self._producer.produce(
                    record.topic,
                    record.value,
                    record.key,
                    headers=list(record.headers),
                    on_delivery=self._delivered,
                )
                return
            except BufferError:
                self._producer.poll(0.05)

    def flush(self) -> None:
        """Wait for all acknowledgements.

        Raises:
            KafkaUnavailable: some record was not written.
        """
        left = self._producer.flush(_TIMEOUT_S)
        if left or self._failures:
            what = self._failures[0] if self._failures else f"{left} records not acknowledged in {_TIMEOUT_S:.0f} s"
            raise KafkaUnavailable(f"Kafka at {self._where}: {what}; check the address and `mediasieve topics check`")

    def _delivered(self, error: KafkaError | None, message: Message) -> None:
        if error is not None:
            self._failures.append(f"{message.topic()}: {error.str()}")


class RecordReader:
    """Committed records of whole topics, assigned by hand."""

    def __init__(
        self,
        settings: KafkaSettings,
        topics: Sequence[str],
        *,
        from_end: bool = False,
        since_ms: int | None = None,
    ) -> None:
        """Reads all partitions, from the first record, from now on, or from the first whose timestamp is `since_ms`.

        Raises:
            KafkaUnavailable: no answer, or a topic that does not exist.
        """
        self._consumer = Consumer(settings.reader())
        self._where = settings.bootstrap
        start = OFFSET_END if from_end else OFFSET_BEGINNING
        assigned = self._partitions(topics)
        self._behind = set(assigned)
        places = [KafkaPartition(t, p, start) for t, p in assigned]
        self._consumer.assign(places if since_ms is None else self._since(assigned, since_ms))

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._consumer.close()

    def poll(self, timeout_s: float) -> RawRecord | None:
        """The next record, or None."""
        message = self._consumer.poll(timeout_s)
        if message is None:
            return None
        error = message.error()
        place = (message.topic() or "", message.partition() or 0)
        if error is None:
            self._behind.add(place)
            return raw_record(message)
        if error.code() == KafkaError._PARTITION_EOF:
            self._behind.discard(place)
        elif not waits(error):
            raise KafkaException(error)
        return None

    def to_end(self, timeout_s: float = _TIMEOUT_S) -> Iterator[RawRecord]:
        """All records until every partition's end was seen once, on topics too that grow meanwhile.

        Raises:
            KafkaUnavailable: the end was not reached in time.
        """
        end_s = time.monotonic() + timeout_s
        ahead = set(self._behind)
        while ahead:
            record = self.poll(0.2)
            ahead &= self._behind  # one that was at its end is done, whatever came since
            if record is not None:
                end_s = time.monotonic() + timeout_s
                yield record
            elif time.monotonic() > end_s:
                raise KafkaUnavailable(f"Kafka at {self._where}: {sorted(ahead)} did not answer in {timeout_s:.0f} s")

    def _since(self, assigned: Sequence[tuple[str, int]], since_ms: int) -> list[KafkaPartition]:
        """Milliseconds since the epoch; a partition without such a record is read from its end."""
        wanted = [KafkaPartition(t, p, since_ms) for t, p in assigned]
        try:
            return list(self._consumer.offsets_for_times(wanted, timeout=_TIMEOUT_S))
        except KafkaException as error:
            raise KafkaUnavailable(f"Kafka at {self._where}: {error.args[0].str()}; try again") from error

    def _partitions(self, topics: Sequence[str]) -> list[tuple[str, int]]:
        try:
            known = self._consumer.list_topics(timeout=_TIMEOUT_S).topics
        except KafkaException as error:
            raise KafkaUnavailable(
                f"Kafka at {self._where} does not answer ({error.args[0].str()}); check MEDIASIEVE_KAFKA__BOOTSTRAP"
            ) from error
        missing = [t for t in topics if t not in known]
        if missing:
            raise KafkaUnavailable(f"no topic {', '.join(missing)} at {self._where}; run `mediasieve topics apply`")
        return [(t, p) for t in topics for p in known[t].partitions]


def read_at(
    settings: KafkaSettings, tp: TopicPartition, offset: int, timeout_s: float = _TIMEOUT_S
) -> RawRecord | None:
    """The record at one place; None when it is no longer kept."""
    consumer = Consumer(settings.reader() | {"isolation.level": "read_uncommitted"})
    try:
        consumer.assign([KafkaPartition(tp.topic, tp.partition, offset)])
        end_s = time.monotonic() + timeout_s
        while time.monotonic() < end_s:
            message = consumer.poll(0.2)
            if message is None:
                continue
            error = message.error()
            if error is None:
                return raw_record(message) if message.offset() == offset else None
            if error.code() == KafkaError._PARTITION_EOF:
                return None
        return None
    finally:
        consumer.close()


def note_offset(
    settings: KafkaSettings, group: str, tp: TopicPartition, change: CommitPoint | None
) -> CommitPoint | None:
    """Read a group's committed point or, with `change`, write it. Only a group without members lets itself be changed.

    Raises:
        KafkaUnavailable: the group has members, or the broker refuses.
    """
    consumer = Consumer(settings.common() | {"group.id": settings.group(group), "enable.auto.commit": False})
    try:
        if change is not None:
            point = KafkaPartition(tp.topic, tp.partition, change.offset, change.note)
            consumer.commit(offsets=[point], asynchronous=False)
        found = consumer.committed([KafkaPartition(tp.topic, tp.partition)], timeout=_TIMEOUT_S)[0]
        return CommitPoint(found.offset, found.metadata or "") if found.offset >= 0 else None
    except KafkaException as error:
        raise KafkaUnavailable(
            f"group {settings.group(group)}: {error.args[0].str()}; stop its members first (scale the stage to 0)"
        ) from error
    finally:
        consumer.close()
