"""Media bytes from a reference: fetched once, within caps, verified against what the producer declared."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass

from pipeline.media.errors import FetchRejected, MediaError
from pipeline.media.fetch_settings import FetchSettings
from pipeline.media.file_source import FileSource
from pipeline.media.hosts import Hosts
from pipeline.media.http_source import HttpSource
from pipeline.media.object_source import ObjectSource
from pipeline.media.transfer import Body, Transfer
from schemas.deadletter import RejectCode
from schemas.decision import ReasonCode
from schemas.media import MediaReference

__all__ = ["FetchSettings", "Fetched", "Fetcher", "verify"]


@dataclass(frozen=True, slots=True)
class Fetched:
    """The original bytes, their lower-case hex SHA-256, and the content type that the origin named."""

    data: bytes
    sha256: str
    content_type: str | None


class Fetcher:
    """Fetches http(s), s3, gs, az and file references. Thread-safe between `open` and `close`."""

    def __init__(self, settings: FetchSettings | None = None) -> None:
        self._settings = settings or FetchSettings()
        self._http: HttpSource | None = None
        self._objects: ObjectSource | None = None
        self._files: FileSource | None = None

    def open(self) -> None:
        """Build the clients in the process that uses them; nothing is connected yet.

        Raises:
            ValueError: settings that cannot be met, such as an allowed network inside a NAT64 prefix.
            OSError: `ca_file` cannot be read.
        """
        hosts = Hosts(self._settings.hosts)
        self._http = HttpSource(self._settings, hosts)
        self._objects = ObjectSource(self._settings, hosts)
        self._files = FileSource(self._settings.file_roots)

    def close(self) -> None:
        """Close all connections. Safe to call again, and after a failed `open`."""
        if self._http is not None:
            self._http.close()
        self._http = self._objects = self._files = None

    def fetch(self, ref: MediaReference, attempt: int = 1) -> Fetched:
        """The bytes that `ref` names. Attempt 1 has the short time cap; later ones the long one.

        Raises:
            FetchRejected: the reference is refused, gone, forbidden, empty or not what it declared.
            FetchDeferred: the origin has no answer now.
            MediaError: MEDIA_TOO_LARGE.
        """
        settings = self._settings
        transfer = Transfer(
            host="",
            max_bytes=settings.max_bytes,
            total_s=settings.first_total_s if attempt <= 1 else settings.retry_total_s,
            min_bytes_per_s=settings.min_bytes_per_s,
            grace_s=settings.grace_s,
        )
        if ref.size_bytes is not None and ref.size_bytes > settings.max_bytes:
            detail = f"size_bytes declares {ref.size_bytes}; at most {settings.max_bytes} are fetched"
            raise MediaError(ReasonCode.MEDIA_TOO_LARGE, detail)
        body = self._get(ref.uri, attempt, transfer)
        sha256 = hashlib.sha256(body.data).hexdigest()
        verify(ref, body.data, sha256)
        return Fetched(body.data, sha256, body.content_type)

    def _get(self, uri: str, attempt: int, transfer: Transfer) -> Body:
        if self._http is None or self._objects is None or self._files is None:
            raise RuntimeError("the fetcher is not open")
        scheme = uri.partition(":")[0].lower()
        match scheme:
            case "http" | "https":
                return self._http.get(uri, attempt, transfer)
            case "s3" | "gs" | "az":
                return self._objects.get(uri, attempt, transfer)
            case "file":
                return self._files.get(uri, transfer)
            case _:
                known = "http, https, s3, gs, az or file"
                raise FetchRejected(RejectCode.URI_REFUSED, f"scheme {scheme!r} is none of {known}")


def verify(ref: MediaReference, data: bytes, sha256: str) -> None:
    """The bytes are what the reference declares. Raises FetchRejected."""
    if not data:
        raise FetchRejected(RejectCode.MEDIA_EMPTY, "the origin sent 0 bytes")
    if ref.size_bytes is not None and ref.size_bytes != len(data):
        detail = f"size_bytes declares {ref.size_bytes}, the origin sent {len(data)}"
        raise FetchRejected(RejectCode.DECLARED_MISMATCH, detail)
    if ref.sha256 is not None and ref.sha256 != sha256:
        detail = f"sha256 declares {ref.sha256}, the origin sent {sha256}"
        raise FetchRejected(RejectCode.DECLARED_MISMATCH, detail)
