"""Fetching over http from real servers on 127.0.0.1: what is fetched and what is refused."""

from __future__ import annotations

import hashlib
import socket
from typing import Any

import pytest

from pipeline.media.errors import FetchRejected
from schemas.deadletter import RejectCode
from tests.support.fetching import (
    DATA,
    Server,
    body,
    deferred,
    drip,
    fetching,
    redirect,
    ref,
    rejected,
)
from tests.support.fetching import server as server  # noqa: PLC0414 - a fixture


def test_the_bytes_arrive_with_digest_and_type(server: Server) -> None:
    server.answers["/a"] = body(DATA, Content_Type="Image/PNG; charset=binary", Set_Cookie="id=1")
    with fetching(server) as fetcher:
        for _ in range(2):
            fetched = fetcher.fetch(ref(server.url("/a"), size_bytes=len(DATA)))
    assert fetched.data == DATA
    assert fetched.sha256 == hashlib.sha256(DATA).hexdigest()
    assert fetched.content_type == "image/png"
    assert server.headers[1]["accept-encoding"] == "identity"
    assert "cookie" not in {name.lower() for name in server.headers[1]}


def test_the_environment_cannot_put_a_proxy_between(server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HTTP_PROXY", "http://127.0.0.1:9")
    monkeypatch.setenv("ALL_PROXY", "http://127.0.0.1:9")
    server.answers["/a"] = body(DATA)
    with fetching(server) as fetcher:
        assert fetcher.fetch(ref(server.url("/a"))).data == DATA


@pytest.mark.parametrize(
    ("status", "code"),
    [
        (404, RejectCode.SOURCE_GONE),
        (410, RejectCode.SOURCE_GONE),
        (401, RejectCode.SOURCE_FORBIDDEN),
        (403, RejectCode.SOURCE_FORBIDDEN),
        (451, RejectCode.SOURCE_FORBIDDEN),
        (400, RejectCode.SOURCE_FORBIDDEN),
        (204, RejectCode.MEDIA_EMPTY),
    ],
)
def test_a_final_status_rejects(server: Server, status: int, code: RejectCode) -> None:
    server.answers["/a"] = body(b"", status)
    with fetching(server) as fetcher:
        assert rejected(fetcher, ref(server.url("/a"))) is code


@pytest.mark.parametrize("status", [408, 425, 429, 500, 502, 503, 504])
def test_a_passing_status_defers(server: Server, status: int) -> None:
    server.answers["/a"] = body(b"later", status, Retry_After="17")
    with fetching(server) as fetcher:
        error = deferred(fetcher, ref(server.url("/a")), str(status))
    assert (error.host, error.retry_after_s) == (f"127.0.0.1:{server.port}", 17.0)


def test_an_empty_body_is_rejected(server: Server) -> None:
    server.answers["/a"] = body(b"")
    with fetching(server) as fetcher:
        assert rejected(fetcher, ref(server.url("/a"))) is RejectCode.MEDIA_EMPTY


def test_what_differs_from_the_declaration_is_rejected(server: Server) -> None:
    server.answers["/a"] = body(DATA)
    with fetching(server) as fetcher:
        for declared in ({"sha256": "0" * 64}, {"size_bytes": len(DATA) - 1}):
            assert rejected(fetcher, ref(server.url("/a"), **declared)) is RejectCode.DECLARED_MISMATCH


def test_a_content_coding_is_not_trusted(server: Server) -> None:
    server.answers["/a"] = body(DATA, Content_Encoding="gzip")
    with fetching(server) as fetcher:
        assert rejected(fetcher, ref(server.url("/a"))) is RejectCode.URI_REFUSED


# what may be reached


@pytest.mark.parametrize(
    "uri",
    [
        "http://127.0.0.1/a",
        "http://127.1/a",
        "http://2130706433/a",
        "http://[::1]/a",
        "http://[::ffff:127.0.0.1]/a",
        "http://10.1.2.3/a",
        "http://192.168.0.1/a",
        "http://169.254.169.254/latest/meta-data",
        "http://[fd00:ec2::254]/latest",
        "http://100.100.100.200/latest",
        "http://0.0.0.0/a",
        "http://168.63.129.16/machine",
        "http://user:secret@example.com/a",
        "http://example.com:22/a",
        "http://exa mple.com/a".replace(" ", "%20"),
        "http:///a",
        "ftp://example.com/a",
        "gopher://example.com/a",
        "data:image/png;base64,AAAA",
    ],
)
def test_a_forbidden_uri_is_refused(uri: str) -> None:
    with fetching(allowed_networks=[]) as fetcher:
        assert rejected(fetcher, ref(uri)) is RejectCode.URI_REFUSED


def test_a_name_that_resolves_to_a_private_address_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    def resolve(*_: object) -> list[Any]:
        return [(socket.AF_INET, socket.SOCK_STREAM, 6, "", ("10.0.0.5", 80))]

    monkeypatch.setattr(socket, "getaddrinfo", resolve)
    with fetching() as fetcher, pytest.raises(FetchRejected, match=r"10\.0\.0\.0/8|private|RFC") as caught:
        fetcher.fetch(ref("http://rebind.example/a?signature=secret"))
    assert caught.value.code is RejectCode.URI_REFUSED
    assert "secret" not in caught.value.detail


def test_a_connection_goes_to_the_address_that_was_checked(server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    answers = iter(["127.0.0.1", "10.0.0.5", "10.0.0.5"])

    def resolve(host: str, port: int, *_: object) -> list[Any]:
        return [(socket.AF_INET, socket.SOCK_STREAM, 6, "", (next(answers), port))]

    server.answers["/a"] = body(DATA)
    monkeypatch.setattr(socket, "getaddrinfo", resolve)
    with fetching(server) as fetcher:
        assert fetcher.fetch(ref(f"http://rebind.example:{server.port}/a")).data == DATA
    assert next(answers) == "10.0.0.5"


def test_only_listed_hosts_when_any_are_listed(server: Server) -> None:
    server.answers["/a"] = body(DATA)
    with fetching(server, allowed_hosts=["127.0.0.1"]) as fetcher:
        assert fetcher.fetch(ref(server.url("/a"))).data == DATA
    with fetching(server, allowed_hosts=["*.example"]) as fetcher:
        assert rejected(fetcher, ref(server.url("/a"))) is RejectCode.URI_REFUSED
    assert server.asked == ["/a"]


@pytest.mark.parametrize("to", ["http://127.0.0.2:{port}/a", "http://169.254.169.254:{port}/", "file:///etc/passwd"])
def test_a_redirect_to_a_forbidden_place_is_refused(server: Server, to: str) -> None:
    server.answers["/start"] = redirect(to.format(port=server.port))
    server.answers["/a"] = body(DATA)
    with fetching(server) as fetcher:
        assert rejected(fetcher, ref(server.url("/start"))) is RejectCode.URI_REFUSED
    assert server.asked == ["/start"]


def test_three_redirects_are_followed_and_four_are_refused(server: Server) -> None:
    for hop in range(4):
        server.answers[f"/{hop}"] = redirect(f"/{hop + 1}")
    server.answers["/4"] = body(DATA)
    with fetching(server) as fetcher:
        assert fetcher.fetch(ref(server.url("/1"))).data == DATA
        assert rejected(fetcher, ref(server.url("/0"))) is RejectCode.URI_REFUSED
    assert server.asked == ["/1", "/2", "/3", "/4", "/0", "/1", "/2", "/3"]


def test_the_body_of_a_redirect_is_not_read(server: Server) -> None:
    head = b"HTTP/1.1 302 Found\r\nLocation: /a\r\nContent-Length: 999999999\r\n\r\n"
    server.answers["/start"] = drip(head, bytes(65_536), 0.0, 10_000)
    server.answers["/a"] = body(DATA)
    with fetching(server) as fetcher:
        assert fetcher.fetch(ref(server.url("/start"))).data == DATA
