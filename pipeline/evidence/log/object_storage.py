"""A log in an object store that knows conditional writes: If-None-Match for objects, If-Match for the checkpoint."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from datetime import timedelta
from typing import Any

import obstore
from obstore.exceptions import AlreadyExistsError, BaseError, NotFoundError, PreconditionError
from obstore.store import MemoryStore, ObjectStore, from_url

from pipeline.evidence.log.directory_storage import different
from pipeline.evidence.log.errors import LogCorrupt, LogUnavailable, NotInLog, Superseded
from pipeline.evidence.log.storage import Token, checked_path
from pipeline.evidence.log.tiles import CHECKPOINT

_REQUEST_TIMEOUT_S = 30
_RETRIES = 3


class ObjectStorage:
    """`LogStorage` on any obstore store with conditional put."""

    def __init__(self, store: ObjectStore, base: str, prefix: str = "") -> None:
        """`base` names the store in messages; `prefix` is '' or ends with a slash."""
        self._store = store
        self._base = base
        self._prefix = prefix

    def read(self, path: str) -> bytes:
        """See `LogStorage`."""
        return self._get(checked_path(path))[0]

    def create(self, path: str, data: bytes) -> None:
        """See `LogStorage`."""
        key = self._prefix + checked_path(path)
        with self._outage("put", path):
            try:
                obstore.put(self._store, key, data, mode="create")
            except (AlreadyExistsError, PreconditionError):
                if self.read(path) != data:
                    where = f"{key} in {self._base}"
                    raise LogCorrupt(f"{where} already holds other bytes; {different(path)}") from None

    def discard(self, path: str) -> None:
        """See `LogStorage`."""
        with self._outage("remove", path), suppress(NotFoundError, FileNotFoundError):
            obstore.delete(self._store, self._prefix + checked_path(path))

    def read_checkpoint(self) -> tuple[bytes, Token] | None:
        """See `LogStorage`."""
        try:
            return self._get(CHECKPOINT)
        except NotInLog:
            return None

    def swap_checkpoint(self, new: bytes, token: Token | None) -> Token:
        """See `LogStorage`."""
        mode: Any = "create" if token is None else _version(token)
        with self._outage("replace", CHECKPOINT):
            try:
                result = obstore.put(self._store, self._prefix + CHECKPOINT, new, mode=mode)
            except (AlreadyExistsError, PreconditionError, NotFoundError, FileNotFoundError) as error:
                return self._own_or_superseded(new, error)
        return Token(result["e_tag"], result["version"])

    def folders(self) -> list[str]:
        """See `LogStorage`. One request for each 1,000 names."""
        with self._outage("list", ""):
            found = obstore.list_with_delimiter(self._store, self._prefix or None)
        return sorted(path.rstrip("/").rpartition("/")[2] for path in found["common_prefixes"])

    def under(self, prefix: str) -> ObjectStorage:
        """See `LogStorage`."""
        return ObjectStorage(self._store, self._base, f"{self._prefix}{checked_path(prefix)}/")

    def _own_or_superseded(self, new: bytes, error: Exception) -> Token:
        """After a lost answer the client asks again, and is refused because its first try went through."""
        found = self.read_checkpoint()
        if found is not None and found[0] == new:
            return found[1]
        name = f"{self._prefix}{CHECKPOINT} in {self._base}"
        raise Superseded(f"{name} is no longer the checkpoint that this writer wrote or read last") from error

    def _get(self, path: str) -> tuple[bytes, Token]:
        with self._outage("get", path):
            try:
                result = obstore.get(self._store, self._prefix + path)
                return bytes(result.bytes()), Token(result.meta["e_tag"], result.meta["version"])
            except (NotFoundError, FileNotFoundError) as error:
                raise NotInLog(f"{self._prefix}{path} is not in {self._base}") from error

    @contextmanager
    def _outage(self, verb: str, path: str) -> Iterator[None]:
        try:
            yield
        except (BaseError, OSError, ValueError) as error:
            first_line = f"{type(error).__name__}: {str(error).partition(chr(10))[0][:256]}"
            message = f"cannot {verb} {self._prefix}{path} in {self._base}: {first_line}"
            raise LogUnavailable(message) from error


def _version(token: Token) -> dict[str, str]:
    """As obstore wants it: only what the store gave."""
    given = {"e_tag": token.e_tag, "version": token.version}
    return {name: value for name, value in given.items() if value is not None}


def memory_storage(prefix: str = "") -> ObjectStorage:
    """A new, empty storage of this process."""
    return ObjectStorage(MemoryStore(), "memory://", f"{prefix}/" if prefix else "")


def open_bucket(url: str, options: Mapping[str, str]) -> ObjectStorage:
    """A bucket, with or without a prefix. Raises ValueError for a URL or option that obstore does not know."""
    config: Any = dict(options)
    plain_http = options.get("endpoint", "").startswith("http://")
    try:
        store = from_url(
            url,
            config=config,
            client_options={"timeout": timedelta(seconds=_REQUEST_TIMEOUT_S), "allow_http": plain_http},
            retry_config={"max_retries": _RETRIES, "retry_timeout": timedelta(seconds=_REQUEST_TIMEOUT_S)},
        )
    except BaseError as error:
        raise ValueError(f"log {url!r}: {error}") from error
    return ObjectStorage(store, url)
