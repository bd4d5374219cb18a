"""What production mode and a store that locks demand of the settings."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from pipeline.evidence.assembly import load_policy, open_retainer, require_object_lock
from pipeline.evidence.object_lock import ObjectLockMissing
from pipeline.evidence.retention import RetentionPolicyError
from pipeline.settings import FleetSettings
from tests.support.moto_s3 import moto_s3

OPTIONS = {"region": "us-east-1", "access_key_id": "a", "aws_secret_access_key": "b"}


@pytest.fixture(scope="module")
def buckets() -> Iterator[None]:
    """`locked` has Object Lock, `plain` has not."""
    with moto_s3() as client:
        client.create_bucket(Bucket="locked", ObjectLockEnabledForBucket=True)
        client.create_bucket(Bucket="plain")
        yield


def settings(**fields: Any) -> FleetSettings:
    return FleetSettings(**fields)


@pytest.mark.usefixtures("buckets")
def test_production_needs_a_store_that_locks(tmp_path: Path) -> None:
    local = {"url": tmp_path.as_uri()}
    require_object_lock(settings(store=local))
    with pytest.raises(ObjectLockMissing, match=r"MEDIASIEVE_STORE__URL=file://.*MEDIASIEVE_PRODUCTION=false"):
        require_object_lock(settings(production=True, store=local))
    with pytest.raises(ObjectLockMissing, match=r"MEDIASIEVE_STORE__URL=s3://plain "):
        require_object_lock(settings(production=True, store={"url": "s3://plain", "options": OPTIONS}))
    require_object_lock(settings(production=True, store={"url": "s3://locked", "options": OPTIONS}))


@pytest.mark.usefixtures("buckets")
@pytest.mark.parametrize(("bucket", "allowed"), [("plain", True), ("locked", False)])
def test_production_needs_a_key_store_without_versions(tmp_path: Path, bucket: str, *, allowed: bool) -> None:
    keys = {"url": f"s3://{bucket}/keys", "options": OPTIONS, "master_keys": {"m": tmp_path}, "current": "m"}
    store = {"url": "s3://locked", "options": OPTIONS, "keys": keys}
    made = settings(production=True, store=store)
    if allowed:
        require_object_lock(made)
    else:
        with pytest.raises(ObjectLockMissing, match="MEDIASIEVE_STORE__KEYS__URL=s3://locked/keys keeps old versions"):
            require_object_lock(made)


@pytest.mark.usefixtures("buckets")
def test_a_store_that_locks_needs_a_policy_that_says_how_long(tmp_path: Path) -> None:
    store = {"url": "s3://locked", "options": OPTIONS}
    with pytest.raises(RetentionPolicyError, match="MEDIASIEVE_RETENTION_POLICY"):
        open_retainer(settings(store=store))
    open_retainer(settings(store={"url": tmp_path.as_uri()}))
    with pytest.raises(RetentionPolicyError, match="is not set"):
        load_policy(settings())
