"""Original bytes and evidence, each under its own digest, in an object store or a directory.

Contents lie at `content/{tenant}/{sha256}` inside a versioned envelope; evidence lies as it is, so that any
viewer opens it, at `evidence/{sha256}{suffix}`. Nothing is changed once put, every read is verified.

Envelope: `MSV1`, the header's length as a big-endian uint32, the header as JSON, the payload. The header's
`alg` names how the payload is encrypted; `none` is the only one so far.
"""

from __future__ import annotations

import hashlib
import json
import re
import struct
from collections.abc import Mapping
from datetime import timedelta
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit

import obstore
from obstore.exceptions import AlreadyExistsError, BaseError
from obstore.store import LocalStore, MemoryStore, ObjectStore, from_url
from pydantic import TypeAdapter

from pipeline.media.errors import ContentCorrupt, ContentMissing, StoreUnavailable
from schemas.types import Identifier, Sha256

_MAGIC = b"MSV1"
_PREFIX = struct.Struct(">4sI")
_MAX_HEADER_BYTES = 65_536
_VERSION = 1
_SUFFIX = re.compile(r"(\.[a-z0-9]{1,16}){0,2}")
_EVIDENCE_KEY = re.compile(r"evidence/([0-9a-f]{64})(\.[a-z0-9]{1,16}){0,2}")
_CONTENT_KEY = re.compile(r"content/([^/]+)/([0-9a-f]{64})")
_TENANT: TypeAdapter[str] = TypeAdapter(Identifier)
_SHA256: TypeAdapter[str] = TypeAdapter(Sha256)
_REQUEST_TIMEOUT_S = 30
_RETRIES = 3


