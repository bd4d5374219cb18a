"""s3://, gs:// and az:// objects of the buckets that are listed, through obstore."""

from __future__ import annotations

import functools
from datetime import timedelta
from typing import TYPE_CHECKING, Any
from urllib.parse import parse_qs, unquote, urlsplit

import obstore
from obstore.exceptions import BaseError
from obstore.store import ObjectStore, from_url

from pipeline.media.errors import FetchDeferred, FetchRejected
from pipeline.media.fetch_settings import FetchSettings
from pipeline.media.hosts import Hosts
from pipeline.media.transfer import Body, Transfer
from schemas.deadletter import RejectCode

if TYPE_CHECKING:
    from obstore import GetOptions  # exists for type checkers alone

_CHUNK_BYTES = 65_536


class ObjectSource:
    """Reads objects below `object_roots` with the worker's own credentials. `?versionId=` picks a version."""

    def __init__(self, settings: FetchSettings, hosts: Hosts) -> None:
        self._settings = settings
        self._hosts = hosts
        # Longest first, so that a prefix's own entry wins over its bucket's.
        self._roots = sorted((root.rstrip("/") for root in settings.object_roots), key=len, reverse=True)
        self._store = functools.lru_cache(maxsize=None)(self._build_store)

    def get(self, uri: str, attempt: int, transfer: Transfer) -> Body:
        """The object's bytes.

        A refusal by the store is about the worker's credentials, since its operator listed the bucket: it is
        deferred, not rejected.

        Raises:
            FetchRejected: the bucket is not listed, the key is malformed, or there is no such object.
            FetchDeferred: the store refuses, fails or is too slow.
            MediaError: MEDIA_TOO_LARGE.
        """
        root, key, options = self._locate(uri)
        transfer.host = root
        with self._hosts.visit(root, attempt) as visit:
            try:
                result = obstore.get(self._store(root, transfer.total_s), key, options=options)
                visit.answered = True
                transfer.begin_body(result.meta["size"])
                for chunk in result.stream(min_chunk_size=_CHUNK_BYTES):
                    transfer.add(bytes(chunk))
            except FileNotFoundError as error:
                visit.answered = True
                raise FetchRejected(RejectCode.SOURCE_GONE, f"no such object in {root}") from error
            except (BaseError, OSError, ValueError) as error:
                raise FetchDeferred(f"object store: {type(error).__name__}", root) from error
        return Body(transfer.data(), _content_type(result.attributes.get("Content-Type")))

    def _locate(self, uri: str) -> tuple[str, str, GetOptions]:
        split = urlsplit(uri)
        plain = f"{split.scheme}://{split.netloc}{unquote(split.path)}"
        root = next((r for r in self._roots if plain.startswith(f"{r}/")), None)
        if root is None or "@" in split.netloc:
            raise FetchRejected(RejectCode.URI_REFUSED, "the bucket is not below one of `object_roots`")
        key = plain[len(root) + 1 :]
        if split.fragment or any(part in ("", ".", "..") for part in key.split("/")):
            raise FetchRejected(RejectCode.URI_REFUSED, "malformed object key; percent-encode it, without . or ..")
        return root, key, _options(split.query)

    def _build_store(self, root: str, total_s: float) -> ObjectStore:
        config: Any = self._settings.object_options.get(root.partition(":")[0])
        plain_http = str((config or {}).get("endpoint", "")).startswith("http://")
        return from_url(
            root,
            config=config,
            client_options={
                "timeout": timedelta(seconds=total_s),
                "connect_timeout": timedelta(seconds=min(total_s, self._settings.connect_timeout_s)),
                "allow_http": plain_http,
            },
            retry_config={"max_retries": 0, "retry_timeout": timedelta(seconds=total_s)},
        )


def _options(query: str) -> GetOptions:
    if not query:
        return {}
    given = parse_qs(query, keep_blank_values=True)
    if set(given) != {"versionId"} or len(given["versionId"]) != 1:
        raise FetchRejected(RejectCode.URI_REFUSED, "an object URI takes no query but one versionId")
    return {"version": given["versionId"][0]}


def _content_type(value: str | None) -> str | None:
    return value.partition(";")[0].strip().lower() or None if value else None
