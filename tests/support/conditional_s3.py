"""An S3 server as small as a log needs: objects with ETags, If-None-Match, If-Match, and answers that get lost."""

from __future__ import annotations

import hashlib
import re
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import unquote

BUCKET = "bucket"


@dataclass
class ConditionalS3:
    """`failing`: status of every answer. `lose`: how many PUTs take effect, yet are answered with 500."""

    objects: dict[str, bytes] = field(default_factory=dict)
    failing: int = 0
    lose: int = 0
    url: str = f"s3://{BUCKET}"
    endpoint: str = ""
    lock: threading.Lock = field(default_factory=threading.Lock)

    @property
    def options(self) -> dict[str, str]:
        """For `open_log_storage`."""
        keys = {"access_key_id": "test", "secret_access_key": "test", "region": "us-east-1"}
        return {"endpoint": self.endpoint, **keys}

    def put(self, key: str, data: bytes, if_match: str | None, if_none_match: str | None) -> int:
        """Status of a conditional PUT."""
        with self.lock:
            present = self.objects.get(key)
            if if_none_match == "*" and present is not None:
                return 412
            if if_match is not None and (present is None or e_tag(present) != if_match):
                return 412 if present is not None else 404
            self.objects[key] = data
            if self.lose:
                self.lose -= 1
                return 500
            return 200


def e_tag(data: bytes) -> str:
    return f'"{hashlib.md5(data, usedforsecurity=False).hexdigest()}"'


@contextmanager
def serving_s3() -> Iterator[ConditionalS3]:
    """Runs one until the end of the block."""
    server = ConditionalS3()
    handler = type("S3", (_Handler,), {"server_state": server})
    http = ThreadingHTTPServer(("127.0.0.1", 0), handler)
    thread = threading.Thread(target=http.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    server.endpoint = f"http://127.0.0.1:{http.server_port}"
    try:
        yield server
    finally:
        http.shutdown()
        http.server_close()
        thread.join()


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server_state: ConditionalS3

    def do_PUT(self) -> None:
        data = self.rfile.read(int(self.headers["Content-Length"]))
        if self.server_state.failing:
            self._answer(self.server_state.failing)
            return
        conditions = self.headers.get("If-Match"), self.headers.get("If-None-Match")
        self._answer(self.server_state.put(self._key(), data, *conditions), tag=e_tag(data))

    def do_GET(self) -> None:
        if "list-type=2" in self.path and not self.server_state.failing:
            self._list(unquote(self.path.partition("prefix=")[2].partition("&")[0]))
            return
        data = self.server_state.objects.get(self._key())
        if self.server_state.failing:
            self._answer(self.server_state.failing)
        elif data is None:
            self._answer(404)
        else:
            self._answer(200, data, e_tag(data))

    def do_POST(self) -> None:
        """Only DeleteObjects, which is what clients delete with."""
        body = self.rfile.read(int(self.headers["Content-Length"])).decode()
        if self.server_state.failing:
            self._answer(self.server_state.failing)
            return
        keys = re.findall("<Key>(.*?)</Key>", body)
        for key in keys:
            self.server_state.objects.pop(key, None)
        deleted = "".join(f"<Deleted><Key>{key}</Key></Deleted>" for key in keys)
        self._answer(200, f"<DeleteResult>{deleted}</DeleteResult>".encode())

    def _list(self, prefix: str) -> None:
        """Common prefixes, as delimiter=/ gives them."""
        below = {key.removeprefix(prefix) for key in self.server_state.objects if key.startswith(prefix)}
        folders = sorted({key.partition("/")[0] for key in below if "/" in key})
        rows = "".join(f"<CommonPrefixes><Prefix>{prefix}{name}/</Prefix></CommonPrefixes>" for name in folders)
        self._answer(200, f"<ListBucketResult>{rows}</ListBucketResult>".encode())

    def _key(self) -> str:
        return self.path.partition("?")[0].removeprefix(f"/{BUCKET}/")

    def _answer(self, status: int, body: bytes = b"", tag: str = '""') -> None:
        self.send_response(status)
        self.send_header("ETag", tag)
        self.send_header("Last-Modified", "Wed, 01 Jan 2025 00:00:00 GMT")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *args: Any) -> None:  # noqa: A002 - the base class's name
        """Tests are quiet."""
