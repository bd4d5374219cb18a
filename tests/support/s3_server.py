"""A small S3 on the loopback interface: objects with conditions and checksums in memory, and outages by script."""

from __future__ import annotations

import base64
import hashlib
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from email.utils import formatdate
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qs, unquote, urlsplit
from xml.sax.saxutils import escape

REGION = "us-east-1"


@dataclass
class S3Server:
    """`objects` by `bucket/key`, all of them changed this very moment.

    While `refuses` is a status, every put is answered with it, as a full store does.
    """

    objects: dict[str, bytes] = field(default_factory=dict)
    refuses: int | None = None
    puts: list[tuple[str, dict[str, str]]] = field(default_factory=list)
    refused: int = 0
    port: int = 0

    @property
    def options(self) -> dict[str, str]:
        """What `StoreSettings.options` needs to reach it."""
        return {"endpoint": f"http://127.0.0.1:{self.port}", "region": REGION, "skip_signature": "true"}

    def keys(self, bucket: str) -> list[str]:
        """Of one bucket."""
        names = list(self.objects)  # at once: a put may come while a test asks
        return sorted(name.partition("/")[2] for name in names if name.startswith(f"{bucket}/"))


@contextmanager
def running_s3() -> Iterator[S3Server]:
    """Runs one until the end of the block."""
    server = S3Server()
    handler = type("S3", (_Handler,), {"s3": server, "lock": threading.Lock()})
    http = ThreadingHTTPServer(("127.0.0.1", 0), handler)
    server.port = int(http.server_address[1])
    thread = threading.Thread(target=http.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    try:
        yield server
    finally:
        http.shutdown()
        http.server_close()
        thread.join()


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    s3: S3Server
    lock: Any

    def do_PUT(self) -> None:
        data = self.rfile.read(int(self.headers.get("Content-Length", "0")))
        name, headers = self._name(), {name.lower(): value for name, value in self.headers.items()}
        with self.lock:
            if self.s3.refuses is not None:
                self.s3.refused += 1
                return self._fail(self.s3.refuses, "SlowDown")
            self.s3.puts.append((name, headers))
            checksum = base64.b64encode(hashlib.sha256(data).digest()).decode()
            if headers.get("x-amz-checksum-sha256", checksum) != checksum:
                return self._fail(400, "BadDigest")
            held = self.s3.objects.get(name)
            if headers.get("if-none-match") == "*" and held is not None:
                return self._fail(412, "PreconditionFailed")
            if "if-match" in headers and (held is None or headers["if-match"] != _e_tag(held)):
                return self._fail(412, "PreconditionFailed")
            self.s3.objects[name] = data
        return self._answer(200, b"", ETag=_e_tag(data))

    def do_GET(self) -> None:
        query = parse_qs(urlsplit(self.path).query)
        if "list-type" in query:
            return self._list(query.get("prefix", [""])[0])
        held = self.s3.objects.get(self._name())
        if held is None:
            return self._fail(404, "NoSuchKey")
        asked = self.headers.get("Range")
        if asked is None:
            return self._answer(200, held, ETag=_e_tag(held))
        start, end = (int(part) for part in asked.removeprefix("bytes=").split("-"))
        part = held[start : end + 1]
        return self._answer(206, part, ETag=_e_tag(held), Content_Range=f"bytes {start}-{end}/{len(held)}")

    def do_HEAD(self) -> None:
        self.do_GET()

    def do_POST(self) -> None:
        """Of the bulk kind, `?delete`, as obstore sends it."""
        body = self.rfile.read(int(self.headers["Content-Length"])).decode()
        bucket = self._name().partition("/")[0]
        keys = [part.partition("</Key>")[0] for part in body.split("<Key>")[1:]]
        with self.lock:
            for key in keys:
                self.s3.objects.pop(f"{bucket}/{key}", None)
        deleted = "".join(f"<Deleted><Key>{key}</Key></Deleted>" for key in keys)
        self._answer(200, f"<DeleteResult>{deleted}</DeleteResult>".encode())

    def _list(self, prefix: str) -> None:
        bucket = self._name().partition("/")[0]
        now = datetime.now(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
        with self.lock:
            found = [(key, len(self.s3.objects[f"{bucket}/{key}"])) for key in self.s3.keys(bucket)]
        rows = "".join(
            f"<Contents><Key>{escape(key)}</Key><Size>{size}</Size>"
            f"<LastModified>{now}</LastModified><ETag>x</ETag></Contents>"
            for key, size in found
            if key.startswith(prefix)
        )
        self._answer(200, f"<ListBucketResult><IsTruncated>false</IsTruncated>{rows}</ListBucketResult>".encode())

    def _name(self) -> str:
        return unquote(urlsplit(self.path).path).strip("/")

    def _fail(self, status: int, code: str) -> None:
        self._answer(status, f"<Error><Code>{code}</Code></Error>".encode())

    def _answer(self, status: int, data: bytes, **headers: str) -> None:
        self.send_response(status)
        self.send_header("Content-Length", str(len(data)))
        self.send_header("Last-Modified", formatdate(time.time(), usegmt=True))
        for name, value in headers.items():
            self.send_header(name.replace("_", "-"), value)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(data)

    def log_message(self, *_: object) -> None:
        pass


def _e_tag(data: bytes) -> str:
    return f'"{hashlib.sha256(data).hexdigest()[:32]}"'
