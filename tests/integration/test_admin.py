"""Topics on a real broker: create, compare, alter, lag."""

from __future__ import annotations

import dataclasses
import socket

import pytest
from confluent_kafka import Consumer, Producer, TopicPartition
from confluent_kafka.admin import (  # type: ignore[attr-defined]  # re-exports, but does not say so
    AdminClient,
    NewTopic,
)

from pipeline.streaming.kafka.admin import AdminError, Difference, PartitionId, TopicAdmin, topic_name
from pipeline.streaming.kafka.embedded import EmbeddedKafka
from schemas.topics import TOPICS, Topic
from tests.support.kafka import PARTITIONS, TIMEOUT_S, create_topics, produce, read_all

INGEST = TOPICS[0]


@pytest.fixture
def admin(kafka: EmbeddedKafka) -> TopicAdmin:
    return TopicAdmin({"bootstrap.servers": kafka.bootstrap})


def test_apply_creates_all_topics_and_then_has_nothing_to_do(admin: TopicAdmin, prefix: str) -> None:
    missing = admin.check(TOPICS, 2, 1, prefix)
    assert missing == [Difference(topic_name(s, prefix), "topic", "present", "missing") for s in TOPICS]
    changes = admin.apply(TOPICS, 2, 1, prefix)
    assert [c.difference for c in changes] == missing
    assert not any(c.refused for c in changes)
    assert admin.check(TOPICS, 2, 1, prefix) == []
    assert admin.apply(TOPICS, 2, 1, prefix) == []


@pytest.mark.parametrize("field", ["retention_ms", "max_bytes"])
def test_apply_alters_a_setting_that_differs(admin: TopicAdmin, prefix: str, field: str) -> None:
    admin.apply([INGEST], 1, 1, prefix)
    before = getattr(INGEST, field)
    wanted = dataclasses.replace(INGEST, **{field: before + 1})
    setting = {"retention_ms": "retention.ms", "max_bytes": "max.message.bytes"}[field]
    difference = Difference(topic_name(INGEST, prefix), setting, str(before + 1), str(before))
    assert admin.check([wanted], 1, 1, prefix) == [difference]
    assert [c.difference for c in admin.apply([wanted], 1, 1, prefix)] == [difference]
    assert admin.check([wanted], 1, 1, prefix) == []


def test_apply_repairs_a_topic_made_by_hand_but_never_its_partitions(
    kafka: EmbeddedKafka, admin: TopicAdmin, prefix: str
) -> None:
    name = topic_name(INGEST, prefix)
    by_hand = {
        "cleanup.policy": "compact",
        "unclean.leader.election.enable": "true",
        "segment.ms": "60000",
        "max.message.bytes": str(INGEST.max_bytes),
        "retention.ms": str(INGEST.retention_ms),
    }
    client = AdminClient({"bootstrap.servers": kafka.bootstrap})
    client.create_topics([NewTopic(name, 1, 1, config=by_hand)])[name].result(TIMEOUT_S)
    changes = admin.apply([INGEST], 3, 1, prefix)
    assert {c.difference.setting: bool(c.refused) for c in changes} == {
        "partitions": True,
        "cleanup.policy": False,
        "unclean.leader.election.enable": False,
    }
    assert admin.check([INGEST], 3, 1, prefix) == [Difference(name, "partitions", "3", "1")]


def test_other_replication_is_reported_and_refused(admin: TopicAdmin, prefix: str) -> None:
    admin.apply([INGEST], 1, 1, prefix)
    name = topic_name(INGEST, prefix)
    assert Difference(name, "replication.factor", "3", "1") in admin.check([INGEST], 1, 3, prefix)
    (refused,) = [c for c in admin.apply([INGEST], 1, 3, prefix) if c.refused]
    assert refused.difference.setting == "replication.factor"


def test_the_broker_s_refusal_names_broker_and_topic(kafka: EmbeddedKafka, admin: TopicAdmin, prefix: str) -> None:
    with pytest.raises(AdminError) as raised:
        admin.apply([INGEST], 1, 3, prefix)  # one broker cannot hold three replicas
    assert kafka.bootstrap in str(raised.value)
    assert topic_name(INGEST, prefix) in str(raised.value)


def test_no_broker_is_an_error_within_the_timeout() -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:
        where = f"127.0.0.1:{silent.getsockname()[1]}"
        admin = TopicAdmin({"bootstrap.servers": where}, timeout_s=0.3)
        with pytest.raises(AdminError, match=where):
            admin.check(TOPICS, 1, 1)


def test_every_topic_takes_a_record_right_after_apply(kafka: EmbeddedKafka, topics: dict[Topic, str]) -> None:
    for spec in TOPICS:
        last = (spec.partitions or PARTITIONS) - 1
        produce(kafka.bootstrap, topics[spec.topic], [b"x"], partition=last, key=b"k" if spec.compacted else None)
    assert len(read_all(kafka.bootstrap, list(topics.values()), len(topics))) == len(topics)


def test_lag_of_a_group(kafka: EmbeddedKafka, admin: TopicAdmin, topics: dict[Topic, str], prefix: str) -> None:
    name = topics[Topic.SUSPECT]
    produce(kafka.bootstrap, name, [b"1", b"2", b"3"], partition=1)
    expected = {PartitionId(name, n): 3 if n == 1 else 0 for n in range(4)}
    assert admin.end_offsets([name]) == expected
    assert admin.group_lag(prefix, [name]) == expected, "without a commit all records are unread"

    consumer = Consumer({"bootstrap.servers": kafka.bootstrap, "group.id": prefix})
    consumer.commit(offsets=[TopicPartition(name, 1, 2)], asynchronous=False)
    consumer.close()
    assert admin.group_lag(prefix, [name])[PartitionId(name, 1)] == 1


def test_records_that_were_deleted_do_not_count_as_lag(
    kafka: EmbeddedKafka, admin: TopicAdmin, topics: dict[Topic, str], prefix: str
) -> None:
    name = topics[Topic.SUSPECT]
    produce(kafka.bootstrap, name, [b"1", b"2", b"3"])
    place = TopicPartition(name, 0, 2)
    client = AdminClient({"bootstrap.servers": kafka.bootstrap})
    client.delete_records([place])[place].result(TIMEOUT_S)
    assert admin.group_lag(prefix, [name])[PartitionId(name, 0)] == 1


def test_an_open_transaction_counts_as_lag(
    kafka: EmbeddedKafka, admin: TopicAdmin, topics: dict[Topic, str], prefix: str
) -> None:
    name = topics[Topic.SUSPECT]
    producer = Producer({"bootstrap.servers": kafka.bootstrap, "transactional.id": prefix})
    producer.init_transactions(TIMEOUT_S)
    producer.begin_transaction()
    producer.produce(name, b"open", partition=0)
    assert producer.flush(TIMEOUT_S) == 0
    assert admin.group_lag(prefix, [name])[PartitionId(name, 0)] == 1
    producer.abort_transaction(TIMEOUT_S)


def test_lag_of_an_unknown_topic_is_an_error(admin: TopicAdmin, prefix: str) -> None:
    with pytest.raises(AdminError, match=f"no such topic: {prefix}"):
        admin.group_lag(prefix, [prefix])


def test_the_first_group_of_a_cluster_can_be_asked(prefix: str) -> None:
    with EmbeddedKafka() as fresh:
        names = create_topics(fresh.bootstrap, prefix)
        fresh_admin = TopicAdmin({"bootstrap.servers": fresh.bootstrap})
        assert set(fresh_admin.group_lag(prefix, list(names.values())).values()) == {0}
