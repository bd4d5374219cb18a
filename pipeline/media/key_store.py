"""A key of its own for every tenant's copy of every object: destroying the key erases the copy, wherever it lies.

A key lies wrapped at `keys/{tenant}/{sha256 of the plaintext}/{generation}`. Keys are made by put-if-absent, so two
writers of the same content use the same key. A destroyed key is a tombstone for ever; content that comes again
gets the next generation.
"""

from __future__ import annotations

import base64
import os
from dataclasses import dataclass, field
from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, TypeAdapter, ValidationError

from pipeline.media.errors import ContentCorrupt, ContentErased, ContentMissing, StoreUnavailable
from pipeline.media.master_keys import KEY_BYTES, MasterKeys
from pipeline.media.objects import Objects, Superseded, Versioned
from pipeline.media.store_settings import KeySettings
from schemas.types import Identifier, Sha256

_TENANT: TypeAdapter[str] = TypeAdapter(Identifier)
_SHA256: TypeAdapter[str] = TypeAdapter(Sha256)
_PREFIX = "keys"


@dataclass(frozen=True, slots=True)
class DataKey:
    """The key of one object. `generation` counts how often the object was erased before."""

    generation: int
    secret: bytes = field(repr=False)


@dataclass(frozen=True, slots=True)
class Rewrapped:
    """What `rewrap` found: keys wrapped anew, those already under the current master key, and tombstones."""

    changed: int
    current: int
    destroyed: int


class _Live(BaseModel):
    model_config = ConfigDict(frozen=True)

    v: Literal[1] = 1
    state: Literal["live"] = "live"
    master: str
    check: str
    wrapped: str


class _Destroyed(BaseModel):
    model_config = ConfigDict(frozen=True)

    v: Literal[1] = 1
    state: Literal["destroyed"] = "destroyed"


_RECORD: TypeAdapter[_Live | _Destroyed] = TypeAdapter(Annotated[_Live | _Destroyed, Field(discriminator="state")])
_TOMBSTONE = _Destroyed().model_dump_json().encode()


