"""POST /v1/media with a file: stored first, then sent; what is not taken is not stored."""

from __future__ import annotations

import asyncio
import hashlib
import json
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import httpx
import pytest

from pipeline.media.errors import MediaError
from pipeline.media.uploaded import read_uploaded
from schemas.decision import ReasonCode
from tests.support.gateway import PNG, GatewaySite, problem
from workers.gateway.settings import GatewaySettings
from workers.web.principal import Limits

URI = "https://example.org/a.png"


@pytest.fixture
def site(tmp_path: Path) -> Iterator[GatewaySite]:
    made = GatewaySite(tmp_path)
    yield made
    made.close()


def test_a_file_goes_into_the_store_before_it_is_sent(site: GatewaySite) -> None:
    sha256 = hashlib.sha256(PNG).hexdigest()
    answer = site.ask(
        "POST",
        "/v1/media",
        headers=site.key(),
        files={"file": ("a.png", PNG, "image/png")},
        data={"reference": json.dumps({"media_id": "up-1", "labels": {"a": "b"}})},
    )
    assert answer.status_code == 202, answer.text
    (reference,) = site.writer.references
    assert reference.uri == f"content:{sha256}"
    assert (reference.sha256, reference.size_bytes, reference.content_type) == (sha256, len(PNG), "image/png")
    assert (reference.media_id, reference.labels) == ("up-1", {"a": "b"})
    assert site.store.get("acme", sha256) == PNG


@pytest.mark.parametrize(
    ("data", "declared", "fields", "status", "kind"),
    [
        (b"GIF89a" + bytes(40), "image/gif", {}, 415, "unsupported-media-type"),
        (PNG, "image/jpeg", {}, 415, "unsupported-media-type"),
        (b"", "image/png", {}, 422, "invalid"),
        (PNG, "image/png", {"uri": URI}, 422, "invalid"),
        (PNG, "image/png", {"sha256": "0" * 64}, 422, "invalid"),
        (PNG, "image/png", {"tenant": "rival"}, 403, "tenant-refused"),
        (PNG + bytes(2000), "image/png", {}, 413, "too-large"),
    ],
)
def test_a_file_that_is_not_taken_is_not_stored(  # noqa: PLR0917 - a row of the table
    site: GatewaySite, data: bytes, declared: str, fields: dict[str, str], status: int, kind: str
) -> None:
    answer = site.ask(
        "POST",
        "/v1/media",
        headers=site.key(limits=Limits(max_bytes=1024)),
        files={"file": ("a", data, declared)},
        data={"reference": json.dumps(fields)},
    )
    assert (answer.status_code, problem(answer)) == (status, kind)
    assert site.writer.sent == []
    assert list(site.store.list_objects("content")) == []


def test_the_content_types_of_a_key(site: GatewaySite) -> None:
    key = site.key(limits=Limits(content_types=frozenset({"image/jpeg"})))
    answer = site.ask("POST", "/v1/media", headers=key, files={"file": ("a.png", PNG, "image/png")})
    assert (answer.status_code, problem(answer)) == (415, "unsupported-media-type")


def test_a_damaged_file_is_taken_for_people_to_look_at(site: GatewaySite) -> None:
    answer = site.ask("POST", "/v1/media", headers=site.key(), files={"file": ("a.png", PNG[:20], "image/png")})
    assert answer.status_code == 202


def test_a_multipart_body_without_a_boundary_is_no_bug(site: GatewaySite) -> None:
    headers = site.key() | {"Content-Type": "multipart/form-data"}
    answer = site.ask("POST", "/v1/media", headers=headers, content=b"x")
    assert (answer.status_code, problem(answer)) == (400, "malformed")


async def _held(site: GatewaySite, body: AsyncIterator[bytes]) -> httpx.Response:
    headers = site.key() | {"Content-Type": "multipart/form-data; boundary=b"}
    return await site.ask_async("POST", "/v1/media", headers=headers, content=body)


def test_no_more_files_are_received_than_there_is_room_for(tmp_path: Path) -> None:
    site = GatewaySite(tmp_path, GatewaySettings(uploads_open=1))
    reached, go_on = asyncio.Event(), asyncio.Event()

    async def slowly() -> AsyncIterator[bytes]:
        yield b'--b\r\nContent-Disposition: form-data; name="file"; filename="a.png"\r\n\r\n' + PNG
        reached.set()
        await go_on.wait()
        yield b"\r\n--b--\r\n"

    async def scene() -> tuple[httpx.Response, httpx.Response]:
        first = asyncio.create_task(_held(site, slowly()))
        await reached.wait()
        second = await site.ask_async("POST", "/v1/media", headers=site.key(), files={"file": ("a.png", PNG)})
        go_on.set()
        return await first, second

    first, second = asyncio.run(scene())
    assert first.status_code == 202, first.text
    assert (second.status_code, problem(second)) == (503, "uploads-full")
    assert site.ask("POST", "/v1/media", headers=site.key(), files={"file": ("a.png", PNG)}).status_code == 202
    site.close()


def test_a_body_that_does_not_come_is_not_waited_for(tmp_path: Path) -> None:
    site = GatewaySite(tmp_path, GatewaySettings(receive_s=0.01, uploads_open=1))

    async def never() -> AsyncIterator[bytes]:
        yield b"--b\r\n"
        await asyncio.Event().wait()

    for _ in range(2):
        answer = asyncio.run(_held(site, never()))
        assert (answer.status_code, problem(answer)) == (408, "too-slow")
    site.close()


def test_a_tenant_cannot_name_the_bytes_of_another(site: GatewaySite) -> None:
    """The URI of an upload names no tenant: whoever sends it means bytes of its own."""
    sha256 = hashlib.sha256(PNG).hexdigest()
    assert site.ask("POST", "/v1/media", headers=site.key(), files={"file": ("a.png", PNG)}).status_code == 202
    assert site.submit(site.key(tenants=["rival"]), uri=f"content:{sha256}", media_id="theirs").status_code == 202
    owned, stolen = site.writer.references
    assert (owned.tenant, stolen.tenant) == ("acme", "rival")
    assert read_uploaded(site.store, str(owned.tenant), owned, 2**20).data == PNG
    with pytest.raises(MediaError) as caught:
        read_uploaded(site.store, str(stolen.tenant), stolen, 2**20)
    assert caught.value.code is ReasonCode.CONTENT_MISSING
