"""A commit after a broker's death ends in time, one way or the other, and what was committed stays committed."""

from __future__ import annotations

import time
from collections.abc import Collection, Mapping

import pytest
from confluent_kafka import Consumer
from confluent_kafka import TopicPartition as KafkaPartition
from confluent_kafka.admin import AdminClient, NewTopic  # type: ignore[attr-defined]  # re-exports, unmarked

from pipeline.streaming.clock import Deadline, SystemClock
from pipeline.streaming.kafka.config import KafkaSettings
from pipeline.streaming.kafka.embedded import EmbeddedKafka
from pipeline.streaming.kafka.source import KafkaSource
from pipeline.streaming.kafka.transaction import KafkaTransaction
from pipeline.streaming.transport import CommitAborted, CommitPoint, OutcomeUnknown, OutRecord, TopicPartition
from schemas.topics import Topic
from tests.fault.verifier import Reader, settled_ends
from tests.support.kafka import create_topics
from tests.support.waiting import wait_until

pytestmark = [pytest.mark.fault, pytest.mark.kafka]

TIMEOUT_S = 10.0
"""What one commit is given, as in production."""


class Assignment:
    """See AssignmentListener."""

    def __init__(self) -> None:
        self.held: set[TopicPartition] = set()

    def assigned(self, committed: Mapping[TopicPartition, CommitPoint | None]) -> None:
        self.held |= set(committed)

    def revoked(self, partitions: Collection[TopicPartition]) -> None:
        self.held -= set(partitions)

    def lost(self, partitions: Collection[TopicPartition]) -> None:
        self.held -= set(partitions)


def poll_until_assigned(source: KafkaSource, assignment: Assignment) -> None:
    end_s = time.monotonic() + 60.0
    while not assignment.held:
        assert time.monotonic() < end_s, "no partitions"
        source.poll(0.1, 10)


def test_offsets_go_through_after_the_coordinator_died() -> None:
    """librdkafka's own call may never return then (its issues 5456 and 5511)."""
    with EmbeddedKafka() as broker:
        names = create_topics(broker.bootstrap, "death")
        settings = KafkaSettings(bootstrap=broker.bootstrap, topic_prefix="death")
        source, ledger, assignment = (
            KafkaSource(settings.consumer("group")),
            KafkaTransaction(settings.transactional_producer("death-1")),
            Assignment(),
        )
        source.subscribe([names[Topic.INGEST]], assignment)
        ledger.open()
        poll_until_assigned(source, assignment)
        tp = TopicPartition(names[Topic.INGEST], 0)
        ledger.commit((), {tp: CommitPoint(0, "before")}, source.member(), Deadline(SystemClock(), TIMEOUT_S))
        broker.kill()
        broker.restart()
        tries, took_s = 0, 0.0
        while True:
            tries += 1
            started_s = time.monotonic()
            try:
                ledger.commit((), {tp: CommitPoint(0, "after")}, source.member(), Deadline(SystemClock(), TIMEOUT_S))
                break
            except (CommitAborted, OutcomeUnknown):
                took_s = max(took_s, time.monotonic() - started_s)
                source.poll(0.1, 10)
                assert tries < 20
        print(f"the broker died: committed at try {tries}, the longest failed one took {took_s:.1f} s")
        assert took_s < 2 * TIMEOUT_S
        point = source.rewind([tp])[tp]
        assert point is not None
        assert point.note == "after"
        source.close()
        ledger.close()


@pytest.mark.timeout(240)
def test_a_commit_outlives_the_death_of_the_only_leader() -> None:
    """The coordinator must keep the end of a transaction until the partition is back.

    Kafka 4.3 and 4.4 drop it (KAFKA-20734): the record stays invisible, and so do all that come after it.
    """
    with EmbeddedKafka(brokers=3) as cluster:
        settings = KafkaSettings(bootstrap=cluster.bootstrap)
        admin = AdminClient({"bootstrap.servers": cluster.bootstrap})
        admin.create_topics([NewTopic("single", 1, replica_assignment=[[3]])])["single"].result()

        def before_the_commit(hook: str) -> None:
            if hook == "offsets_sent":
                cluster.kill(2)
                wait_until(lambda: leader_of(admin, "single") == -1, 60.0, "the partition has no leader")

        ledger = KafkaTransaction(settings.transactional_producer("outlives"), before_the_commit)
        ledger.open()
        member = Consumer(settings.consumer("group")).consumer_group_metadata()
        ledger.commit([OutRecord("single", b"key", b"kept")], {}, member, Deadline(SystemClock(), 120.0))
        cluster.restart(2)
        ends, _ = settled_ends(cluster.bootstrap, [KafkaPartition("single", 0)])
        reader = Reader(cluster.bootstrap, ["single"], "read_committed")
        assert [message.value() for message in reader.until(ends)] == [b"kept"]
        reader.close()
        ledger.close()


def leader_of(admin: AdminClient, topic: str) -> int:
    return int(admin.list_topics(topic, timeout=20.0).topics[topic].partitions[0].leader)
