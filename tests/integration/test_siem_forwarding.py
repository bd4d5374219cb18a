"""A real topic with aborted transactions and repeated events, into Splunk's collector: distinct uids == published."""

from __future__ import annotations

import json
from collections.abc import Iterator
from itertools import cycle, islice
from uuid import uuid4

import pytest
from confluent_kafka import Consumer, Producer, TopicPartition

from pipeline.streaming.kafka.embedded import EmbeddedKafka
from schemas.topics import Topic
from tests.support.findings import published
from tests.support.hec import HecEndpoint, Poll, Post
from tests.support.hec_forwarder import Forwarder
from tests.support.kafka import PARTITIONS, TIMEOUT_S, create_topics, delete_topics, read_all
from tests.support.waiting import wait_until

EVENTS = published(40)
DECIDED, NEVER_DECIDED = EVENTS[:-10], EVENTS[-10:]
REPEATED = DECIDED[:10]


@pytest.fixture(scope="module")
def topic(kafka: EmbeddedKafka) -> Iterator[str]:
    """`decisions.escalate` with a committed transaction, an aborted one, and one that repeats some events."""
    topics = create_topics(kafka.bootstrap, f"siem-{uuid4().hex[:8]}")
    producer = Producer({"bootstrap.servers": kafka.bootstrap, "transactional.id": uuid4().hex})
    producer.init_transactions(TIMEOUT_S)
    for values, commit in ((DECIDED, True), (NEVER_DECIDED, False), (REPEATED, True)):
        producer.begin_transaction()
        for number, value in enumerate(values):
            producer.produce(topics[Topic.ESCALATE], value, partition=number % PARTITIONS)
        assert producer.flush(TIMEOUT_S) == 0
        if commit:
            producer.commit_transaction(TIMEOUT_S)
        else:
            producer.abort_transaction(TIMEOUT_S)
    yield topics[Topic.ESCALATE]
    delete_topics(kafka.bootstrap, list(topics.values()))


def uids(values: list[bytes]) -> list[str]:
    return [json.loads(value)["metadata"]["uid"] for value in values]


def test_what_is_received_is_what_was_decided(kafka: EmbeddedKafka, topic: str) -> None:
    records = read_all(kafka.bootstrap, [topic], len(DECIDED) + len(REPEATED))
    endpoint = HecEndpoint(
        posts=islice(cycle([Post.FINE, Post.VANISHES, Post.REPLY_LOST, Post.BUSY, Post.ACK_LOST]), 40),
        polls=islice(cycle([Poll.FINE, Poll.REPLY_LOST, Poll.BUSY]), 40),
    )
    Forwarder(endpoint.client()).run([record.value() or b"" for record in records])
    assert set(endpoint.uids()) == set(uids(DECIDED))
    assert len(set(endpoint.uids())) == len(DECIDED) < len(records) < len(endpoint.indexed)


def test_without_read_committed_what_was_never_decided_would_be_seen(kafka: EmbeddedKafka, topic: str) -> None:
    """So each configuration sets it."""
    consumer = Consumer(
        {
            "bootstrap.servers": kafka.bootstrap,
            "group.id": "never-committed",
            "enable.auto.commit": False,
            "isolation.level": "read_uncommitted",
        }
    )
    consumer.assign([TopicPartition(topic, partition, 0) for partition in range(PARTITIONS)])
    found: list[bytes] = []

    def read() -> bool:
        found.extend(m.value() or b"" for m in consumer.consume(100, timeout=0.5) if m.error() is None)
        return len(found) >= len(EVENTS) + len(REPEATED)

    wait_until(read, TIMEOUT_S, "every record, committed or not")
    consumer.close()
    assert set(uids(found)) == set(uids(EVENTS))
