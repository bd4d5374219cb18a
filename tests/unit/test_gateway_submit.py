"""POST /v1/media and its batch: 202 after the acknowledgement, idempotency, limits, scopes."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from pathlib import Path

import orjson
import pytest

from pipeline.streaming.transport import NotAcknowledged, Place, QueueFull, TopicPartition
from schemas.topics import Topic
from schemas.types import Priority
from tests.support.gateway import GatewaySite, problem
from workers.gateway.settings import GatewaySettings
from workers.web.principal import Role

URI = "https://example.org/a.png"


@pytest.fixture
def site(tmp_path: Path) -> Iterator[GatewaySite]:
    made = GatewaySite(tmp_path)
    yield made
    made.close()


def test_a_reference_is_sent_and_answered(site: GatewaySite) -> None:
    answer = site.submit(site.key(), uri=URI, media_id="a-1", priority="high", labels={"k": "v"}, theirs=7)
    assert answer.status_code == 202
    assert answer.json() == {
        "media_id": "a-1",
        "tenant": "acme",
        "submitted_at": "2023-11-14T22:30:00Z",
        "status_url": "/v1/media/a-1?tenant=acme",
    }
    (reference,) = site.writer.references
    assert (reference.uri, reference.media_id, reference.tenant) == (URI, "a-1", "acme")
    assert (reference.priority, reference.labels, reference.extensions) == (Priority.HIGH, {"k": "v"}, {"theirs": 7})
    assert reference.submitted_at is not None
    (record,) = site.writer.sent
    headers = dict(record.headers)
    assert (record.topic, record.key) == (Topic.INGEST, b"acme/a-1")
    assert headers["ce_source"] == b"/mediasieve/gateway"
    assert headers["ce_subject"] == b"acme/a-1"


def test_there_is_no_202_before_the_acknowledgement(site: GatewaySite) -> None:
    key = site.key()
    site.writer.held = []

    async def scene() -> None:
        asked = asyncio.create_task(
            site.ask_async("POST", "/v1/media", headers=key, json={"uri": URI, "media_id": "a"})
        )
        while not site.writer.held:
            await asyncio.sleep(0)
        again = await site.ask_async("POST", "/v1/media", headers=key, json={"uri": URI, "media_id": "a"})
        assert (again.status_code, problem(again)) == (409, "in-progress")
        assert not asked.done()
        site.writer.held[0].set_result(Place(TopicPartition("media.ingest", 0), 0))
        assert (await asked).status_code == 202

    asyncio.run(scene())
    assert len(site.writer.sent) == 1


def test_what_is_not_acknowledged_is_503_and_may_be_sent_again(site: GatewaySite) -> None:
    key = site.key() | {"Idempotency-Key": "k"}
    site.writer.faults.append(NotAcknowledged("media.ingest: timed out"))
    failed = site.submit(key, uri=URI)
    assert (failed.status_code, problem(failed)) == (503, "not-acknowledged")
    assert int(failed.headers["retry-after"]) >= 1
    assert site.submit(key, uri=URI).status_code == 202
    assert len({reference.media_id for reference in site.writer.references}) == 1


def test_a_full_queue_sends_nothing(site: GatewaySite) -> None:
    site.writer.faults.append(QueueFull("full"))
    answer = site.submit(site.key(), uri=URI)
    assert (answer.status_code, problem(answer)) == (503, "queue-full")
    assert site.writer.sent == []


def test_an_idempotency_key_is_answered_alike_and_sent_once_also_after_a_restart(site: GatewaySite) -> None:
    key = site.key() | {"Idempotency-Key": "order-4711"}
    first = site.submit(key, uri=URI, labels={"a": "1", "b": "2"})
    site.clock.advance(3600)
    site = site.again()
    second = site.ask(
        "POST",
        "/v1/media",
        headers=key | {"Content-Type": "application/json"},
        content=b'{ "labels": {"b": "2", "a": "1"}, "uri": "https://example.org/a.png" }',
    )
    assert (first.status_code, second.status_code) == (202, 202)
    assert first.json() == second.json()
    assert len(site.writer.sent) == 1
    site.close()


def test_another_body_under_the_same_key_is_422(site: GatewaySite) -> None:
    key = site.key() | {"Idempotency-Key": "order-4711"}
    assert site.submit(key, uri=URI).status_code == 202
    other = site.again().submit(key, uri="https://example.org/b.png")
    assert (other.status_code, problem(other)) == (422, "idempotency-key-reused")
    assert len(site.writer.sent) == 1


def test_an_idempotency_key_belongs_to_its_caller(site: GatewaySite) -> None:
    one, two = site.key() | {"Idempotency-Key": "k"}, site.key() | {"Idempotency-Key": "k"}
    answers = [site.submit(one, uri=URI), site.submit(two, uri="https://example.org/b.png")]
    assert [a.status_code for a in answers] == [202, 202]
    assert len({a.json()["media_id"] for a in answers}) == 2


def test_a_crash_between_registering_and_the_acknowledgement_is_made_good(site: GatewaySite) -> None:
    key = site.key() | {"Idempotency-Key": "k"}
    site.writer.held = []

    async def crash() -> None:
        asked = asyncio.create_task(site.ask_async("POST", "/v1/media", headers=key, json={"uri": URI}))
        while not site.writer.held:
            await asyncio.sleep(0)
        asked.cancel()

    asyncio.run(crash())
    site.writer.held = None
    site = site.again()
    site.clock.advance(10.5)
    early = site.submit(key, uri=URI)
    assert (early.status_code, problem(early)) == (409, "in-progress")
    assert early.headers["retry-after"] == "15", "what is left of the dead request's lease"
    site.clock.advance(15.0)
    assert site.submit(key, uri=URI).status_code == 202
    assert len({r.media_id for r in site.writer.references}) == 1
    site.close()


def test_a_media_id_stands_for_one_content(site: GatewaySite) -> None:
    key = site.key()
    assert site.submit(key, uri=URI, media_id="a").status_code == 202
    assert site.submit(key, uri=URI, media_id="a").status_code == 202
    other = site.submit(key, uri="https://example.org/b.png", media_id="a")
    assert (other.status_code, problem(other)) == (409, "media-id-taken")
    assert len(site.writer.sent) == 1


def test_a_reference_that_is_too_large_leaves_its_media_id_free(site: GatewaySite) -> None:
    headers = site.key()
    large = {"uri": URI, "media_id": "a", "extensions": {str(n): "x" * 1000 for n in range(1100)}}
    answer = site.ask("POST", "/v1/media/batch", headers=headers, json={"items": [large]})
    (item,) = answer.json()["items"]
    assert (item["status"], item["problem"]["type"].rpartition("/")[2]) == (413, "reference-too-large")
    assert site.submit(headers, uri=URI, media_id="a").status_code == 202


def test_a_repetition_by_an_older_client_is_one(site: GatewaySite) -> None:
    """A field that is left out, and the same field with its default, are one submission: releases add fields."""
    key = site.key() | {"Idempotency-Key": "k"}
    assert site.submit(key, uri=URI, media_id="a").status_code == 202
    assert site.submit(key, uri=URI, media_id="a", priority="normal", labels={}).status_code == 202
    assert len(site.writer.sent) == 1


@pytest.mark.parametrize(
    ("body", "content_type", "status", "kind"),
    [
        (b"{", "application/json", 400, "malformed"),
        (b'{"uri": "https://e.org/a", "uri": "https://e.org/b"}', "application/json", 400, "malformed"),
        (b"\xff", "application/json", 400, "malformed"),
        (b'{"media_id": "a"}', "application/json", 422, "invalid"),
        (b'{"uri": "https://e.org/a", "media_id": "/"}', "application/json", 422, "invalid"),
        (b'{"uri": "https://e.org/a", "schema_version": "9.0"}', "application/json", 422, "invalid"),
        (b'{"uri": "https://e.org/a"}', "text/plain", 415, "unsupported-media-type"),
        (b'{"uri": "https://e.org/a", "x": "' + b"x" * 1_000_000 + b'"}', "application/json", 413, "too-large"),
    ],
)
def test_what_the_classifier_could_not_read_is_refused_here(
    site: GatewaySite, body: bytes, content_type: str, status: int, kind: str
) -> None:
    headers = site.key() | {"Content-Type": content_type}
    answer = site.ask("POST", "/v1/media", headers=headers, content=body)
    assert (answer.status_code, problem(answer)) == (status, kind)
    assert site.writer.sent == []


def test_a_fault_names_its_field(site: GatewaySite) -> None:
    answer = site.submit(site.key(), uri=URI, media_id="a/b", size_bytes=-1)
    assert {fault["field"] for fault in answer.json()["errors"]} == {"media_id", "size_bytes"}


def test_without_credentials_or_role_or_tenant(site: GatewaySite) -> None:
    assert problem(site.submit({}, uri=URI)) == "unauthenticated"
    unknown = site.submit({"Authorization": "Bearer msk_000000000000_" + "A" * 43}, uri=URI)
    assert unknown.status_code == 401
    assert unknown.headers["www-authenticate"].startswith("Bearer")
    reader = site.submit(site.key(roles=[Role.READ]), uri=URI)
    assert (reader.status_code, problem(reader)) == (403, "role-missing")
    foreign = site.submit(site.key(), uri=URI, tenant="rival")
    assert (foreign.status_code, problem(foreign)) == (403, "tenant-refused")
    several = site.submit(site.key(tenants=["acme", "rival"]), uri=URI)
    assert (several.status_code, problem(several)) == (422, "tenant-missing")
    assert site.submit(site.key(tenants=None), uri=URI).json()["tenant"] == "default"
    assert [r.tenant for r in site.writer.references] == ["default"]


def test_a_batch_is_answered_item_by_item(site: GatewaySite) -> None:
    site.writer.faults.extend([None, NotAcknowledged("timed out")])
    items = [
        {"uri": URI, "media_id": "good"},
        {"media_id": "no-uri"},
        {"uri": URI, "media_id": "lost"},
        {"uri": URI, "media_id": "good"},
        {"uri": URI, "tenant": "rival"},
        "no object",
    ]
    answer = site.ask("POST", "/v1/media/batch", headers=site.key(), json={"items": items})
    body = answer.json()
    assert (answer.status_code, body["accepted"], body["refused"]) == (207, 1, 5)
    assert [item["status"] for item in body["items"]] == [202, 422, 503, 409, 403, 422]
    assert [item["index"] for item in body["items"]] == list(range(6))
    assert body["items"][0]["accepted"]["media_id"] == "good"


def test_a_batch_of_a_thousand_is_taken_whole_and_repeated_whole(site: GatewaySite) -> None:
    headers = site.key() | {"Idempotency-Key": "night"}
    items = [{"uri": f"https://example.org/{i}.png"} for i in range(1000)]
    first = site.ask("POST", "/v1/media/batch", headers=headers, json={"items": items})
    site.clock.advance(60)
    again = site.ask("POST", "/v1/media/batch", headers=headers, json={"items": items})
    assert first.json()["accepted"] == 1000
    assert first.json() == again.json()
    assert len(site.writer.sent) == 1000
    other = site.ask("POST", "/v1/media/batch", headers=headers, json={"items": items[:-1]})
    assert (other.status_code, problem(other)) == (429, "rate-exceeded")
    site.clock.advance(60)
    other = site.ask("POST", "/v1/media/batch", headers=headers, json={"items": items[:-1]})
    assert (other.status_code, problem(other)) == (422, "idempotency-key-reused")


@pytest.mark.parametrize("body", [{"items": []}, {"items": [{}] * 1001}, {"items": 1}, {}, [], {"items": [1], "x": 1}])
def test_a_batch_that_is_none(site: GatewaySite, body: object) -> None:
    answer = site.ask("POST", "/v1/media/batch", headers=site.key(), json=body)
    assert (answer.status_code, problem(answer)) == (422, "invalid")


def test_the_trace_of_the_request_goes_on(site: GatewaySite) -> None:
    trace = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"
    site.submit(site.key() | {"traceparent": trace}, uri=URI)
    assert dict(site.writer.sent[0].headers)["traceparent"].startswith(b"00-0af7651916cd43dd8448eb211c80319c-")


def test_security_headers_are_on_every_answer(site: GatewaySite) -> None:
    for answer in (site.ask("GET", "/nowhere"), site.submit(site.key(), uri=URI), site.ask("GET", "/openapi.json")):
        assert answer.headers["x-content-type-options"] == "nosniff"
        assert "default-src 'none'" in answer.headers["content-security-policy"]
        assert answer.headers["cache-control"] == "no-store"
        assert "strict-transport-security" not in answer.headers
    assert problem(site.ask("GET", "/nowhere")) == "not-found"
    assert problem(site.ask("DELETE", "/v1/media")) == "method-not-allowed"


def test_https_is_insisted_on_when_the_outside_uses_it(tmp_path: Path) -> None:
    site = GatewaySite(tmp_path, GatewaySettings(public_url="https://ingest.example"))
    assert site.ask("GET", "/openapi.json").headers["strict-transport-security"] == "max-age=31536000"
    assert orjson.loads(site.ask("GET", "/openapi.json").content)["servers"] == [{"url": "https://ingest.example"}]
    site.close()
