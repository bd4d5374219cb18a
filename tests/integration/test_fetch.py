"""Fetching from real servers on 127.0.0.1."""

from __future__ import annotations

import hashlib
import os
import shutil
import socket
import ssl
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from pipeline.media.errors import FetchDeferred, FetchRejected, MediaError
from pipeline.media.fetch import Fetcher, FetchSettings
from schemas.deadletter import RejectCode
from schemas.decision import ReasonCode
from schemas.media import MediaReference

DATA = os.urandom(50_000)
LOOPBACK = "127.0.0.1/32"
Answer = Callable[[BaseHTTPRequestHandler], None]


class Server:
    """Answers each path as the test says, and keeps what was asked."""

    def __init__(self) -> None:
        self.answers: dict[str, Answer] = {}
        self.asked: list[str] = []
        self.headers: list[dict[str, str]] = []
        outer = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_GET(self) -> None:
                outer.asked.append(self.path)
                outer.headers.append(dict(self.headers))
                try:
                    outer.answers[self.path.partition("?")[0]](self)
                except (BrokenPipeError, ConnectionResetError):
                    self.close_connection = True  # the client is meant to hang up on some answers

            def log_message(self, *_: object) -> None:
                pass

        class Quiet(ThreadingHTTPServer):
            def handle_error(self, *_: object) -> None:
                pass  # an aborted connection

        self._server = Quiet(("127.0.0.1", 0), Handler)
        self.port = int(self._server.server_address[1])
        threading.Thread(target=self._server.serve_forever, args=(0.01,), daemon=True).start()

    def url(self, path: str) -> str:
        return f"http://127.0.0.1:{self.port}{path}"

    def use_tls(self, certificate: Path, key: Path) -> None:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(certificate, key)
        self._server.socket = context.wrap_socket(self._server.socket, server_side=True)

    def close(self) -> None:
        self._server.shutdown()
        self._server.server_close()


@pytest.fixture
def server() -> Iterator[Server]:
    running = Server()
    yield running
    running.close()


@contextmanager
def fetching(server: Server | None = None, **settings: Any) -> Iterator[Fetcher]:
    ports = {80, 443} if server is None else {server.port}
    given = {"allowed_networks": [LOOPBACK], "allowed_ports": ports, **settings}
    fetcher = Fetcher(FetchSettings.model_validate(given))
    fetcher.open()
    try:
        yield fetcher
    finally:
        fetcher.close()


def ref(uri: str, **fields: Any) -> MediaReference:
    return MediaReference(uri=uri, **fields)


def body(data: bytes, status: int = 200, **headers: str) -> Answer:
    def answer(handler: BaseHTTPRequestHandler) -> None:
        handler.send_response(status)
        handler.send_header("Content-Length", str(len(data)))
        for name, value in headers.items():
            handler.send_header(name.replace("_", "-"), value)
        handler.end_headers()
        handler.wfile.write(data)

    return answer


def redirect(to: str) -> Answer:
    return body(b"over there", 302, Location=to)


def drip(head: bytes, drop: bytes, pause_s: float, count: int = 2000) -> Answer:
    def answer(handler: BaseHTTPRequestHandler) -> None:
        handler.close_connection = True
        handler.wfile.write(head)
        for _ in range(count):
            handler.wfile.write(drop)
            handler.wfile.flush()
            time.sleep(pause_s)

    return answer


def rejected(fetcher: Fetcher, reference: MediaReference, attempt: int = 1) -> RejectCode:
    with pytest.raises(FetchRejected) as caught:
        fetcher.fetch(reference, attempt)
    return caught.value.code


def deferred(fetcher: Fetcher, reference: MediaReference, why: str, attempt: int = 1) -> FetchDeferred:
    with pytest.raises(FetchDeferred, match=why) as caught:
        fetcher.fetch(reference, attempt)
    return caught.value


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


# what a fetch may cost


def test_a_declared_size_over_the_cap_is_not_even_asked_for(server: Server) -> None:
    with fetching(server, max_bytes=1000) as fetcher, pytest.raises(MediaError) as caught:
        fetcher.fetch(ref(server.url("/a"), size_bytes=1001))
    assert caught.value.code is ReasonCode.MEDIA_TOO_LARGE
    assert not server.asked


def test_an_announced_length_over_the_cap_is_refused_before_the_body(server: Server) -> None:
    server.answers["/a"] = drip(b"HTTP/1.1 200 OK\r\nContent-Length: 1001\r\n\r\n", b"", 0.0)
    with fetching(server, max_bytes=1000) as fetcher, pytest.raises(MediaError, match="announced") as caught:
        fetcher.fetch(ref(server.url("/a")))
    assert caught.value.code is ReasonCode.MEDIA_TOO_LARGE


