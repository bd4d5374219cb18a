"""Server-sent events: resuming, tenants, the end of credentials, draining."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterator
from datetime import UTC, datetime
from pathlib import Path

import orjson
import pytest

from tests.support.gateway import GatewaySite, problem
from workers.gateway.routes_stream import Subscription, events
from workers.gateway.settings import GatewaySettings
from workers.web.principal import Role


@pytest.fixture
def site(tmp_path: Path) -> Iterator[GatewaySite]:
    made = GatewaySite(tmp_path, GatewaySettings(streams_per_caller=1, stream_poll_s=60.0))
    yield made
    made.close()


def subscription(key: dict[str, str], tenant: str = "acme", after: int = 0) -> Subscription:
    return Subscription("key:x", tenant, after, key.get("Authorization"), None)


def parsed(chunk: bytes) -> tuple[int, str, str]:
    """Number, kind and media id of an event."""
    fields = dict(line.split(": ", 1) for line in chunk.decode().splitlines() if line and not line.startswith(":"))
    return int(fields["id"]), fields["event"], orjson.loads(fields["data"])["media_id"]


async def read(stream: AsyncIterator[bytes], count: int) -> list[tuple[int, str, str]]:
    found = []
    async for chunk in stream:
        if b"data:" in chunk:
            found.append(parsed(chunk))
        if len(found) == count:
            return found
    return found


def test_the_events_of_one_tenant_in_order(site: GatewaySite) -> None:
    site.decided("a", offset=0)
    site.decided("x", tenant="rival", offset=1)
    site.decided("b", offset=2)
    found = asyncio.run(read(events(site.parts, subscription(site.key())), 2))
    (first, *_), (last, *_) = found
    assert [event[1:] for event in found] == [("decision", "a"), ("decision", "b")]
    assert last == first + 2, "the rival's event has a number too"


def test_a_client_resumes_behind_its_last_event(site: GatewaySite) -> None:
    for offset, media_id in enumerate("abc"):
        site.decided(media_id, offset=offset)
    first = site.parts.views.after("acme", 0, 1).events[0].seq
    found = asyncio.run(read(events(site.parts, subscription(site.key(), after=first)), 2))
    assert [media_id for _, _, media_id in found] == ["b", "c"]


def test_news_wakes_an_open_stream(site: GatewaySite) -> None:
    async def scene() -> list[tuple[int, str, str]]:
        site.parts.news.bind()
        reading = asyncio.create_task(read(events(site.parts, subscription(site.key())), 1))
        while not site.parts.news._event._waiters:  # type: ignore[attr-defined]
            await asyncio.sleep(0)
        await asyncio.to_thread(site.decided, "a")
        await asyncio.to_thread(site.parts.news.told)
        return await reading

    assert [event[1:] for event in asyncio.run(scene())] == [("decision", "a")]


def test_a_drain_ends_the_stream(site: GatewaySite) -> None:
    async def scene() -> list[bytes]:
        site.parts.news.bind()
        stream = events(site.parts, subscription(site.key()))
        reading = asyncio.create_task(_all(stream))
        while not site.parts.news._event._waiters:  # type: ignore[attr-defined]
            await asyncio.sleep(0)
        site.parts.news.close()
        return await reading

    (opening,) = asyncio.run(scene())
    assert b"retry: 2000" in opening


def test_the_place_is_told_before_there_is_an_event(site: GatewaySite) -> None:
    """Else a connection lost before the first event would come back behind what happened meanwhile."""
    last = site.parts.views.bounds()[1]
    site.parts.news.closing = True
    answer = site.ask("GET", "/v1/decisions/stream", headers=site.key())
    assert f"id: {last}" in answer.text.splitlines()


async def _all(stream: AsyncIterator[bytes]) -> list[bytes]:
    return [chunk async for chunk in stream]


def test_a_revoked_key_ends_its_streams(site: GatewaySite) -> None:
    key = site.key()

    async def scene() -> list[bytes]:
        site.parts.news.bind()
        reading = asyncio.create_task(_all(events(site.parts, subscription(key))))
        while not site.parts.news._event._waiters:  # type: ignore[attr-defined]
            await asyncio.sleep(0)
        site.keys.revoke(key["Authorization"].split("_")[1], datetime.now(UTC))
        site.clock.advance(31.0)
        site.parts.news.told()
        return await reading

    assert b"the stream ends" in asyncio.run(scene())[-1]


def test_a_key_that_loses_its_tenant_loses_its_streams(site: GatewaySite) -> None:
    key = site.key()

    async def scene() -> list[bytes]:
        site.parts.news.bind()
        reading = asyncio.create_task(_all(events(site.parts, subscription(key))))
        while not site.parts.news._event._waiters:  # type: ignore[attr-defined]
            await asyncio.sleep(0)
        site.keys.path.write_text(site.keys.path.read_text().replace('"acme"', '"acme-2"'))
        site.clock.advance(31.0)
        site.parts.news.told()
        return await reading

    assert b"the stream ends" in asyncio.run(scene())[-1]


def test_a_silent_stream_is_pinged_with_its_place(site: GatewaySite) -> None:
    async def scene() -> bytes:
        site.parts.news.bind()
        stream = events(site.parts, subscription(site.key()))
        await anext(stream)
        site.decided("x", tenant="rival")
        reading = asyncio.create_task(anext(stream))
        while not site.parts.news._event._waiters:  # type: ignore[attr-defined]
            await asyncio.sleep(0)
        site.clock.advance(16.0)
        site.parts.news.told()
        return await reading

    last = site.parts.views.bounds()[1]
    assert asyncio.run(scene()).splitlines() == [b": nothing new", b"id: %d" % (last + 1), b""]


def test_forgotten_events_are_no_silent_gap(site: GatewaySite) -> None:
    for offset, media_id in enumerate("abc"):
        site.decided(media_id, offset=offset)
    site.clock.advance(100)
    site.projection.purge(keep_s=50.0)
    purged, last = site.parts.views.bounds()
    site.parts.news.closing = True
    for seen, status in ((purged - 1, 410), (purged, 200), (last, 200), (last + 1, 410)):
        answer = site.ask("GET", "/v1/decisions/stream", headers=site.key() | {"Last-Event-ID": str(seen)})
        assert answer.status_code == status
        assert status == 200 or problem(answer) == "events-forgotten"


def test_the_numbers_of_a_lost_database_are_none_of_the_new_one(site: GatewaySite) -> None:
    for offset, media_id in enumerate("abc"):
        site.decided(media_id, offset=offset)
    seen = site.parts.views.bounds()[1]
    site.close()
    (site.home / "web.sqlite").unlink()
    site.clock.advance(1.0)
    new = GatewaySite(site.home, site.settings, site.clock)
    new.decided("d")
    answer = new.ask("GET", "/v1/decisions/stream", headers=new.key() | {"Last-Event-ID": str(seen)})
    assert (answer.status_code, problem(answer)) == (410, "events-forgotten")
    new.close()


def test_over_http_with_its_headers(site: GatewaySite) -> None:
    site.parts.news.closing = True  # the answer ends at once, which this transport needs
    answer = site.ask("GET", "/v1/decisions/stream?after=0", headers=site.key())
    assert answer.headers["content-type"].startswith("text/event-stream")
    assert answer.headers["cache-control"] == "no-store"
    assert site.parts.news.streams == 0


def test_who_may_not_read(site: GatewaySite) -> None:
    assert site.ask("GET", "/v1/decisions/stream").status_code == 401
    assert site.ask("GET", "/v1/decisions/stream", headers=site.key(roles=[Role.SUBMIT])).status_code == 403
    assert site.ask("GET", "/v1/decisions/stream?tenant=rival", headers=site.key()).status_code == 403


def test_the_streams_of_one_caller_are_counted(site: GatewaySite) -> None:
    key = site.key()
    caller = f"key:{key['Authorization'].split('_')[1]}"
    site.parts.news.enter(caller)
    answer = site.ask("GET", "/v1/decisions/stream", headers=key)
    assert (answer.status_code, problem(answer)) == (429, "too-many-streams")
    site.parts.news.leave(caller)
    assert site.parts.news.streams == 0
