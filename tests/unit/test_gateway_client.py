"""`mediasieve.client` against the gateway itself, blocking and asynchronous."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from mediasieve.client import (
    AsyncClient,
    Client,
    DecisionEvent,
    GatewayProblem,
    GatewayUnavailable,
    MediaReference,
    MediaState,
    Retry,
)
from mediasieve.client.common import Events
from pipeline.streaming.transport import NotAcknowledged
from tests.support.gateway import BASE, PNG, GatewaySite, decision_record, tenant_decision
from tests.support.gateway_bridge import Bridge

URI = "https://example.org/a.png"
AT_ONCE = Retry(first_wait_s=0.0)


@pytest.fixture
def site(tmp_path: Path) -> Iterator[GatewaySite]:
    made = GatewaySite(tmp_path)
    yield made
    made.close()


def client(site: GatewaySite, **arguments: Any) -> Client:
    token = site.key()["Authorization"].removeprefix("Bearer ")
    return Client(BASE, token, **{"transport": Bridge(site), "retry": AT_ONCE, **arguments})


def test_submit_and_status(site: GatewaySite) -> None:
    with client(site) as gateway:
        accepted = gateway.submit(MediaReference(uri=URI, labels={"a": "b"}))
        assert gateway.status(accepted.media_id).state is MediaState.ACCEPTED
        site.decided(accepted.media_id, "block")
        status = gateway.status(accepted.media_id)
    assert status.decision is not None
    assert status.decision.outcome == "block"
    assert site.writer.references[0].labels == {"a": "b"}


def test_upload(site: GatewaySite, tmp_path: Path) -> None:
    (tmp_path / "a.png").write_bytes(PNG)
    with client(site) as gateway:
        first = gateway.upload(tmp_path / "a.png", content_type="image/png", media_id="up", labels={"a": "b"})
        assert first.media_id == "up"
        assert gateway.upload(PNG).media_id != "up"
    assert {r.content_type for r in site.writer.references} == {"image/png"}


def test_a_batch(site: GatewaySite) -> None:
    with client(site) as gateway:
        answer = gateway.submit_batch([MediaReference(uri=URI), MediaReference(uri=URI, tenant="rival")])
    assert (answer.accepted, answer.refused) == (1, 1)
    assert answer.items[1].problem is not None
    assert answer.items[1].problem.type.endswith("tenant-refused")


def test_a_submission_is_repeated_under_one_key(site: GatewaySite, monkeypatch: pytest.MonkeyPatch) -> None:
    waits: list[float] = []
    monkeypatch.setattr("time.sleep", waits.append)
    site.writer.faults.append(NotAcknowledged("timed out"))
    with client(site) as gateway:
        gateway.submit(MediaReference(uri=URI))
    assert waits == [5.0], "as long as the gateway said"
    assert len({r.media_id for r in site.writer.references}) == 1


def test_a_refusal_is_raised_at_once_with_its_problem(site: GatewaySite) -> None:
    with client(site) as gateway, pytest.raises(GatewayProblem) as caught:
        gateway.submit(MediaReference(uri=URI, tenant="rival"))
    assert (caught.value.problem.status, caught.value.retry_after_s) == (403, None)
    assert "tenant" in str(caught.value)


def test_a_wait_that_is_too_long_is_raised() -> None:
    def busy(_: httpx.Request) -> httpx.Response:
        body = {"type": "x", "title": "behind", "status": 429, "detail": "d"}
        return httpx.Response(429, headers={"Retry-After": "3600"}, json=body)

    with Client(BASE, "k", transport=httpx.MockTransport(busy)) as gateway, pytest.raises(GatewayProblem) as caught:
        gateway.status("a")
    assert caught.value.retry_after_s == 3600


def test_a_lost_connection_is_asked_again_a_few_times() -> None:
    asked = 0

    def lost(_: httpx.Request) -> httpx.Response:
        nonlocal asked
        asked += 1
        raise httpx.ConnectError("refused")

    retry = Retry(attempts=3, first_wait_s=0.0)
    with (
        Client(BASE, "k", transport=httpx.MockTransport(lost), retry=retry) as gateway,
        pytest.raises(GatewayUnavailable, match="refused"),
    ):
        gateway.status("a")
    assert asked == 3


@pytest.mark.parametrize(("status", "asked"), [(404, 1), (200, 1), (502, 5)])
def test_what_is_no_gateway_is_said_to_be_none(status: int, asked: int) -> None:
    """A proxy that cannot reach the gateway may do so later; a page that is another service's will be so for ever."""
    seen: list[str] = []

    def page(request: httpx.Request) -> httpx.Response:
        seen.append(request.url.raw_path.decode())
        return httpx.Response(status, text="<html>")

    pages = httpx.MockTransport(page)
    with Client(BASE, "k", transport=pages, retry=AT_ONCE) as gateway, pytest.raises(GatewayUnavailable, match=BASE):
        gateway.status("../a?b")
    assert seen == ["/v1/media/..%2Fa%3Fb"] * asked


