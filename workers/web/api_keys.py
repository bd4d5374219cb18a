"""API keys in a file: what is kept of a key is its digest.

A key is `msk_ID_SECRET` with 256 random bits in SECRET, hence one SHA-256 is enough: nobody can guess its input, and a
slow hash would only serve those who want to keep us busy. The file is written anew and renamed at each change; a
process that reads it sees the change at the next request.
"""

from __future__ import annotations

import fcntl
import hashlib
import hmac
import os
import re
import secrets
import stat
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from schemas.types import Identifier, Sha256, ShortText, Timestamp
from workers.web.principal import Limits, Principal, Role

_KEY = re.compile(r"msk_([a-z0-9]{12})_([A-Za-z0-9_-]{43})")
KEY_PREFIX = "msk_"
KeyId = Annotated[str, Field(pattern=r"^[a-z0-9]{12}$")]


class KeyFileInvalid(Exception):
    """The file of API keys cannot be used; the text names it and what is wrong."""


class UnknownKey(Exception):
    """No key has this id."""


class ApiKey(BaseModel):
    """One entry of the file. `tenants` None: all of them."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    id: KeyId
    sha256: Sha256
    note: ShortText = ""
    tenants: frozenset[Identifier] | None
    roles: Annotated[frozenset[Role], Field(min_length=1)]
    limits: Limits = Limits()
    created_at: Timestamp
    expires_at: Timestamp | None = None
    revoked_at: Timestamp | None = None

    def ended(self, now: datetime) -> bool:
        """Revoked, or its time is over."""
        return self.revoked_at is not None or (self.expires_at is not None and self.expires_at <= now)

    @property
    def principal(self) -> Principal:
        """Whom the key stands for."""
        return Principal(f"key:{self.id}", self.tenants, self.roles, self.limits, self.expires_at)


class KeyFile(BaseModel):
    """The file's whole content."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    version: Annotated[int, Field(ge=1, le=1)] = 1
    keys: tuple[ApiKey, ...] = ()


@dataclass(slots=True)
class ApiKeys:
    """The keys in one file. Thread-safe."""

    path: Path
    _seen: tuple[tuple[int, int, int], dict[str, ApiKey]] | None = field(default=None, init=False)

    def principal(self, key: str, now: datetime) -> Principal | None:
        """Whom the key stands for; None when it is unknown, revoked or expired.

        Raises:
            KeyFileInvalid: the file cannot be read.
        """
        match = _KEY.fullmatch(key)
        found = self._by_id().get(match[1]) if match else None
        if found is None or not hmac.compare_digest(digest(key), found.sha256) or found.ended(now):
            return None
        return found.principal

    def all(self) -> tuple[ApiKey, ...]:
        """Every entry in order, revoked ones too. Raises KeyFileInvalid."""
        return tuple(self._by_id().values())

    def create(
        self,
        *,
        tenants: frozenset[str] | None,
        roles: frozenset[Role],
        now: datetime,
        limits: Limits | None = None,
        note: str = "",
        expires_at: datetime | None = None,
    ) -> tuple[ApiKey, str]:
        """A new entry, and the key, which is not kept: show it once. Raises KeyFileInvalid."""
        key_id, secret = secrets.token_hex(6), secrets.token_urlsafe(32)
        text = f"{KEY_PREFIX}{key_id}_{secret}"
        entry = ApiKey(
            id=key_id,
            sha256=digest(text),
            note=note,
            tenants=tenants,
            roles=roles,
            limits=limits or Limits(),
            created_at=now,
            expires_at=expires_at,
        )
        self._change(lambda kept: (*kept, entry), may_be_missing=True)
        return entry, text

    def revoke(self, key_id: str, now: datetime) -> ApiKey:
        """The key is refused from the next request on. Raises KeyFileInvalid, UnknownKey."""
        if key_id not in self._by_id():
            raise UnknownKey(f"{self.path}: no key {key_id!r}; `mediasieve apikeys list` names them")
        ended = {"revoked_at": now}
        self._change(
            lambda kept: tuple(
                key.model_copy(update=ended) if key.id == key_id and key.revoked_at is None else key for key in kept
            )
        )
        return self._by_id()[key_id]

    def _by_id(self) -> dict[str, ApiKey]:
        try:
            found = self.path.stat()
        except OSError as error:
            raise KeyFileInvalid(
                f"{self.path}: {error.strerror}; `mediasieve apikeys create` makes it (access.api_keys names it)"
            ) from error
        stamp = (found.st_ino, found.st_mtime_ns, found.st_size)
        seen = self._seen
        if seen is None or seen[0] != stamp:
            seen = self._seen = (stamp, {key.id: key for key in _read(self.path).keys})
        return seen[1]

    def _change(
        self, change: Callable[[tuple[ApiKey, ...]], tuple[ApiKey, ...]], *, may_be_missing: bool = False
    ) -> None:
        with _locked(self.path):
            old = KeyFile() if may_be_missing and not self.path.exists() else _read(self.path)
            _replace(self.path, KeyFile(keys=change(old.keys)).model_dump_json(indent=1).encode() + b"\n")


def digest(key: str) -> str:
    """What the file holds of a key."""
    return hashlib.sha256(key.encode()).hexdigest()


def _read(path: Path) -> KeyFile:
    try:
        return KeyFile.model_validate_json(path.read_bytes())
    except OSError as error:
        raise KeyFileInvalid(f"{path}: {error.strerror}") from error
    except ValidationError as error:
        faults = "; ".join(f"{'.'.join(map(str, e['loc'])) or 'file'}: {e['msg']}" for e in error.errors()[:3])
        raise KeyFileInvalid(f"{path}: not a file of API keys: {faults}; restore it or create keys anew") from error


@contextmanager
def _locked(path: Path) -> Iterator[None]:
    """One writer at a time, across processes; the lock is a file of its own because `path` is replaced."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        lock = os.open(path.with_name(f".{path.name}.lock"), os.O_CREAT | os.O_RDWR | os.O_CLOEXEC, 0o600)
    except OSError as error:
        raise KeyFileInvalid(f"{path}: cannot be written: {error.strerror}") from error
    try:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield
    finally:
        os.close(lock)


def _replace(path: Path, data: bytes) -> None:
    """Whole or not at all; who may read the file stays as it is, and of a new one it is the owner alone."""
    path = path.resolve()  # where it is a link, its target
    try:
        descriptor, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")  # mode 0600
    except OSError as error:
        raise KeyFileInvalid(f"{path}: cannot be written: {error.strerror}") from error
    try:
        with os.fdopen(descriptor, "wb") as file:
            _as_before(path, file.fileno())
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        os.replace(name, path)
    except BaseException as error:
        Path(name).unlink(missing_ok=True)
        if isinstance(error, OSError):
            raise KeyFileInvalid(f"{path}: cannot be written: {error.strerror}") from error
        raise


def _as_before(path: Path, new: int) -> None:
    """Owner and mode of the file that is replaced. Raises OSError where they cannot be given."""
    try:
        old = path.stat()
    except FileNotFoundError:
        return
    if (old.st_uid, old.st_gid) != ((made := os.fstat(new)).st_uid, made.st_gid):
        os.fchown(new, old.st_uid, old.st_gid)
    os.fchmod(new, stat.S_IMODE(old.st_mode))
