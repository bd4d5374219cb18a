"""Messages that foreign clients can make and that must not end a worker."""

from __future__ import annotations

from typing import Any

import pytest
from confluent_kafka import KafkaError, KafkaException
from confluent_kafka import TopicPartition as KafkaPartition

from pipeline.streaming.kafka.source import KafkaSource, raw_record
from pipeline.streaming.stage import Item
from pipeline.streaming.transport import CommitPoint, TopicPartition
from schemas.types import StageName
from workers.verdicts import MAX_WAITED_S, Stopwatch


class FakeMessage:
    """The calls of confluent_kafka.Message that the source makes."""

    def __init__(self, headers: Any = None, timestamp_ms: int = 1) -> None:
        self._headers = headers
        self._timestamp_ms = timestamp_ms

    def headers(self) -> Any:
        if isinstance(self._headers, Exception):
            raise self._headers
        return self._headers

    def topic(self) -> str:
        return "media.ingest"

    def partition(self) -> int:
        return 0

    def offset(self) -> int:
        return 7

    def key(self) -> bytes | None:
        return None

    def value(self) -> bytes | None:
        return None

    def timestamp(self) -> tuple[int, int]:
        return (1, self._timestamp_ms)


def read(**parts: Any) -> Any:
    return raw_record(FakeMessage(**parts))  # type: ignore[arg-type]


def test_header_names_that_are_not_utf8_cost_the_headers_and_not_the_worker() -> None:
    unreadable = UnicodeDecodeError("utf-8", b"\xff", 0, 1, "invalid start byte")
    assert read(headers=unreadable).headers == ()


def test_a_record_without_anything_is_a_record() -> None:
    record = read()
    assert (record.key, record.value, record.headers, record.offset) == (None, b"", (), 7)


def test_a_header_without_a_value_is_empty() -> None:
    assert read(headers=[("a", None), ("b", b"1")]).headers == (("a", b""), ("b", b"1"))


def test_no_timestamp_counts_as_zero() -> None:
    assert read(timestamp_ms=-1).timestamp_ms == 0


@pytest.mark.parametrize("queued_at_s", [0.0, 1_790_000.0, 1e12])
def test_a_timestamp_that_no_retention_explains_counts_as_no_wait(queued_at_s: float) -> None:
    item = Item("x", "m", "t", "s", "o", "0" * 32, 1, queued_at_s)
    assert Stopwatch(StageName.CLASSIFIER, item).stop().waited_ms == 0.0


def test_an_ordinary_wait_is_told() -> None:
    import time

    item = Item("x", "m", "t", "s", "o", "0" * 32, 1, time.time() - 5.0)
    assert 5_000.0 <= Stopwatch(StageName.CLASSIFIER, item).stop().waited_ms <= MAX_WAITED_S * 1000


def test_a_commit_that_failed_is_told_once_whether_at_once_or_later() -> None:
    source = KafkaSource({"bootstrap.servers": "127.0.0.1:1", "group.id": "g", "log_level": 0})
    try:
        good, bad = KafkaPartition("t", 0, 5), KafkaPartition("t", 1, 5)
        source._on_commit(None, [good])
        assert source.refused() == set()
        source._on_commit(KafkaError(KafkaError.REBALANCE_IN_PROGRESS), [bad])
        assert source.refused() == {TopicPartition("t", 1)}
        assert source.refused() == set()
        source._consumer = Refusing()  # type: ignore[assignment]
        source.commit({TopicPartition("t", 2): CommitPoint(5)})
        assert source.refused() == {TopicPartition("t", 2)}
    finally:
        source._closed = True


class Refusing:
    """A consumer that is not in the group."""

    def commit(self, **_: Any) -> None:
        raise KafkaException(KafkaError(KafkaError.UNKNOWN_MEMBER_ID))