def test_a_lying_length_does_not_lift_the_cap(server: Server) -> None:
    head = b"HTTP/1.1 200 OK\r\nContent-Length: 10\r\nTransfer-Encoding: chunked\r\n\r\n"
    chunk = b"10000\r\n" + bytes(65_536) + b"\r\n"
    server.answers["/a"] = drip(head, chunk, 0.0, 10_000)
    with fetching(server, max_bytes=1_000_000) as fetcher, pytest.raises(MediaError, match="sent") as caught:
        fetcher.fetch(ref(server.url("/a")))
    assert caught.value.code is ReasonCode.MEDIA_TOO_LARGE


def test_a_body_shorter_than_announced_defers(server: Server) -> None:
    server.answers["/a"] = drip(b"HTTP/1.1 200 OK\r\nContent-Length: 1000\r\n\r\n", b"x", 0.0, 10)
    with fetching(server) as fetcher:
        deferred(fetcher, ref(server.url("/a")), "RemoteProtocolError")


@pytest.mark.parametrize("head", [b"HTTP/1.1 200 OK\r\nX-Slow: ", b"HTTP/1.1 200 OK\r\nContent-Length: 9000\r\n\r\n"])
def test_the_time_cap_ends_headers_and_bodies_that_drip(server: Server, head: bytes) -> None:
    server.answers["/a"] = drip(head, b"x", 0.02)
    with fetching(server, first_total_s=0.3, min_bytes_per_s=0) as fetcher:
        deferred(fetcher, ref(server.url("/a")), "timed out|longer")  # an ended drip would say RemoteProtocolError


def test_later_attempts_have_the_longer_time_cap(server: Server) -> None:
    server.answers["/a"] = drip(b"HTTP/1.1 200 OK\r\nContent-Length: 30\r\n\r\n", b"x", 0.02, 30)
    with fetching(server, first_total_s=0.2, retry_total_s=20.0, min_bytes_per_s=0) as fetcher:
        deferred(fetcher, ref(server.url("/a")), "timed out|longer")
        assert fetcher.fetch(ref(server.url("/a")), attempt=2).data == b"x" * 30


def test_a_body_below_the_least_rate_defers(server: Server) -> None:
    server.answers["/a"] = drip(b"HTTP/1.1 200 OK\r\nContent-Length: 9000\r\n\r\n", b"x", 0.02)
    with fetching(server, grace_s=0.1, min_bytes_per_s=1000) as fetcher:
        deferred(fetcher, ref(server.url("/a")), "slower than 1000 bytes/s", attempt=2)


def test_a_host_that_accepts_and_says_nothing_defers() -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:
        port = silent.getsockname()[1]
        with fetching(allowed_ports={port}, first_total_s=0.3, read_timeout_s=600.0) as fetcher:
            deferred(fetcher, ref(f"http://127.0.0.1:{port}/a"), "timed out")
            deferred(fetcher, ref(f"https://127.0.0.1:{port}/a"), "timed out")


def test_a_refused_connection_defers() -> None:
    with socket.create_server(("127.0.0.1", 0)) as gone:
        port = gone.getsockname()[1]
    with fetching(allowed_ports={port}) as fetcher:
        deferred(fetcher, ref(f"http://127.0.0.1:{port}/a"), "ConnectError")


def test_a_name_that_does_not_resolve_defers(monkeypatch: pytest.MonkeyPatch) -> None:
    def resolve(*_: object) -> list[Any]:
        raise socket.gaierror(socket.EAI_NONAME, "no such name")

    monkeypatch.setattr(socket, "getaddrinfo", resolve)
    with fetching() as fetcher:
        deferred(fetcher, ref("http://nowhere.example/a"), "no such name")


def test_a_name_server_that_stalls_costs_no_more_than_the_time_cap(monkeypatch: pytest.MonkeyPatch) -> None:
    answer = threading.Event()

    def resolve(*_: object) -> list[Any]:
        answer.wait(10.0)
        raise socket.gaierror(socket.EAI_NONAME, "no such name")

    monkeypatch.setattr(socket, "getaddrinfo", resolve)
    with fetching(first_total_s=0.2) as fetcher:
        deferred(fetcher, ref("http://stalling.example/a"), "look-up took too long")
    answer.set()


def make_certificate(directory: Path) -> tuple[Path, Path]:
    certificate, key = directory / "certificate.pem", directory / "key.pem"
    kind = ["-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-days", "2"]
    names = ["-subj", "/CN=test", "-addext", "subjectAltName=IP:127.0.0.1"]
    command = ["openssl", "req", *kind, *names, "-keyout", str(key), "-out", str(certificate)]
    subprocess.run(command, check=True, capture_output=True)
    return certificate, key


