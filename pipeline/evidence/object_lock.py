"""S3 Object Lock: evidence that nobody, the operator included, can delete before its time.

COMPLIANCE mode: neither an account's root nor AWS shortens it. A legal hold is a second, independent lock. Both
need a bucket made with Object Lock, hence with versioning; other stores have no such thing.
https://docs.aws.amazon.com/AmazonS3/latest/userguide/object-lock.html

Keys are relative to the store's URL, as in `content/{tenant}/{sha256}`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from functools import partial
from typing import Any, Protocol, TypeVar
from urllib.parse import urlsplit

import structlog

from pipeline.media.errors import StoreUnavailable

log = structlog.get_logger(__name__)

_COMPLIANCE = "COMPLIANCE"
_NONE_SET = frozenset({"NoSuchObjectLockConfiguration", "ObjectLockConfigurationNotFoundError"})
_ABSENT = frozenset({"NoSuchKey", "NoSuchVersion", "MethodNotAllowed"})
"""What S3 says of a name without an object; `MethodNotAllowed` of one behind a delete marker."""
_CONNECT_TIMEOUT_S, _READ_TIMEOUT_S, _ATTEMPTS = 5, 30, 3
_CHECKSUM = "SHA256"

T = TypeVar("T")


class ObjectLockMissing(Exception):
    """The library for it is not installed, or production mode and a store without it; the text says the way out."""


@dataclass(frozen=True, slots=True)
class LockState:
    """`until` None: never locked. A time in the past locks nothing any more."""

    until: datetime | None = None
    held: bool = False

    def forbids(self, now: datetime) -> bool:
        """Whether the object's bytes cannot be deleted at `now`."""
        return self.held or (self.until is not None and now < self.until)


class ObjectLock(Protocol):
    """What retention needs of a store that can lock. All but `supports` raise StoreUnavailable."""

    def supports(self) -> bool:
        """Whether the store locks; the other methods need that."""

    def retain(self, key: str, until: datetime, now: datetime) -> None:
        """Lock in COMPLIANCE mode until then; never shortens, and a time that is over locks nothing.

        An object that is not there is logged and passed over: a decision may say that its content was missing.
        """

    def hold(self, key: str, *, on: bool) -> None:
        """Set or lift the legal hold of all versions. Lifting one that is not there is fine."""

    def state(self, key: str) -> LockState:
        """The strictest of what is set on any version: the latest time, any hold. Nothing where there is no object."""

    def starts(self, key: str, size: int) -> list[tuple[bytes, int]]:
        """The first `size` bytes of every version, each with the version's whole size."""

    def delete(self, key: str) -> None:
        """Delete the object with all its versions; one that is not there is fine."""


class NoObjectLock:
    """A directory, memory, or a bucket without Object Lock."""

    def supports(self) -> bool:
        """See ObjectLock."""
        return False

    def retain(self, key: str, until: datetime, now: datetime) -> None:
        """See ObjectLock."""
        raise _unsupported(key)

    def hold(self, key: str, *, on: bool) -> None:
        """See ObjectLock."""
        raise _unsupported(key)

    def state(self, key: str) -> LockState:
        """See ObjectLock."""
        raise _unsupported(key)

    def starts(self, key: str, size: int) -> list[tuple[bytes, int]]:
        """See ObjectLock."""
        raise _unsupported(key)

    def delete(self, key: str) -> None:
        """See ObjectLock."""
        raise _unsupported(key)


@dataclass(frozen=True, slots=True)
class _Version:
    """`named` are the arguments by which S3 knows it, `size` its bytes."""

    key: str
    named: dict[str, str]
    size: int