def test_decisions_go_on_behind_the_last_event_after_a_break(site: GatewaySite) -> None:
    for offset, media_id in enumerate("abc"):
        site.decided(media_id, offset=offset)
    first, _, last = site.parts.views.after("acme", 0, 10).events
    from workers.gateway.routes_stream import _event

    asked: list[str] = []

    def stream(request: httpx.Request) -> httpx.Response:
        asked.append(request.url.params.get("after", ""))
        chunk = _event(first if len(asked) == 1 else last)
        return httpx.Response(200, headers={"Content-Type": "text/event-stream"}, content=b": hello\n\n" + chunk)

    with Client(BASE, "k", transport=httpx.MockTransport(stream), retry=AT_ONCE) as gateway:
        decisions = gateway.decisions(after=0)
        assert [next(decisions).media_id for _ in range(2)] == ["a", "c"]
    assert asked == ["0", str(first.seq)]


def test_a_line_separator_in_a_uri_ends_no_line(site: GatewaySite) -> None:
    decision = tenant_decision("a", "block", "acme")
    uri = "https://example.org/a\u2028\u0085b.png"
    admission = decision.admission.model_copy(update={"uri": uri})
    site.projection.apply([decision_record(decision.model_copy(update={"admission": admission}))])
    from workers.gateway.routes_stream import _event

    (numbered,) = site.parts.views.after("acme", 0, 10).events
    (event,) = Events(0).feed(_event(numbered))
    assert isinstance(event, DecisionEvent)
    assert event.uri == uri


def test_a_stream_that_was_cut_before_its_first_event_goes_on_where_it_began() -> None:
    asked: list[str] = []

    def stream(request: httpx.Request) -> httpx.Response:
        asked.append(request.url.params.get("after", ""))
        if len(asked) == 9:
            return httpx.Response(403, json={"type": "x", "title": "t", "status": 403, "detail": "d"})
        return httpx.Response(200, content=b": decisions of acme\nid: 70%d\n\nid: 999\nda" % len(asked))

    with (
        Client(BASE, "k", transport=httpx.MockTransport(stream), retry=AT_ONCE) as gateway,
        pytest.raises(GatewayProblem),
    ):
        next(gateway.decisions())
    assert asked == ["", *(f"70{n}" for n in range(1, 9))], "more often than attempts: each connection had come about"


def test_a_silent_stream_is_lost() -> None:
    seen: list[dict[str, float]] = []

    def silent(request: httpx.Request) -> httpx.Response:
        seen.append(request.extensions["timeout"])
        raise httpx.ReadTimeout("")

    retry = Retry(attempts=2, first_wait_s=0.0)
    with (
        Client(BASE, "k", transport=httpx.MockTransport(silent), retry=retry, silence_s=7.0) as gateway,
        pytest.raises(GatewayUnavailable, match="ReadTimeout"),
    ):
        next(gateway.decisions())
    assert [timeout["read"] for timeout in seen] == [7.0, 7.0]


def test_what_is_no_event_is_said_to_be_none() -> None:
    stream = httpx.MockTransport(lambda _: httpx.Response(200, content=b"data: {}\n\n"))
    with Client(BASE, "k", transport=stream) as gateway, pytest.raises(GatewayUnavailable, match="no event"):
        next(gateway.decisions())


def test_an_event_that_was_not_taken_is_not_counted(site: GatewaySite) -> None:
    site.decided("a")
    from workers.gateway.routes_stream import _event

    (numbered,) = site.parts.views.after("acme", 0, 10).events
    events = Events(0)
    found = []
    for byte in _event(numbered):
        for event in events.feed(bytes([byte])):
            assert events.last == 0
            found.append(event)
    assert (len(found), events.last) == (1, numbered.seq)


def test_the_asynchronous_client(site: GatewaySite) -> None:
    token = site.key()["Authorization"].removeprefix("Bearer ")
    transport = httpx.ASGITransport(site.app)

    async def scene() -> None:
        async with AsyncClient(BASE, token, transport=transport, retry=AT_ONCE) as gateway:
            accepted = await gateway.submit(MediaReference(uri=URI))
            assert (await gateway.status(accepted.media_id)).state is MediaState.ACCEPTED
            assert (await gateway.upload(PNG)).tenant == "acme"
            assert (await gateway.submit_batch([MediaReference(uri=URI)])).accepted == 1
            with pytest.raises(GatewayProblem):
                await gateway.status("nothing")

    asyncio.run(scene())


def test_the_asynchronous_stream(site: GatewaySite) -> None:
    site.decided("a")
    from workers.gateway.routes_stream import _event

    (numbered,) = site.parts.views.after("acme", 0, 10).events
    chunks = httpx.MockTransport(lambda _: httpx.Response(200, content=_event(numbered)))

    async def scene() -> str:
        async with AsyncClient(BASE, "k", transport=chunks) as gateway:
            async for event in gateway.decisions():
                return event.media_id
        return ""

    assert asyncio.run(scene()) == "a"