@pytest.mark.skipif(shutil.which("openssl") is None, reason="openssl makes the test's certificate")
def test_tls_is_verified_for_the_name_and_reads_end_at_the_deadline(
    server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    certificate, key = make_certificate(tmp_path)
    server.use_tls(certificate, key)
    server.answers["/a"] = body(DATA)
    server.answers["/slow"] = drip(b"HTTP/1.1 200 OK\r\nX-Slow: ", b"x", 0.02)
    uri = server.url("/a").replace("http:", "https:")
    with fetching(server) as fetcher:
        deferred(fetcher, ref(uri), "certificate verify failed")
    with fetching(server, ca_file=certificate, first_total_s=1.0) as fetcher:
        assert fetcher.fetch(ref(uri)).data == DATA
        deferred(fetcher, ref(uri.replace("/a", "/slow")), "timed out")

    def resolve(host: str, port: int, *_: object) -> list[Any]:
        return [(socket.AF_INET, socket.SOCK_STREAM, 6, "", ("127.0.0.1", port))]

    monkeypatch.setattr(socket, "getaddrinfo", resolve)
    with fetching(server, ca_file=certificate) as fetcher:
        deferred(fetcher, ref(uri.replace("127.0.0.1", "other.example")), "Hostname mismatch")


# what one host may hold


def test_the_breaker_opens_and_only_a_later_attempt_probes(server: Server) -> None:
    server.answers["/a"] = body(b"", 503)
    with fetching(server, hosts={"cool_down_s": 0.0}) as fetcher:
        for _ in range(3):
            deferred(fetcher, ref(server.url("/a")), "503")
        for _ in range(5):
            deferred(fetcher, ref(server.url("/a")), "circuit open")
        assert len(server.asked) == 3
        deferred(fetcher, ref(server.url("/a")), "503", attempt=2)
        assert len(server.asked) == 4
        server.answers["/a"] = body(DATA)
        deferred(fetcher, ref(server.url("/a")), "circuit open")
        assert fetcher.fetch(ref(server.url("/a")), attempt=2).data == DATA
        assert fetcher.fetch(ref(server.url("/a"))).data == DATA


def test_a_host_that_answers_404_is_not_down(server: Server) -> None:
    server.answers["/a"] = body(b"", 404)
    with fetching(server) as fetcher:
        for _ in range(5):
            rejected(fetcher, ref(server.url("/a")))
    assert len(server.asked) == 5


def test_a_dead_host_holds_two_slots_at_most() -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:
        port = silent.getsockname()[1]
        with fetching(allowed_ports={port}, first_total_s=0.5) as fetcher, ThreadPoolExecutor(12) as threads:
            uri = f"http://127.0.0.1:{port}/a"
            causes = list(threads.map(lambda _: deferred(fetcher, ref(uri), ".").cause, range(12)))
    assert sum("timed out" in cause for cause in causes) == 2
    assert sum(cause == "host busy" for cause in causes) == 10


def test_many_threads_fetch_from_a_healthy_host(server: Server) -> None:
    server.answers["/a"] = body(DATA)
    with fetching(server, hosts={"max_concurrent": 8}) as fetcher, ThreadPoolExecutor(8) as threads:
        fetcher.fetch(ref(server.url("/a")))
        sizes = set(threads.map(lambda _: len(fetcher.fetch(ref(server.url("/a"))).data), range(64)))
    assert sizes == {len(DATA)}


# files


@pytest.fixture
def root(tmp_path: Path) -> Path:
    (tmp_path / "root" / "sub").mkdir(parents=True)
    (tmp_path / "root" / "sub" / "a photo.png").write_bytes(DATA)
    (tmp_path / "outside.png").write_bytes(DATA)
    return tmp_path / "root"


def test_a_file_below_a_root_is_read(root: Path) -> None:
    uri = (root / "sub" / "a photo.png").as_uri()
    with fetching(file_roots=[root]) as fetcher:
        assert fetcher.fetch(ref(uri)).data == DATA
        assert fetcher.fetch(ref(uri.replace("file://", "file://localhost"))).data == DATA
        assert fetcher.fetch(ref(uri.replace("file://", "FILE://"))).data == DATA


def test_nothing_outside_the_roots_is_read(root: Path) -> None:
    (root / "link.png").symlink_to(root.parent / "outside.png")
    (root / "linked").symlink_to(root.parent)
    (root.parent / "root2").mkdir()
    (root.parent / "root2" / "a.png").write_bytes(DATA)
    os.mkfifo(root / "fifo")
    refused = [
        (root / "link.png").as_uri(),
        (root / "linked" / "outside.png").as_uri(),
        f"{root.as_uri()}/../outside.png",
        f"{root.as_uri()}/%2e%2e/outside.png",
        (root.parent / "root2" / "a.png").as_uri(),
        root.as_uri(),
        (root / "sub").as_uri(),
        (root / "fifo").as_uri(),
        f"file://elsewhere{root}/sub/a%20photo.png",
        f"{root.as_uri()}/sub/a%00.png",
        "file:relative.png",
    ]
    with fetching(file_roots=[root]) as fetcher:
        for uri in refused:
            assert rejected(fetcher, ref(uri)) is RejectCode.URI_REFUSED, uri
    with fetching() as fetcher:
        assert rejected(fetcher, ref((root / "sub" / "a%20photo.png").as_uri())) is RejectCode.URI_REFUSED


def test_a_link_that_stays_below_the_root_is_followed(root: Path) -> None:
    (root / "link.png").symlink_to(root / "sub" / "a photo.png")
    with fetching(file_roots=[root]) as fetcher:
        assert fetcher.fetch(ref((root / "link.png").as_uri())).data == DATA


def test_a_link_slipped_in_after_the_check_is_not_followed(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (root / "link.png").symlink_to(root.parent / "outside.png")
    (root / "linked").symlink_to(root.parent)
    with fetching(file_roots=[root]) as fetcher:
        monkeypatch.setattr(os.path, "realpath", str)
        for path in (root / "link.png", root / "linked" / "outside.png"):
            assert rejected(fetcher, ref(path.as_uri())) in (RejectCode.URI_REFUSED, RejectCode.SOURCE_GONE)


def test_a_missing_file_is_gone_and_a_large_one_too_large(root: Path) -> None:
    with fetching(file_roots=[root], max_bytes=1000) as fetcher:
        assert rejected(fetcher, ref((root / "no.png").as_uri())) is RejectCode.SOURCE_GONE
        with pytest.raises(MediaError) as caught:
            fetcher.fetch(ref((root / "sub" / "a photo.png").as_uri()))
    assert caught.value.code is ReasonCode.MEDIA_TOO_LARGE


# object stores


def s3(server: Server) -> dict[str, Any]:
    endpoint = f"http://127.0.0.1:{server.port}"
    options = {"endpoint": endpoint, "region": "us-east-1", "skip_signature": "true"}
    return {"object_roots": ["s3://media/in"], "object_options": {"s3": options}}


def test_an_object_of_a_listed_bucket_is_read(server: Server) -> None:
    last_modified = "Mon, 01 Jan 2024 00:00:00 GMT"
    server.answers["/media/in/a.png"] = body(DATA, Content_Type="image/png", Last_Modified=last_modified, ETag='"1"')
    with fetching(server, **s3(server)) as fetcher:
        fetched = fetcher.fetch(ref("s3://media/in/a.png"))
        assert (fetched.data, fetched.content_type) == (DATA, "image/png")
        fetcher.fetch(ref("s3://media/in/a.png?versionId=v7"))
        assert server.asked[1].endswith("?versionId=v7")
        for uri in ("s3://media/a.png", "s3://other/in/a.png", "s3://media/in/../a.png", "gs://media/in/a.png"):
            assert rejected(fetcher, ref(uri)) is RejectCode.URI_REFUSED
    with fetching(server, max_bytes=1000, **s3(server)) as fetcher, pytest.raises(MediaError):
        fetcher.fetch(ref("s3://media/in/a.png"))


def test_a_missing_object_is_gone_and_a_failing_store_defers(server: Server) -> None:
    server.answers["/media/in/no.png"] = body(b"<Error><Code>NoSuchKey</Code></Error>", 404)
    server.answers["/media/in/403.png"] = body(b"", 403)
    server.answers["/media/in/503.png"] = body(b"", 503)
    server.answers["/media/in/slow.png"] = drip(b"HTTP/1.1 200 OK\r\nX: ", b"x", 0.02)
    with fetching(server, first_total_s=0.3, hosts={"failures_to_open": 9}, **s3(server)) as fetcher:
        assert rejected(fetcher, ref("s3://media/in/no.png")) is RejectCode.SOURCE_GONE
        for name in ("403", "503", "slow"):
            deferred(fetcher, ref(f"s3://media/in/{name}.png"), "object store")


def test_a_fetcher_that_is_not_open_says_so() -> None:
    fetcher = Fetcher()
    fetcher.close()
    with pytest.raises(RuntimeError, match="not open"):
        fetcher.fetch(ref("http://example.com/a"))
