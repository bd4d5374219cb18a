"""The gateway's consumer: restarts, outages of the database, records that it cannot read."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from sqlalchemy import event
from sqlalchemy.exc import OperationalError

from pipeline.streaming.memory import MemoryBroker
from pipeline.streaming.transport import TopicPartition
from schemas.topics import Topic
from schemas.wire import UnknownMajorVersion
from tests.support.audit import PositionedMemorySource
from tests.support.gateway import GatewaySite, decision_record, tenant_decision
from workers.gateway.events import PROJECTED_TOPICS
from workers.gateway.reader import Reader

URI = "https://example.org/a.png"
BLOCKS = TopicPartition(Topic.BLOCK.value, 0)


@pytest.fixture
def site(tmp_path: Path) -> Iterator[GatewaySite]:
    made = GatewaySite(tmp_path)
    yield made
    made.close()


class Reading:
    """A reader over memory, turned by hand."""

    def __init__(self, site: GatewaySite, broker: MemoryBroker) -> None:
        self.source = PositionedMemorySource(broker)
        self.news = 0
        self.reader = Reader(
            self.source,
            site.projection,
            site.names,
            site.clock,
            site.metrics,
            keep_s=1e6,
            on_events=self.told,
        )
        self.reader.open()
        self.reader.turn()  # assigned now, begun with the next turn

    def told(self) -> None:
        self.news += 1


def append(broker: MemoryBroker, media_id: str) -> None:
    record = decision_record(tenant_decision(media_id, "block", "acme"))
    broker.append(Topic.BLOCK.value, record.value)


def test_a_restarted_reader_goes_on_where_the_database_is(site: GatewaySite) -> None:
    broker = MemoryBroker()
    append(broker, "a")
    first = Reading(site, broker)
    assert first.reader.partitions == len(PROJECTED_TOPICS)
    first.reader.turn()
    assert first.news == 1
    append(broker, "b")
    second = Reading(site, broker)
    second.reader.turn()
    assert dict(second.source.starts)[BLOCKS] == 1
    assert [n.body["media_id"] for n in site.parts.views.after("acme", 0, 10).events] == ["a", "b"]
    assert broker.committed[BLOCKS].offset == 2


def test_the_group_s_offsets_do_not_matter(site: GatewaySite) -> None:
    broker = MemoryBroker()
    append(broker, "a")
    Reading(site, broker).reader.turn()
    site.engine.dispose()
    (site.home / "web.sqlite").unlink()
    empty = GatewaySite(site.home)
    Reading(empty, broker).reader.turn()
    assert len(empty.parts.views.after("acme", 0, 10).events) == 1, "a new database reads everything that Kafka keeps"
    empty.close()


def test_while_the_database_is_away_nothing_is_lost(site: GatewaySite) -> None:
    broker = MemoryBroker()
    reading = Reading(site, broker)
    reading.reader.turn()
    append(broker, "a")
    away = OperationalError("BEGIN", {}, Exception("disk full"))

    def refuse(*_: object) -> None:
        raise away

    event.listen(site.engine, "begin", refuse)
    reading.reader.turn()
    event.remove(site.engine, "begin", refuse)
    assert reading.source.paused >= {BLOCKS}
    assert broker.committed == {}
    reading.reader.turn()
    assert site.parts.views.after("acme", 0, 10).events == [], "it waits before it asks again"
    site.clock.advance(1.0)
    reading.reader.turn()
    assert [n.body["media_id"] for n in site.parts.views.after("acme", 0, 10).events] == ["a"]


def test_a_topic_made_anew_is_read_from_its_start_once(site: GatewaySite) -> None:
    """A position beyond its end is the old topic's; kept, it would skip what the new one has before it."""
    old, new = MemoryBroker(), MemoryBroker()
    for media_id in "abc":
        append(old, media_id)
    Reading(site, old).reader.turn()
    append(new, "d")
    Reading(site, new).reader.turn()
    for media_id in "efgh":
        append(new, media_id)
    again = Reading(site, new)
    again.reader.turn()
    assert dict(again.source.starts)[BLOCKS] == 1
    assert [n.body["media_id"] for n in site.parts.views.after("acme", 0, 20).events] == list("abcdefgh")


def test_what_cannot_be_read_is_counted_and_passed_over(site: GatewaySite) -> None:
    broker = MemoryBroker()
    broker.append(Topic.BLOCK.value, b"{")
    append(broker, "a")
    reading = Reading(site, broker)
    reading.reader.turn()
    assert len(site.parts.views.after("acme", 0, 10).events) == 1
    counted = site.metrics.registry.get_sample_value(
        "mediasieve_gateway_unreadable_total", {"topic": Topic.BLOCK.value}
    )
    assert counted == 1


def test_a_record_of_a_newer_release_ends_the_process(site: GatewaySite) -> None:
    broker = MemoryBroker()
    value = decision_record(tenant_decision("a", "block", "acme")).value.replace(
        b'"schema_version":"1.', b'"schema_version":"9.'
    )
    broker.append(Topic.BLOCK.value, value)
    reading = Reading(site, broker)
    with pytest.raises(UnknownMajorVersion):
        reading.reader.turn()
    assert broker.committed == {}


def test_retention_that_ran_past_the_position(site: GatewaySite) -> None:
    broker = MemoryBroker()
    append(broker, "a")
    Reading(site, broker).reader.turn()
    append(broker, "b")
    append(broker, "c")
    late = PositionedMemorySource(broker)
    late.lows[BLOCKS] = 2
    reader = Reader(late, site.projection, site.names, site.clock, site.metrics, keep_s=1e6)
    reader.open()
    reader.turn()
    reader.turn()
    assert dict(late.starts)[BLOCKS] == 2
    assert [n.body["media_id"] for n in site.parts.views.after("acme", 0, 10).events] == ["a", "c"]
