"""Source and Ledger: one suite for memory, Kafka's new group protocol and its classic one."""

from __future__ import annotations

import time
from collections.abc import Callable, Collection, Iterator, Mapping
from dataclasses import dataclass, field

import pytest

from pipeline.streaming.clock import Deadline, SystemClock
from pipeline.streaming.kafka.config import GroupProtocol, KafkaSettings
from pipeline.streaming.kafka.source import KafkaSource
from pipeline.streaming.kafka.transaction import KafkaTransaction
from pipeline.streaming.memory import MemoryBroker, MemoryLedger, MemorySource
from pipeline.streaming.transport import CommitPoint, Ledger, OutRecord, RawRecord, Source, TopicPartition
from schemas.topics import Topic
from tests.support.kafka import TIMEOUT_S, produce, read_all


class Listener:
    """Remembers what it heard."""

    def __init__(self) -> None:
        self.assigned_points: dict[TopicPartition, CommitPoint | None] = {}
        self.revoked_partitions: list[TopicPartition] = []

    def assigned(self, committed: Mapping[TopicPartition, CommitPoint | None]) -> None:
        self.assigned_points |= committed

    def revoked(self, partitions: Collection[TopicPartition]) -> None:
        self.revoked_partitions += partitions

    def lost(self, partitions: Collection[TopicPartition]) -> None:
        self.revoked_partitions += partitions


@dataclass
class World:
    """One transport with an input and an output topic."""

    topic: str
    out: str
    make_source: Callable[[], Source]
    make_ledger: Callable[[], Ledger]
    append: Callable[[list[bytes], int], None]
    read_out: Callable[[int], list[bytes]]
    sources: list[Source] = field(default_factory=list)

    def source(self) -> tuple[Source, Listener]:
        source, listener = self.make_source(), Listener()
        source.subscribe([self.topic], listener)
        self.sources.append(source)
        return source, listener

    def ledger(self) -> Ledger:
        ledger = self.make_ledger()
        ledger.open()
        return ledger


def memory_world() -> World:
    broker = MemoryBroker(partitions=4)

    def append(values: list[bytes], partition: int) -> None:
        for value in values:
            broker.append("in", value, partition=partition)

    return World(
        "in", "out", lambda: MemorySource(broker), lambda: MemoryLedger(broker), append, lambda n: broker.values("out")
    )


@pytest.fixture(params=["memory", "consumer", "classic"])
def world(request: pytest.FixtureRequest) -> Iterator[World]:
    if request.param == "memory":
        made = memory_world()
    else:
        kafka = request.getfixturevalue("kafka")
        names = request.getfixturevalue("topics")
        prefix = request.getfixturevalue("prefix")
        settings = KafkaSettings(
            bootstrap=kafka.bootstrap, topic_prefix=prefix, group_protocol=GroupProtocol(request.param)
        )
        topic, out = names[Topic.INGEST], names[Topic.SUSPECT]
        made = World(
            topic,
            out,
            lambda: KafkaSource(settings.consumer("contract")),
            lambda: KafkaTransaction(settings.transactional_producer(f"{prefix}-txn")),
            lambda values, partition: produce(kafka.bootstrap, topic, values, partition),
            lambda n: [m.value() for m in read_all(kafka.bootstrap, [out], n)],
        )
    yield made
    for source in made.sources:
        source.close()


def poll_until(source: Source, count: int, ends: set[TopicPartition] | None = None) -> list[RawRecord]:
    records: list[RawRecord] = []
    seen: set[TopicPartition] = set()
    end_s = time.monotonic() + TIMEOUT_S
    while len(records) < count or not (ends or set()) <= seen:
        assert time.monotonic() < end_s, f"{len(records)} of {count} records, ends {seen}"
        polled = source.poll(0.1, 100)
        records += polled.records
        seen |= set(polled.ends)
    return records


def commit(ledger: Ledger, source: Source, out: list[OutRecord], offsets: dict[TopicPartition, CommitPoint]) -> None:
    ledger.commit(out, offsets, source.member(), Deadline(SystemClock(), TIMEOUT_S))


def test_records_arrive_in_partition_order_with_their_end(world: World) -> None:
    world.append([b"1", b"2", b"3"], 1)
    source, listener = world.source()
    tp = TopicPartition(world.topic, 1)
    records = poll_until(source, 3, {tp})
    assert [(r.value, r.offset) for r in records] == [(b"1", 0), (b"2", 1), (b"3", 2)]
    assert listener.assigned_points == {TopicPartition(world.topic, p): None for p in range(4)}


def test_a_commit_makes_results_and_offsets_visible_with_their_note(world: World) -> None:
    world.append([b"1", b"2"], 0)
    source, _ = world.source()
    poll_until(source, 2)
    tp = TopicPartition(world.topic, 0)
    commit(world.ledger(), source, [OutRecord(world.out, b"k", b"r1", (("h", b"1"),))], {tp: CommitPoint(1, "a note")})
    assert world.read_out(1) == [b"r1"]
    source.close()
    second, listener = world.source()
    again = poll_until(second, 1)
    assert [r.value for r in again] == [b"2"]
    assert listener.assigned_points[tp] == CommitPoint(1, "a note")


def test_offsets_alone_can_be_committed(world: World) -> None:
    world.append([b"1"], 0)
    source, _ = world.source()
    poll_until(source, 1)
    tp = TopicPartition(world.topic, 0)
    commit(world.ledger(), source, [], {tp: CommitPoint(0, "begun")})
    assert source.rewind([tp]) == {tp: CommitPoint(0, "begun")}


def test_rewind_reads_again_from_what_is_committed(world: World) -> None:
    world.append([b"1", b"2", b"3"], 0)
    source, _ = world.source()
    poll_until(source, 3)
    tp = TopicPartition(world.topic, 0)
    commit(world.ledger(), source, [], {tp: CommitPoint(1)})
    assert source.rewind([tp]) == {tp: CommitPoint(1)}
    assert [r.value for r in poll_until(source, 2)] == [b"2", b"3"]


def test_a_paused_partition_is_silent_and_resume_loses_nothing(world: World) -> None:
    world.append([b"1"], 0)
    source, _ = world.source()
    poll_until(source, 1)
    tp = TopicPartition(world.topic, 0)
    source.pause([tp])
    world.append([b"2"], 0)
    world.append([b"other"], 1)
    assert [r.value for r in poll_until(source, 1)] == [b"other"]
    for _ in range(3):
        assert not source.poll(0.05, 10).records
    source.resume([tp])
    assert [r.value for r in poll_until(source, 1)] == [b"2"]


def test_close_revokes_in_good_order(world: World) -> None:
    world.append([b"1"], 0)
    source, listener = world.source()
    poll_until(source, 1)
    source.close()
    assert sorted(listener.revoked_partitions) == [TopicPartition(world.topic, p) for p in range(4)]