class ContentStore:
    """Put-if-absent by digest; safe for any number of threads and processes.

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
        self._store, self._base = _open(url, options)

    def put(self, tenant: str, sha256: str, data: bytes) -> str:
        """Keep `data`, whose digest the caller knows. Returns the URI for `get_uri`.

        Raises:
            ValueError: a malformed tenant or digest, or a digest that is not the data's.
            StoreUnavailable: not kept; try again later.
        """
        key = _content_key(tenant, sha256)
        if hashlib.sha256(data).hexdigest() != sha256:
            raise ValueError(f"sha256 {sha256} is not the digest of the data")
        self._create(key, _seal(sha256, data))
        return f"{self._base}/{key}"

    def get(self, tenant: str, sha256: str) -> bytes:
        """The bytes that were put.

        Raises:
            ValueError: a malformed tenant or digest.
            ContentMissing, ContentCorrupt, StoreUnavailable: see `pipeline.media.errors`.
        """
        key = _content_key(tenant, sha256)
        return _unseal(self._read(key), sha256, key)

    def put_evidence(self, data: bytes, suffix: str) -> tuple[str, str]:
        """Keep `data` under its own digest and a suffix such as `.png`. Returns its URI and digest.

        Raises:
            ValueError: a malformed suffix.
            StoreUnavailable: not kept; try again later.
        """
        if not _SUFFIX.fullmatch(suffix):
            raise ValueError(f"suffix {suffix!r}: expected '' or one or two like '.png', in lower case")
        sha256 = hashlib.sha256(data).hexdigest()
        key = f"evidence/{sha256}{suffix}"
        self._create(key, data)
        return f"{self._base}/{key}", sha256

    def get_evidence(self, uri: str, sha256: str) -> bytes:
        """The evidence at `uri`, verified against the digest that a record holds beside it.

        Raises:
            ValueError: the URI is not of this store.
            ContentMissing, ContentCorrupt, StoreUnavailable: see `pipeline.media.errors`.
        """
        data = self.get_uri(uri)
        if hashlib.sha256(data).hexdigest() != sha256:
            raise ContentCorrupt(f"{uri} does not have the digest {sha256}")
        return data

    def get_uri(self, uri: str) -> bytes:
        """What `put` or `put_evidence` returned this URI for, verified against the digest in its name.

        Raises:
            ValueError: the URI is not of this store.
            ContentMissing, ContentCorrupt, StoreUnavailable: see `pipeline.media.errors`.
        """
        key = uri.removeprefix(f"{self._base}/")
        if content := _CONTENT_KEY.fullmatch(key):
            return self.get(content[1], content[2])
        evidence = _EVIDENCE_KEY.fullmatch(key)
        if evidence is None or key == uri:
            raise ValueError(f"{uri!r} is not a URI of the store {self._base}")
        data = self._read(key)
        if hashlib.sha256(data).hexdigest() != evidence[1]:
            raise ContentCorrupt(f"{key} does not have the digest in its name")
        return data

    def _create(self, key: str, blob: bytes) -> None:
        try:
            obstore.put(self._store, key, blob, mode="create")
        except AlreadyExistsError:
            self._heal(key, blob)
        except (BaseError, OSError, ValueError) as error:
            raise StoreUnavailable(f"cannot put {key} into {self._base}: {_first_line(error)}") from error

    def _heal(self, key: str, blob: bytes) -> None:
        """Replace an object of the wrong size: a power cut can leave a linked file without its data."""
        try:
            if obstore.head(self._store, key)["size"] != len(blob):
                obstore.put(self._store, key, blob, mode="overwrite", use_multipart=False)
        except (BaseError, OSError, ValueError) as error:
            raise StoreUnavailable(f"cannot check {key} in {self._base}: {_first_line(error)}") from error

    def _read(self, key: str) -> bytes:
        try:
            return bytes(obstore.get(self._store, key).bytes())
        except FileNotFoundError as error:
            raise ContentMissing(f"{key} is not in {self._base}") from error
        except (BaseError, OSError, ValueError) as error:
            raise StoreUnavailable(f"cannot get {key} from {self._base}: {_first_line(error)}") from error


def _content_key(tenant: str, sha256: str) -> str:
    return f"content/{_TENANT.validate_python(tenant)}/{_SHA256.validate_python(sha256)}"


def _seal(sha256: str, data: bytes) -> bytes:
    fields = {"v": _VERSION, "alg": "none", "sha256": sha256, "bytes": len(data)}
    header = json.dumps(fields, separators=(",", ":")).encode()
    return b"".join((_PREFIX.pack(_MAGIC, len(header)), header, data))


def _unseal(blob: bytes, sha256: str, key: str) -> bytes:
    header, payload_at = _header(blob, key)
    version, alg = header.get("v"), header.get("alg")
    if (version, alg) != (_VERSION, "none"):
        # A newer release wrote it: waiting for the upgrade loses nothing, a verdict of corruption would.
        raise StoreUnavailable(f"{key} has envelope version {version!r} and alg {alg!r}: upgrade this worker")
    data = blob[payload_at:]
    if header.get("sha256") != sha256 or header.get("bytes") != len(data):
        raise ContentCorrupt(f"{key}: the envelope does not fit its name or its length")
    if hashlib.sha256(data).hexdigest() != sha256:
        raise ContentCorrupt(f"{key} does not have the digest in its name")
    return data


def _header(blob: bytes, key: str) -> tuple[dict[str, Any], int]:
    try:
        magic, header_bytes = _PREFIX.unpack_from(blob)
        end = _PREFIX.size + header_bytes
        if magic != _MAGIC or header_bytes > _MAX_HEADER_BYTES or end > len(blob):
            raise ContentCorrupt(f"{key} does not begin with an envelope")
        header = json.loads(blob[_PREFIX.size : end])
    except (struct.error, ValueError) as error:
        raise ContentCorrupt(f"{key} does not begin with an envelope") from error
    if not isinstance(header, dict):
        raise ContentCorrupt(f"{key} does not begin with an envelope")
    return header, end


def _open(url: str, options: Mapping[str, str] | None) -> tuple[ObjectStore, str]:
    split = urlsplit(url)
    match split.scheme:
        case "memory":
            return MemoryStore(), "memory://"
        case "file":
            return _open_directory(url)
        case "s3" | "gs" | "az":
            return _open_bucket(url.rstrip("/"), options or {})
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


def _open_bucket(url: str, options: Mapping[str, str]) -> tuple[ObjectStore, str]:
    config: Any = dict(options)
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
