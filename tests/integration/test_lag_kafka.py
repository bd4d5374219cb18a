"""Lag by what a real broker tells of its ends."""

from __future__ import annotations

import time
from collections.abc import Collection, Iterator, Mapping
from contextlib import closing as closes
from contextlib import contextmanager
from uuid import uuid4

from confluent_kafka import Producer

from pipeline.streaming.kafka.config import KafkaSettings
from pipeline.streaming.kafka.embedded import EmbeddedKafka
from pipeline.streaming.kafka.source import KafkaSource
from pipeline.streaming.lag import Lag, MemberLag
from pipeline.streaming.partitions import Partitions
from pipeline.streaming.transport import CommitPoint, TopicPartition
from schemas.topics import Topic
from tests.support.kafka import TIMEOUT_S, closing
from tests.support.waiting import wait_until


class Member:
    """Reads a topic and works on nothing."""

    def __init__(self, bootstrap: str, topic: str) -> None:
        self.topic = topic
        self.logs, self.lag = Partitions(), MemberLag()
        self.read = 0
        self.told = Lag()
        self.source = KafkaSource(KafkaSettings(bootstrap=bootstrap).consumer(f"lag-{uuid4().hex[:8]}"))
        self.source.subscribe([topic], self)

    def turn(self) -> Lag:
        polled = self.source.poll(0.05, 10)
        self.read += len(polled.records)
        for tp, end in polled.ends.items():
            log = self.logs.get(tp)
            assert log is not None
            log.end = end
        if polled.highs:
            self.told = self.lag.after(self.logs, polled.highs, time.time()).get(self.topic, Lag())
        return self.told

    def assigned(self, committed: Mapping[TopicPartition, CommitPoint | None]) -> None:
        for tp, point in committed.items():
            self.logs.assign(tp, point)

    def revoked(self, partitions: Collection[TopicPartition]) -> None:
        self.logs.drop(partitions)

    def lost(self, partitions: Collection[TopicPartition]) -> None:
        self.logs.drop(partitions)


@contextmanager
def hidden(bootstrap: str, topic: str, records: int) -> Iterator[Producer]:
    """A foreign producer that has written and neither commits nor aborts."""
    settings = {"bootstrap.servers": bootstrap, "transactional.id": uuid4().hex, "transaction.timeout.ms": 600_000}
    with closing(Producer(settings)) as producer:
        producer.init_transactions(TIMEOUT_S)
        producer.begin_transaction()
        for number in range(records):
            producer.produce(topic, b"%d" % number, partition=0)
        assert producer.flush(TIMEOUT_S) == 0
        yield producer


def test_what_an_open_transaction_hides_lags_and_ages(kafka: EmbeddedKafka, topics: dict[Topic, str]) -> None:
    member = Member(kafka.bootstrap, topics[Topic.INGEST])
    with closes(member.source), hidden(kafka.bootstrap, member.topic, 3) as producer:
        wait_until(lambda: member.turn().records == 3, TIMEOUT_S, "the hidden records to count as lag")
        told = member.told
        wait_until(lambda: member.turn().seconds > told.seconds, TIMEOUT_S, "the lag to age")
        assert member.read == 0
        producer.abort_transaction(TIMEOUT_S)
        wait_until(lambda: member.turn() == Lag(), TIMEOUT_S, "the aborted records to lag no more")
        assert member.read == 0
