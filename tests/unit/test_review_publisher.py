"""The outbox: nothing is lost and nothing doubled that a reader can tell apart, wherever a process dies."""

from __future__ import annotations

from pathlib import Path

import pytest
from sqlalchemy import event, select

from pipeline.streaming.transport import NotAcknowledged, QueueFull
from schemas.review import Label
from schemas.topics import Topic
from tests.support.reviewing import Site
from workers.console.domain.publisher import LEAD_S, OutboxPublisher
from workers.console.domain.settings import ReviewSettings
from workers.console.domain.tables import outbox
from workers.web.database import reading


class Killed(Exception):
    """The process ends here."""


@pytest.fixture
def site(tmp_path: Path) -> Site:
    return Site(tmp_path, ReviewSettings(publish_batch=3))


def close_one(site: Site) -> int:
    """A claim and a verdict; returns how many records that makes."""
    site.held()
    claim = site.service.claim("ann", None)
    assert claim is not None
    site.service.decide(claim.token, Label.PHOTOGRAPH, "", reviewer="ann")
    return len(site.waiting())


def test_a_case_goes_out_in_order_and_once(site: Site) -> None:
    made = close_one(site)
    site.publish()
    site.publish()
    assert made == len(site.kafka.records) == 6  # claimed, review, update, reviewed, close, closed
    assert [(r.topic, r.value) for r in site.kafka.records] == site.waiting()
    assert site.service.stats(None).unpublished == 0
    assert len({record.key for record in site.kafka.records}) == 1


def test_headers_say_what_each_record_is(site: Site) -> None:
    close_one(site)
    site.publish()
    heads = [{k: v.decode() for k, v in record.headers} for record in site.kafka.records]
    assert {h["ce_source"] for h in heads} == {"/mediasieve/console"}
    assert {h["traceparent"].split("-")[1] for h in heads} == {"ab" * 16}
    assert [h["ce_type"].split(".")[-2] for h in heads] == [
        "action",
        "verdict",
        "decision",
        "action",
        "decision",
        "action",
    ]
    (update, close) = site.kafka.told(Topic.PASS)
    assert [update["metadata"]["uid"], close["metadata"]["uid"]] == [heads[2]["ce_id"], heads[4]["ce_id"]]


@pytest.mark.parametrize("point", ["read", "sent", "marked"])
@pytest.mark.parametrize("batch", [1, 2])
def test_a_publisher_that_dies_loses_nothing(site: Site, point: str, batch: int) -> None:
    made, seen = close_one(site), []

    def die(where: str) -> None:
        seen.append(where)
        if seen.count(point) == batch:
            raise Killed

    dying = site.publisher(die)
    with pytest.raises(Killed):
        exhaust(dying)
    assert site.publisher().turn() == 0  # the dead one still leads
    site.clock.advance(LEAD_S)
    site.publish()
    ids = site.kafka.ids()
    assert len(set(ids)) == made
    assert [i for n, i in enumerate(ids) if i not in ids[:n]] == ids_in_order(site)
    values = dict(zip(ids, (r.value for r in site.kafka.records), strict=True))
    assert all(values[i] == r.value for i, r in zip(ids, site.kafka.records, strict=True))


def exhaust(publisher: OutboxPublisher) -> None:
    while publisher.turn():
        pass


def ids_in_order(site: Site) -> list[str]:
    """Of the outbox."""
    with reading(site.engine) as connection:
        return list(connection.scalars(select(outbox.c.event_id).order_by(outbox.c.entry_id)))


def test_what_is_not_acknowledged_is_sent_again(site: Site) -> None:
    made = close_one(site)
    site.kafka.faults = [None, NotAcknowledged, None]
    publisher = site.publisher()
    with pytest.raises(NotAcknowledged, match="1 of 3"):
        publisher.turn()
    exhaust(publisher)
    assert sorted(site.kafka.ids()) == sorted(ids_in_order(site))
    assert len(site.kafka.ids()) == made


def test_a_full_queue_of_the_client_is_waited_for(site: Site) -> None:
    made = close_one(site)
    site.kafka.faults = [None, QueueFull, None]
    publisher = site.publisher()
    assert publisher.turn() == 1
    exhaust(publisher)
    assert len(set(site.kafka.ids())) == made


def test_one_publishes_at_a_time_and_another_follows(site: Site) -> None:
    close_one(site)
    first, second = site.publisher(), site.publisher()
    assert first.turn() == 3
    assert second.turn() == 0
    first.resign()
    assert second.turn() == 3
    assert first.turn() == 0


def test_an_action_that_fails_publishes_nothing(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    site.held()
    claim = site.service.claim("ann", None)
    assert claim is not None
    before = site.waiting()

    def die(*_: object, **__: object) -> None:
        raise Killed

    monkeypatch.setattr("workers.console.domain.rulings.close_event", die)
    with pytest.raises(Killed):
        site.service.decide(claim.token, Label.PHOTOGRAPH, "", reviewer="ann")
    assert site.waiting() == before
    monkeypatch.undo()
    assert site.service.decide(claim.token, Label.PHOTOGRAPH, "", reviewer="ann").closed


def test_an_empty_outbox_is_not_written_to(site: Site) -> None:
    close_one(site)
    site.publish()
    begun: list[str] = []
    event.listen(site.engine, "before_cursor_execute", lambda _c, _k, statement, *_: begun.append(statement))
    assert site.publisher().turn() == 0
    assert begun
    assert not [s for s in begun if s.startswith(("BEGIN IMMEDIATE", "UPDATE", "INSERT"))]


def test_a_dead_publisher_leads_no_longer_because_the_clock_was_set_back(site: Site) -> None:
    made = close_one(site)
    assert site.publisher().turn() == 3
    site.clock.advance(-86_400.0)
    exhaust(site.publisher())
    assert len(site.kafka.records) == made