class S3ObjectLock:
    """The lock calls of one bucket. `client` is boto3's S3 client; it is safe for threads."""

    def __init__(self, client: Any, bucket: str, prefix: str = "") -> None:
        """`prefix` is the path of the store's URL in the bucket, without slashes at its ends."""
        self._client = client
        self._bucket = bucket
        self._prefix = f"{prefix}/" if prefix else ""
        self._supports = False

    def supports(self) -> bool:
        """Whether the bucket was made with Object Lock; a bucket never loses it. Raises StoreUnavailable."""
        if not self._supports:
            asked = self._call("bucket", lambda: self._client.get_object_lock_configuration(Bucket=self._bucket))
            self._supports = (asked or {}).get("ObjectLockConfiguration", {}).get("ObjectLockEnabled") == "Enabled"
        return self._supports

    def versioned(self) -> bool:
        """Whether old versions lie in the bucket. Raises StoreUnavailable."""
        asked = self._call("bucket", lambda: self._client.get_bucket_versioning(Bucket=self._bucket))
        return "Status" in (asked or {})

    def retain(self, key: str, until: datetime, now: datetime) -> None:
        """See ObjectLock."""
        if until <= now:
            return
        mode, current = self._retention(key, self._named(key))
        if current is not None and current >= until and mode == _COMPLIANCE:
            return
        # S3 keeps whole seconds: rounded up, so that what is read back is never shorter than what was wanted.
        latest = until if current is None else max(until, current)
        wanted = latest.replace(microsecond=0) + timedelta(seconds=1 if latest.microsecond else 0)
        self._call(
            key,
            lambda: self._client.put_object_retention(
                **self._named(key),
                Retention={"Mode": _COMPLIANCE, "RetainUntilDate": wanted},
                ChecksumAlgorithm=_CHECKSUM,
            ),
        )

    def hold(self, key: str, *, on: bool) -> None:
        """See ObjectLock."""
        wanted = {"Status": "ON" if on else "OFF"}
        for version in self._versions(key):
            if self._held(version) != on:
                self._call(
                    key,
                    partial(
                        self._client.put_object_legal_hold,
                        **version.named,
                        LegalHold=wanted,
                        ChecksumAlgorithm=_CHECKSUM,
                    ),
                )

    def state(self, key: str) -> LockState:
        """See ObjectLock."""
        versions = self._versions(key)
        until = (self._retention(key, version.named)[1] for version in versions)
        return LockState(max((u for u in until if u is not None), default=None), any(map(self._held, versions)))

    def starts(self, key: str, size: int) -> list[tuple[bytes, int]]:
        """See ObjectLock."""
        return [(self._start(version, min(size, version.size)), version.size) for version in self._versions(key)]

    def delete(self, key: str) -> None:
        """See ObjectLock. Without a version id S3 would only hide the object behind a delete marker."""
        for version in self._versions(key, markers=True):
            self._call(key, partial(self._client.delete_object, **version.named))

    def _retention(self, key: str, named: dict[str, str]) -> tuple[str, datetime | None]:
        found = self._call(key, lambda: self._client.get_object_retention(**named))
        retention = (found or {}).get("Retention", {})
        until = retention.get("RetainUntilDate")
        return retention.get("Mode", ""), until and until.astimezone(UTC)

    def _held(self, version: _Version) -> bool:
        found = self._call(version.key, lambda: self._client.get_object_legal_hold(**version.named))
        return bool((found or {}).get("LegalHold", {}).get("Status") == "ON")

    def _start(self, version: _Version, length: int) -> bytes:
        if not length:
            return b""  # S3 refuses a range in an empty object
        return self._call(version.key, partial(self._read, version, f"bytes=0-{length - 1}")) or b""

    def _read(self, version: _Version, asked: str) -> bytes:
        body: bytes = self._client.get_object(**version.named, Range=asked)["Body"].read()
        return body

    def _versions(self, key: str, *, markers: bool = False) -> list[_Version]:
        """Those of exactly this key; a listing goes by prefix, so longer keys come with it."""
        named = self._named(key)
        kinds = ("Versions", "DeleteMarkers") if markers else ("Versions",)
        pages = self._call(
            key,
            lambda: list(
                self._client.get_paginator("list_object_versions").paginate(Bucket=self._bucket, Prefix=named["Key"])
            ),
        )
        return [
            _Version(key, named | {"VersionId": v["VersionId"]}, v.get("Size", 0))
            for page in pages or []
            for kind in kinds
            for v in page.get(kind, ())
            if v["Key"] == named["Key"]
        ]

    def _named(self, key: str) -> dict[str, str]:
        return {"Bucket": self._bucket, "Key": self._prefix + key}

    def _call(self, key: str, request: Callable[[], T]) -> T | None:
        """The answer; None where S3 says that nothing is set, or nothing there."""
        from botocore.exceptions import BotoCoreError, ClientError  # noqa: PLC0415 - the [objectlock] extra

        try:
            return request()
        except ClientError as error:
            code = error.response["Error"]["Code"]
            if code in _ABSENT:
                log.warning("nothing_to_lock", key=key, bucket=self._bucket)
            if code in _NONE_SET | _ABSENT:
                return None
            raise StoreUnavailable(f"object lock of {key} in s3://{self._bucket}: {error}") from error
        except BotoCoreError as error:
            raise StoreUnavailable(f"object lock of {key} in s3://{self._bucket}: {error}") from error


def open_object_lock(url: str, options: Mapping[str, str] | None = None) -> ObjectLock:
    """The lock of the store at `url`; `options` as `ContentStore` takes them, in obstore's names.

    Raises:
        ObjectLockMissing: an s3:// store without the [objectlock] extra.
        StoreUnavailable: the bucket does not say whether it locks.
    """
    split = urlsplit(url)
    if split.scheme != "s3":
        return NoObjectLock()
    lock = S3ObjectLock(_client(options or {}), split.netloc, split.path.strip("/"))
    return lock if lock.supports() else NoObjectLock()


def keeps_old_versions(url: str, options: Mapping[str, str] | None = None) -> bool:
    """Whether an s3:// store's bucket is, or was, versioned; False for other stores, which are not asked.

    Raises:
        ObjectLockMissing: without the [objectlock] extra.
        StoreUnavailable: the bucket does not say.
    """
    split = urlsplit(url)
    return split.scheme == "s3" and S3ObjectLock(_client(options or {}), split.netloc).versioned()


def _client(options: Mapping[str, str]) -> Any:
    try:
        import boto3  # noqa: PLC0415 - the [objectlock] extra
        from botocore.config import Config  # noqa: PLC0415 - likewise
    except ImportError as error:
        raise ObjectLockMissing(
            "evidence in s3:// is locked through boto3, which is not installed: pip install 'mediasieve[objectlock]'"
        ) from error
    given = {name.lower().removeprefix("aws_"): value for name, value in options.items()}
    return boto3.client(
        "s3",
        region_name=given.get("region", given.get("default_region")),
        endpoint_url=given.get("endpoint", given.get("endpoint_url")),
        aws_access_key_id=given.get("access_key_id"),
        aws_secret_access_key=given.get("secret_access_key"),
        aws_session_token=given.get("session_token", given.get("token")),
        config=Config(
            connect_timeout=_CONNECT_TIMEOUT_S,
            read_timeout=_READ_TIMEOUT_S,
            retries={"total_max_attempts": _ATTEMPTS, "mode": "standard"},
        ),
    )


def _unsupported(key: str) -> ObjectLockMissing:
    return ObjectLockMissing(f"{key}: this store has no Object Lock")
