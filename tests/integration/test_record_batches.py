"""What is written in one go may be far more than a topic takes in one batch."""

from __future__ import annotations

from confluent_kafka import Producer

from pipeline.streaming.kafka.client import RecordWriter
from pipeline.streaming.kafka.config import KafkaSettings
from pipeline.streaming.kafka.embedded import EmbeddedKafka
from pipeline.streaming.transport import OutRecord
from schemas.topics import TOPICS, Topic
from tests.support.kafka import TIMEOUT_S, closing, produce, read_all

COUNT = 400
VALUE = b"x" * 2434
"""A decision's usual size; all of them wait together for the first answer of the broker."""


def test_a_burst_is_no_batch_that_the_broker_refuses(kafka: EmbeddedKafka, topics: dict[Topic, str]) -> None:
    smallest = min(spec.max_bytes for spec in TOPICS)
    assert COUNT * len(VALUE) > 2 * smallest
    settings = KafkaSettings(bootstrap=kafka.bootstrap)

    writer = RecordWriter(settings)
    for _ in range(COUNT):
        writer.write(OutRecord(topics[Topic.PASS], b"one key", VALUE, ()))
    writer.flush()
    assert len(read_all(kafka.bootstrap, [topics[Topic.PASS]], COUNT)) == COUNT

    failures: list[object] = []
    with closing(Producer(settings.transactional_producer(topics[Topic.BLOCK]))) as producer:
        producer.init_transactions(TIMEOUT_S)
        producer.begin_transaction()
        for _ in range(COUNT):
            producer.produce(topics[Topic.BLOCK], VALUE, partition=0, on_delivery=lambda e, _: failures.append(e))
        producer.commit_transaction(TIMEOUT_S)
    assert [str(failure) for failure in failures if failure is not None] == []
    assert len(read_all(kafka.bootstrap, [topics[Topic.BLOCK]], COUNT)) == COUNT

    produce(kafka.bootstrap, topics[Topic.ESCALATE], [VALUE] * COUNT)
    assert len(read_all(kafka.bootstrap, [topics[Topic.ESCALATE]], COUNT)) == COUNT
