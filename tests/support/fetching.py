"""A scripted web server on 127.0.0.1, and a fetcher that may reach it."""

from __future__ import annotations

import os
import ssl
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from pipeline.media.errors import FetchDeferred, FetchRejected
from pipeline.media.fetch import Fetcher, FetchSettings
from schemas.deadletter import RejectCode
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
            request_queue_size = 128  # of 5 the kernel drops what comes before a busy machine accepts

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
    """The time cap is the test's to set: the default one is short for a busy machine."""
    ports = {80, 443} if server is None else {server.port}
    given = {"allowed_networks": [LOOPBACK], "allowed_ports": ports, "first_total_s": 20.0, **settings}
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