class KeyStore:
    """Safe for any number of threads and processes. Nothing is cached: a destroyed key opens nothing from then on."""

    def __init__(self, objects: Objects, masters: MasterKeys) -> None:
        """`objects` must keep no old versions, or what is destroyed can be brought back."""
        self._objects = objects
        self._masters = masters

    @classmethod
    def open(cls, settings: KeySettings) -> KeyStore:
        """Raises MasterKeyError, StoreUnavailable, or ValueError for an unknown kind of store."""
        return cls(Objects(settings.url, settings.options), MasterKeys.load(settings))

    @property
    def base(self) -> str:
        """Where the keys lie, for messages."""
        return self._objects.base

    def create(self, tenant: str, sha256: str) -> DataKey:
        """The object's key, made if there is none that lives.

        Raises:
            ValueError: a malformed tenant or digest.
            StoreUnavailable: no key was made; try again later.
        """
        generation = 0
        while True:
            name = _name(tenant, sha256, generation)
            secret = os.urandom(KEY_BYTES)
            if self._objects.create(name, self._wrapped(secret, name)):
                self._objects.sync(name)
                return DataKey(generation, secret)
            try:
                return DataKey(generation, self._secret(name))
            except (ContentErased, ContentCorrupt):
                generation += 1  # that key opens nothing any more: the content that comes now gets the next

    def get(self, tenant: str, sha256: str, generation: int) -> bytes:
        """The 32 bytes of a key.

        Raises:
            ValueError: a malformed tenant or digest.
            ContentErased: it was destroyed.
            ContentMissing, ContentCorrupt, StoreUnavailable: see `pipeline.media.errors`.
        """
        return self._secret(_name(tenant, sha256, generation))

    def destroy(self, tenant: str, sha256: str) -> bool:
        """Leave tombstones where there are keys of the object. False: none lived.

        Raises:
            ValueError: a malformed tenant or digest.
            StoreUnavailable: some may still live; do it again.
        """
        destroyed = False
        with self._objects.locked():
            for name in self._generations(tenant, sha256):
                if not self._is_tombstone(name):
                    self._objects.replace(name, _TOMBSTONE)
                    self._objects.sync(name)
                    destroyed = True
        return destroyed

    def state(self, tenant: str, sha256: str) -> Literal["live", "destroyed", "none"]:
        """What became of the object's key, as `explain` and `retention` show it. Raises as `get` does."""
        names = self._generations(tenant, sha256)
        if not names:
            return "none"
        return "destroyed" if all(map(self._is_tombstone, names)) else "live"

    def lives(self, tenant: str, sha256: str, generation: int) -> bool:
        """Whether that generation of the key opens what it sealed. Raises ValueError, StoreUnavailable."""
        try:
            self.get(tenant, sha256, generation)
        except (ContentMissing, ContentCorrupt):
            return False
        return True

    def rewrap(self, tenant: str | None = None) -> Rewrapped:
        """Wrap every key, or one tenant's, under the current master key. May be stopped and run again at any time.

        Raises:
            ContentCorrupt: a key does not open; those before it are done.
            StoreUnavailable: a master key is missing, or the store is down.
        """
        counts = {"changed": 0, "current": 0, "destroyed": 0}
        prefix = f"{_PREFIX}/{_TENANT.validate_python(tenant)}" if tenant is not None else _PREFIX
        for listed in self._objects.list(prefix):
            counts[self._rewrap_one(listed.key)] += 1
        return Rewrapped(**counts)

    def probe(self) -> None:
        """Ask whether something can be put now. Raises StoreUnavailable."""
        self._objects.replace("probe", b"mediasieve asks whether the key store is there\n")

    def _rewrap_one(self, name: str) -> Literal["changed", "current", "destroyed"]:
        while True:
            # The lock, or the swap on object stores, keeps a key that is destroyed meanwhile from coming back.
            with self._objects.locked():
                seen = self._objects.read_versioned(name)
                record = _parse(seen, name)
                if isinstance(record, _Destroyed):
                    return "destroyed"
                if record.master == self._masters.current:
                    return "current"
                secret = self._masters.unwrap(_decoded(record, name), name, record.master, record.check)
                try:
                    self._objects.swap(name, self._wrapped(secret, name), seen)
                except Superseded:
                    continue
                self._objects.sync(name)
                return "changed"

    def _generations(self, tenant: str, sha256: str) -> list[str]:
        """Names of all keys of the object, also of those behind one that was lost. Raises as `destroy`."""
        prefix = _name(tenant, sha256, 0).rpartition("/")[0]
        return sorted((found.key for found in self._objects.list(prefix)), key=lambda k: int(k.rpartition("/")[2]))

    def _is_tombstone(self, name: str) -> bool:
        try:
            return isinstance(_parse(self._objects.read_versioned(name), name), _Destroyed)
        except ContentCorrupt:
            return False

    def _secret(self, name: str) -> bytes:
        try:
            record = _parse(self._objects.read_versioned(name), name)
        except ContentMissing as error:
            raise ContentMissing(f"its key {name} is not in {self.base}") from error
        if isinstance(record, _Destroyed):
            raise ContentErased(f"erased: {name} was destroyed")
        return self._masters.unwrap(_decoded(record, name), name, record.master, record.check)

    def _wrapped(self, secret: bytes, name: str) -> bytes:
        wrapped = base64.b64encode(self._masters.wrap(secret, name)).decode()
        master = self._masters.current
        return _Live(master=master, check=self._masters.check(master), wrapped=wrapped).model_dump_json().encode()


def _name(tenant: str, sha256: str, generation: int) -> str:
    return f"{_PREFIX}/{_TENANT.validate_python(tenant)}/{_SHA256.validate_python(sha256)}/{generation}"


def _parse(seen: Versioned, name: str) -> _Live | _Destroyed:
    try:
        return _RECORD.validate_json(seen.data)
    except ValidationError as error:
        if any(fault["loc"][-1:] == ("v",) for fault in error.errors()):
            raise StoreUnavailable(f"{name} is of a newer version: upgrade this worker") from error
        raise ContentCorrupt(f"{name} is not a wrapped key") from error


def _decoded(record: _Live, name: str) -> bytes:
    try:
        return base64.b64decode(record.wrapped, validate=True)
    except ValueError as error:
        raise ContentCorrupt(f"{name} is not a wrapped key") from error
