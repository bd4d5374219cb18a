"""What a fetch may cost: bytes, time, slots of a host."""

from __future__ import annotations

import shutil
import socket
import subprocess
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from pipeline.media.errors import MediaError
from schemas.decision import ReasonCode
from tests.support.fetching import DATA, Server, body, deferred, drip, fetching, ref, rejected
from tests.support.fetching import server as server  # noqa: PLC0414 - a fixture


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
    with socket.socket() as deaf:
        deaf.bind(("127.0.0.1", 0))  # and never listens; a port that was given back could be another's by now
        port = deaf.getsockname()[1]
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
    with fetching(server, ca_file=certificate) as fetcher:
        assert fetcher.fetch(ref(uri)).data == DATA
    with fetching(server, ca_file=certificate, first_total_s=1.0) as fetcher:
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
        with fetching(allowed_ports={port}, first_total_s=2.0) as fetcher, ThreadPoolExecutor(12) as threads:
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
