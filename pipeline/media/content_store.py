"""Original bytes and evidence, each under tenant and digest, in an object store or a directory.

Contents lie at `content/{tenant}/{sha256}`, evidence at `evidence/{tenant}/{sha256}{suffix}`. With a key store both lie
encrypted in an envelope, under a key of their own (see `envelope` and `key_store`). Without one, contents lie in a
plain envelope, and evidence as it is, so that any viewer opens it. Digests are of the plain bytes; every read is
verified. Nothing is changed once put, but what can be read no longer is replaced when it is put again.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterator, Mapping
from datetime import UTC, datetime, timedelta
from functools import partial

from pydantic import TypeAdapter

from pipeline.media import envelope
from pipeline.media.envelope import Subject
from pipeline.media.errors import ContentCorrupt, ContentErased, ContentMissing, StoreUnavailable
from pipeline.media.key_store import DataKey, KeyStore
from pipeline.media.objects import Objects, StoredObject
from pipeline.media.store_settings import StoreSettings
from schemas.types import Identifier, Sha256

_SUFFIX = re.compile(r"(\.[a-z0-9]{1,16}){0,2}")
_EVIDENCE_KEY = re.compile(r"evidence/(?:([^/]+)/)?([0-9a-f]{64})(\.[a-z0-9]{1,16}){0,2}")
_CONTENT_KEY = re.compile(r"content/([^/]+)/([0-9a-f]{64})")
_TENANT: TypeAdapter[str] = TypeAdapter(Identifier)
_SHA256: TypeAdapter[str] = TypeAdapter(Sha256)
_PROBE = "probe"
FRESH_FOR = timedelta(hours=1)
"""An object that comes again is put again once it is that old: its age is off by that much at most."""


def open_store(settings: StoreSettings) -> ContentStore:
    """The store that the settings describe, with its keys.

    Raises:
        MasterKeyError: a master key's file cannot be used.
        ValueError: a URL names no known kind of store.
        StoreUnavailable: a directory cannot be made.
    """
    keys = KeyStore.open(settings.keys) if settings.keys is not None else None
    return ContentStore(settings.url, settings.options, keys)


class ContentStore:
    """Put-if-absent by tenant and digest; safe for any number of threads and processes."""

    def __init__(self, url: str, options: Mapping[str, str] | None = None, keys: KeyStore | None = None) -> None:
        """See `Objects` for URL, options and what is raised. `keys` None: what is put is not encrypted."""
        self.objects = Objects(url, options)
        self.keys = keys

    def put(self, tenant: str, sha256: str, data: bytes) -> str:
        """Keep `data`, whose digest the caller knows. Returns the URI for `get_uri`.

        Raises:
            ValueError: a malformed tenant or digest, or a digest that is not the data's.
            StoreUnavailable: not kept; try again later.
        """
        name = _content_key(tenant, sha256)
        if hashlib.sha256(data).hexdigest() != sha256:
            raise ValueError(f"sha256 {sha256} is not the digest of the data")
        self._keep(name, Subject(tenant, sha256), data, bare=False)
        return self._uri(name)

    def get(self, tenant: str, sha256: str) -> bytes:
        """The bytes that were put.

        Raises:
            ValueError: a malformed tenant or digest.
            ContentMissing, ContentErased, ContentCorrupt, StoreUnavailable: see `pipeline.media.errors`.
        """
        name = _content_key(tenant, sha256)
        return self._open(self._read(name, tenant, sha256), tenant, sha256, name)

    def content_uri(self, tenant: str, sha256: str) -> str:
        """What `put` returns, whether the object is there or not. Raises ValueError."""
        return self._uri(_content_key(tenant, sha256))

    def put_evidence(self, tenant: str, data: bytes, suffix: str) -> tuple[str, str]:
        """Keep `data` under its own digest and a suffix such as `.png`. Returns its URI and digest.

        Raises:
            ValueError: a malformed tenant or suffix.
            StoreUnavailable: not kept; try again later.
        """
        if not _SUFFIX.fullmatch(suffix):
            raise ValueError(f"suffix {suffix!r}: expected '' or one or two like '.png', in lower case")
        sha256 = hashlib.sha256(data).hexdigest()
        name = f"evidence/{_TENANT.validate_python(tenant)}/{sha256}{suffix}"
        # Plain evidence that begins like an envelope gets one around it, or it would be read as one.
        self._keep(name, Subject(tenant, sha256), data, bare=not data.startswith(envelope.MAGIC))
        return self._uri(name), sha256

    def get_evidence(self, uri: str, sha256: str) -> bytes:
        """The evidence at `uri`, verified against the digest that a record holds beside it.

        Raises:
            ValueError: the URI is not of this store.
            ContentMissing, ContentErased, ContentCorrupt, StoreUnavailable: see `pipeline.media.errors`.
        """
        name = self.key_of(uri)
        named = _CONTENT_KEY.fullmatch(name) or _EVIDENCE_KEY.fullmatch(name)
        if named is None or named[2] != sha256:
            raise ContentCorrupt(f"{uri} does not have the digest {sha256}")
        return self.get_uri(uri)

    def get_uri(self, uri: str) -> bytes:
        """What `put` or `put_evidence` returned this URI for, verified against the digest in its name.

        Raises:
            ValueError: the URI is not of this store.
            ContentMissing, ContentErased, ContentCorrupt, StoreUnavailable: see `pipeline.media.errors`.
        """
        name = self.key_of(uri)
        if content := _CONTENT_KEY.fullmatch(name):
            return self.get(content[1], content[2])
        evidence = _EVIDENCE_KEY.fullmatch(name)
        assert evidence is not None  # noqa: S101 - key_of saw to it
        blob = self._read(name, evidence[1], evidence[2])
        if evidence[1] is not None and blob.startswith(envelope.MAGIC):
            return self._open(blob, evidence[1], evidence[2], name)
        if hashlib.sha256(blob).hexdigest() != evidence[2]:
            raise ContentCorrupt(f"{name} does not have the digest in its name")
        return blob

    def key_of(self, uri: str) -> str:
        """The object's name in this store, for `delete`, locks and listings.

        Raises:
            ValueError: the URI is not of this store.
        """
        name = uri.removeprefix(f"{self.objects.base}/")
        if name == uri or not (_CONTENT_KEY.fullmatch(name) or _EVIDENCE_KEY.fullmatch(name)):
            raise ValueError(f"{uri!r} is not a URI of the store {self.objects.base}")
        return name

    def list_objects(self, prefix: str) -> Iterator[StoredObject]:
        """Everything below `content` or `evidence[/{tenant}]`, in no order. Raises StoreUnavailable."""
        return self.objects.list(prefix)

    def delete(self, key: str) -> None:
        """Remove an object; that it is not there is fine. Raises StoreUnavailable, also when a lock holds it."""
        self.objects.delete(key)

    def probe(self) -> None:
        """Ask whether something can be put now, in the key store too. Raises StoreUnavailable."""
        self.objects.replace(_PROBE, b"mediasieve asks whether the store is there\n")
        if self.keys is not None:
            self.keys.probe()

    def _uri(self, name: str) -> str:
        return f"{self.objects.base}/{name}"

    def _keep(self, name: str, subject: Subject, data: bytes, *, bare: bool) -> None:
        """Seal and put. Without keys in a plain envelope, or `bare` as it is."""
        if self.keys is None:
            self._create(name, data if bare else envelope.seal(subject, data, None), None)
            return
        while True:
            key = self.keys.create(subject.tenant, subject.sha256)
            self._create(name, envelope.seal(subject, data, key), key)
            # An erasure may have destroyed the key before the object was there: then it is sealed under the next.
            if self.keys.lives(subject.tenant, subject.sha256, key.generation):
                return

    def _read(self, name: str, tenant: str | None, sha256: str) -> bytes:
        try:
            return self.objects.read(name)
        except ContentMissing as error:
            if self.keys is not None and tenant is not None and self.keys.state(tenant, sha256) == "destroyed":
                raise ContentErased(f"erased: the keys of {name} were destroyed") from error
            raise

    def _open(self, blob: bytes, tenant: str, sha256: str, name: str) -> bytes:
        get_key = partial(self.keys.get, tenant, sha256) if self.keys is not None else None
        return envelope.unseal(blob, Subject(tenant, sha256), name, get_key)

    def _create(self, name: str, blob: bytes, key: DataKey | None) -> None:
        if self.objects.create(name, blob):
            return
        if not self._is_readable(name, len(blob), key) or self._is_old(name):
            self.objects.replace(name, blob)

    def _is_old(self, name: str) -> bool:
        """Put again, it is made young again: erasing by age leaves what may be needed by an item on its way."""
        try:
            return datetime.now(UTC) - self.objects.modified(name) > FRESH_FOR
        except ContentMissing:
            return True  # deleted since

    def _is_readable(self, name: str, size: int, key: DataKey | None) -> bool:
        """False for an object without its data, as a power cut may leave one, or under a key that was destroyed.

        Raises:
            StoreUnavailable: it is encrypted and no key store is configured here.
        """
        try:
            start, found = self.objects.read_start(name, envelope.HEADER_BYTES)
            header = envelope.read_header(start, name, found)
        except ContentMissing:
            return False  # deleted since
        except ContentCorrupt:
            return key is None and found == size
        if key is None and header.alg != envelope.PLAIN:
            raise StoreUnavailable(f"{name} is encrypted and no key store is configured here: set store.keys")
        return found == size and header.generation == (key.generation if key is not None else None)


def _content_key(tenant: str, sha256: str) -> str:
    return f"content/{_TENANT.validate_python(tenant)}/{_SHA256.validate_python(sha256)}"
