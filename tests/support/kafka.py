"""Topics and records of one test on the broker that all tests of a run share."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

from confluent_kafka import Consumer, KafkaError, KafkaException, Message, Producer, TopicPartition
from confluent_kafka.admin import AdminClient

from pipeline.streaming.kafka.admin import TopicAdmin, topic_name
from pipeline.streaming.kafka.config import KafkaSettings
from schemas.topics import TOPICS, Topic

PARTITIONS = 4
TIMEOUT_S = 60.0
"""How long a test waits for what must come; long, so that no busy machine fails a test that is right."""


def create_topics(bootstrap: str, prefix: str) -> dict[Topic, str]:
    """All topics of the fleet under the prefix, with 4 partitions; logical topic -> full name."""
    TopicAdmin({"bootstrap.servers": bootstrap}, TIMEOUT_S).apply(TOPICS, PARTITIONS, 1, prefix)
    return {spec.topic: topic_name(spec, prefix) for spec in TOPICS}


def delete_topics(bootstrap: str, names: Sequence[str]) -> None:
    """Delete, so that a long test run does not run out of open files."""
    admin = AdminClient({"bootstrap.servers": bootstrap})
    for future in admin.delete_topics(list(names), request_timeout=TIMEOUT_S).values():
        future.result(TIMEOUT_S)


def produce(bootstrap: str, topic: str, values: Sequence[bytes], partition: int = 0, key: bytes | None = None) -> None:
    """Write records and wait until the broker has them all. A compacted topic takes none without a key."""
    failures: list[str] = []

    def delivered(error: KafkaError | None, _: Message) -> None:
        failures.append("" if error is None else str(error))  # an error cannot be compared with None

    with closing(Producer(KafkaSettings(bootstrap=bootstrap).plain_producer())) as producer:
        for value in values:
            producer.produce(topic, value, key, partition, on_delivery=delivered)
        assert producer.flush(TIMEOUT_S) == 0
    assert failures == [""] * len(values)


@contextmanager
def closing(producer: Producer) -> Iterator[Producer]:
    """Destroys the client in a call of its own, also after an exception.

    Left to the interpreter it is destroyed when its last reference goes. What a signal handler raises in that moment,
    as Ctrl-C and pytest's time limit do, then comes out of some unrelated call as a SystemError.
    """
    try:
        yield producer
    except BaseException:
        producer.purge()  # `close` waits for what is queued
        raise
    finally:
        producer.close()


def read_all(bootstrap: str, topics: Sequence[str], count: int, timeout_s: float = TIMEOUT_S) -> list[Message]:
    """Exactly the first `count` committed records of all partitions, from the beginning, without a group.

    Raises:
        AssertionError: there are fewer.
    """
    consumer = Consumer(
        {
            "bootstrap.servers": bootstrap,
            "group.id": "never-committed",
            "enable.auto.commit": False,
            "auto.offset.reset": "earliest",
            "isolation.level": "read_committed",
        }
    )
    try:
        metadata = consumer.list_topics(timeout=timeout_s).topics
        consumer.assign([TopicPartition(t, p, 0) for t in topics for p in metadata[t].partitions])
        deadline_s = time.monotonic() + timeout_s
        records: list[Message] = []
        while len(records) < count:
            remaining_s = deadline_s - time.monotonic()
            assert remaining_s > 0, f"{len(records)} of {count} records in {topics} after {timeout_s:g} s"
            for message in consumer.consume(count - len(records), timeout=min(0.1, remaining_s)):
                if (error := message.error()) is not None:
                    raise KafkaException(error)
                records.append(message)
        return records
    finally:
        consumer.close()
