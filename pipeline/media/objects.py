"""A directory or a bucket as named immutable objects, with one kind of error for every kind of outage."""

from __future__ import annotations

import fcntl
import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import unquote, urlsplit

import obstore
from obstore.exceptions import AlreadyExistsError, BaseError, PreconditionError
from obstore.store import LocalStore, MemoryStore, ObjectStore, from_url

from pipeline.media.errors import ContentMissing, StoreUnavailable

if TYPE_CHECKING:
    from obstore import UpdateVersion  # exists for type checkers alone

_REQUEST_TIMEOUT_S = 30
_RETRIES = 3
_LOCK_FILE = ".lock"
_OUTAGE = (BaseError, OSError, ValueError)


@dataclass(frozen=True, slots=True)
class StoredObject:
    """One entry of a listing. `key` is relative to the store, `size` in bytes, `modified` in UTC."""

    key: str
    size: int
    modified: datetime


@dataclass(frozen=True, slots=True)
class Versioned:
    """What was read, and the version that `swap` compares with; None on local disk, where a lock does that."""

    data: bytes
    version: UpdateVersion | None


class Superseded(Exception):
    """The object was changed or removed since it was read: read it again."""


class Objects:
    """Safe for any number of threads and processes. `base` is the prefix of every URI, without a slash at its end.

    On local disk an object appears whole or not at all: obstore links a finished staging file into place.
    """

    def __init__(self, url: str, options: Mapping[str, str] | None = None) -> None:
        """Name a store; nothing is read or written yet, but a local directory is made.

        Args:
            url: `file:///dir`, `s3://bucket[/prefix]`, `gs://...`, `az://...` or, for one process, `memory://`.
            options: region, endpoint and the like, as obstore names them.

        Raises:
            ValueError: the URL names no known kind of store.
            StoreUnavailable: the directory cannot be made.
        """
        self.raw, self.base = open_objects(url, options)

    def create(self, key: str, data: bytes) -> bool:
        """Put if absent; False when there is an object of that name. Raises StoreUnavailable."""
        try:
            obstore.put(self.raw, key, data, mode="create")
        except AlreadyExistsError:
            return False
        except _OUTAGE as error:
            raise self._unavailable("put", key, error) from error
        return True

    def replace(self, key: str, data: bytes) -> None:
        """Put over whatever is there. Raises StoreUnavailable."""
        try:
            obstore.put(self.raw, key, data, mode="overwrite", use_multipart=False)
        except _OUTAGE as error:
            raise self._unavailable("put", key, error) from error

    def read(self, key: str) -> bytes:
        """The whole object. Raises ContentMissing, StoreUnavailable."""
        return self.read_versioned(key).data

    def read_versioned(self, key: str) -> Versioned:
        """The whole object, and its version for `swap`. Raises ContentMissing, StoreUnavailable."""
        try:
            result = obstore.get(self.raw, key)
            data = bytes(result.bytes())
        except FileNotFoundError as error:
            raise ContentMissing(f"{key} is not in {self.base}") from error
        except _OUTAGE as error:
            raise self._unavailable("get", key, error) from error
        if isinstance(self.raw, LocalStore):
            return Versioned(data, None)
        meta = result.meta
        version: UpdateVersion = {}
        if meta["e_tag"] is not None:
            version["e_tag"] = meta["e_tag"]
        if meta["version"] is not None:
            version["version"] = meta["version"]
        return Versioned(data, version)

    def read_start(self, key: str, size: int) -> tuple[bytes, int]:
        """The first `size` bytes, or all if there are fewer, and the whole object's size.

        Raises:
            ContentMissing, StoreUnavailable: see `pipeline.media.errors`.
        """
        try:
            whole = obstore.head(self.raw, key)["size"]
            length = min(size, whole)
            start = bytes(obstore.get_range(self.raw, key, start=0, length=length)) if length else b""
        except FileNotFoundError as error:
            raise ContentMissing(f"{key} is not in {self.base}") from error
        except _OUTAGE as error:
            raise self._unavailable("get", key, error) from error
        return start, whole

    def modified(self, key: str) -> datetime:
        """When it was last put, in UTC. Raises ContentMissing, StoreUnavailable."""
        try:
            return obstore.head(self.raw, key)["last_modified"]
        except FileNotFoundError as error:
            raise ContentMissing(f"{key} is not in {self.base}") from error
        except _OUTAGE as error:
            raise self._unavailable("head", key, error) from error

    def swap(self, key: str, data: bytes, seen: Versioned) -> None:
        """Replace what was `seen`, or nothing. On local disk only safe against others that hold `locked`.

        Raises:
            Superseded, StoreUnavailable: nothing was written.
        """
        if seen.version is None:
            try:
                current = self.read(key)
            except ContentMissing as error:
                raise Superseded(f"{key} is no longer in {self.base}") from error
            if current != seen.data:
                raise Superseded(f"{key} in {self.base} was changed")
            self.replace(key, data)
            return
        try:
            obstore.put(self.raw, key, data, mode=seen.version)
        except (PreconditionError, FileNotFoundError) as error:
            raise Superseded(f"{key} in {self.base} was changed") from error
        except _OUTAGE as error:
            raise self._unavailable("put", key, error) from error

    def list(self, prefix: str) -> Iterator[StoredObject]:
        """All objects whose key begins with the path segments of `prefix`, in no order. Raises StoreUnavailable."""
        try:
            for chunk in obstore.list(self.raw, prefix or None):
                for meta in chunk:
                    yield StoredObject(meta["path"], meta["size"], meta["last_modified"])
        except _OUTAGE as error:
            raise self._unavailable("list", prefix, error) from error

    def delete(self, key: str) -> None:
        """Remove it; that it is not there is fine. Raises StoreUnavailable, also for an object under a lock."""
        try:
            obstore.delete(self.raw, key)
        except FileNotFoundError:
            return
        except _OUTAGE as error:
            raise self._unavailable("delete", key, error) from error

    def sync(self, key: str) -> None:
        """Local disk: what was put outlives a power cut. Object stores promise that with their answer."""
        if not isinstance(self.raw, LocalStore) or self.raw.prefix is None:
            return
        path = Path(self.raw.prefix) / key
        try:
            for each in (path, path.parent):
                handle = os.open(each, os.O_RDONLY)
                try:
                    os.fsync(handle)
                finally:
                    os.close(handle)
        except OSError as error:
            raise self._unavailable("sync", key, error) from error

    @contextmanager
    def locked(self) -> Iterator[None]:
        """Local disk: alone among all processes of this machine. Elsewhere `swap` needs no lock: nothing is done."""
        if not isinstance(self.raw, LocalStore) or self.raw.prefix is None:
            yield
            return
        try:
            handle = os.open(Path(self.raw.prefix) / _LOCK_FILE, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        except OSError as error:
            raise self._unavailable("lock", _LOCK_FILE, error) from error
        try:
            fcntl.flock(handle, fcntl.LOCK_EX)
            yield
        finally:
            os.close(handle)

    def _unavailable(self, what: str, key: str, error: Exception) -> StoreUnavailable:
        return StoreUnavailable(f"cannot {what} {key} in {self.base}: {_first_line(error)}")


def open_objects(url: str, options: Mapping[str, str] | None = None) -> tuple[ObjectStore, str]:
    """The store behind a URL, and the URL that its objects' names are appended to.

    Raises:
        ValueError: the URL names no known kind of store.
        StoreUnavailable: the directory cannot be made.
    """
    match urlsplit(url).scheme:
        case "memory":
            return MemoryStore(), "memory://"
        case "file":
            return _open_directory(url)
        case "s3" | "gs" | "az" as scheme:
            return _open_bucket(url.rstrip("/"), scheme, options or {})
        case _:
            raise ValueError(f"store {url!r}: expected file:///dir, s3://, gs://, az:// or memory://")


def _open_directory(url: str) -> tuple[ObjectStore, str]:
    split = urlsplit(url)
    path = unquote(split.path)
    if split.netloc not in ("", "localhost") or not path.startswith("/"):
        raise ValueError(f"store {url!r}: expected file:///absolute/directory")
    directory = Path(path).resolve()
    try:
        directory.mkdir(parents=True, exist_ok=True)
        return LocalStore(directory), directory.as_uri()
    except (BaseError, OSError) as error:
        raise StoreUnavailable(f"cannot use the directory {directory}: {_first_line(error)}") from error


def _open_bucket(url: str, scheme: str, options: Mapping[str, str]) -> tuple[ObjectStore, str]:
    # S3 refuses a damaged body by this digest, and a bucket with Object Lock refuses a put without one.
    # obstore has no such option for gs:// and az://; there TLS and the digest at every read remain.
    checked = {"checksum_algorithm": "SHA256"} if scheme == "s3" else {}
    config: Any = {**checked, **options}
    plain_http = options.get("endpoint", "").startswith("http://")
    store = from_url(
        url,
        config=config,
        client_options={"timeout": timedelta(seconds=_REQUEST_TIMEOUT_S), "allow_http": plain_http},
        retry_config={"max_retries": _RETRIES, "retry_timeout": timedelta(seconds=_REQUEST_TIMEOUT_S)},
    )
    return store, url


def _first_line(error: Exception) -> str:
    return f"{type(error).__name__}: {str(error).splitlines()[0][:256]}" if str(error) else type(error).__name__
