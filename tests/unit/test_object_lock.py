"""Against moto, which remembers locks but enforces little of them: what is shown is that we ask for the right thing
with the right headers. That nobody can delete a locked object is S3's promise, which no emulator proves.
"""

from __future__ import annotations

import hashlib
import sys
from base64 import b64encode
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from botocore.exceptions import ClientError, EndpointConnectionError
from moto.s3.models import s3_backends

from pipeline.evidence.erasure import Vault
from pipeline.evidence.object_lock import (
    LockState,
    NoObjectLock,
    ObjectLockMissing,
    S3ObjectLock,
    keeps_old_versions,
    open_object_lock,
)
from pipeline.evidence.payload import Payload
from pipeline.media.envelope import Subject, seal
from pipeline.media.errors import StoreUnavailable
from pipeline.media.key_store import KeyStore
from pipeline.media.master_keys import MasterKeys
from pipeline.media.objects import Objects
from tests.support.moto_s3 import moto_s3

NOW = datetime(2100, 1, 1, tzinfo=UTC)
LATER = NOW + timedelta(days=30)
KEY = f"content/acme/{'0' * 64}"
OPTIONS = {"region": "us-east-1", "access_key_id": "a", "aws_secret_access_key": "b"}


@pytest.fixture
def sent() -> list[Any]:
    return []


@pytest.fixture(scope="module")
def moto_client() -> Iterator[Any]:
    with moto_s3() as client:
        yield client


@pytest.fixture
def client(moto_client: Any, sent: list[Any]) -> Iterator[Any]:
    s3_backends.reset()
    moto_client.create_bucket(Bucket="locked", ObjectLockEnabledForBucket=True)
    moto_client.create_bucket(Bucket="plain")
    moto_client.put_object(Bucket="locked", Key=f"deep/er/{KEY}", Body=b"sealed")

    def note(request: Any, **_: Any) -> None:
        sent.append(request)

    moto_client.meta.events.register_first("before-send.s3", note)
    yield moto_client
    moto_client.meta.events.unregister("before-send.s3", note)


@pytest.fixture
def lock(client: Any) -> S3ObjectLock:
    return S3ObjectLock(client, "locked", "deep/er")


def retention(client: Any) -> dict[str, Any]:
    found: dict[str, Any] = client.get_object_retention(Bucket="locked", Key=f"deep/er/{KEY}")["Retention"]
    return found


def test_retain_asks_for_compliance_with_a_sha256_of_the_request(
    lock: S3ObjectLock, client: Any, sent: list[Any]
) -> None:
    lock.retain(KEY, LATER, NOW)
    found = retention(client)
    assert (found["Mode"], found["RetainUntilDate"].astimezone(UTC)) == ("COMPLIANCE", LATER)
    (request,) = [r for r in sent if r.method == "PUT"]
    assert (
        request.headers["x-amz-checksum-sha256"].decode() == b64encode(hashlib.sha256(request.body).digest()).decode()
    )
    assert lock.state(KEY) == LockState(LATER, held=False)


def test_a_retention_is_never_shortened(lock: S3ObjectLock, client: Any, sent: list[Any]) -> None:
    lock.retain(KEY, LATER, NOW)
    sent.clear()
    lock.retain(KEY, LATER - timedelta(days=1), NOW)
    lock.retain(KEY, LATER, NOW)
    assert [r.method for r in sent if r.method != "HEAD"] == []
    assert retention(client)["RetainUntilDate"].astimezone(UTC) == LATER
    lock.retain(KEY, LATER + timedelta(days=1), NOW)
    assert retention(client)["RetainUntilDate"].astimezone(UTC) == LATER + timedelta(days=1)


def test_governance_becomes_compliance_for_the_longer_of_both(lock: S3ObjectLock, client: Any) -> None:
    longer = LATER + timedelta(days=9)
    client.put_object_retention(
        Bucket="locked", Key=f"deep/er/{KEY}", Retention={"Mode": "GOVERNANCE", "RetainUntilDate": longer}
    )
    lock.retain(KEY, LATER, NOW)
    assert (retention(client)["Mode"], lock.state(KEY).until) == ("COMPLIANCE", longer)


def test_a_part_of_a_second_is_rounded_up(lock: S3ObjectLock) -> None:
    lock.retain(KEY, LATER + timedelta(microseconds=1), NOW)
    assert lock.state(KEY).until == LATER + timedelta(seconds=1)


def test_a_time_that_is_over_asks_for_nothing(lock: S3ObjectLock, sent: list[Any]) -> None:
    lock.retain(KEY, NOW, NOW)
    assert sent == []


def test_the_legal_hold_is_set_and_lifted_with_a_checksum(lock: S3ObjectLock, client: Any, sent: list[Any]) -> None:
    lock.hold(KEY, on=True)
    lock.hold(KEY, on=True)
    assert client.get_object_legal_hold(Bucket="locked", Key=f"deep/er/{KEY}")["LegalHold"]["Status"] == "ON"
    assert lock.state(KEY) == LockState(None, held=True)
    lock.hold(KEY, on=False)
    assert lock.state(KEY).held is False
    puts = [r for r in sent if r.method == "PUT"]
    assert len(puts) == 2
    assert all("x-amz-checksum-sha256" in r.headers for r in puts)


def test_an_object_that_is_not_there_has_nothing_to_lock(lock: S3ObjectLock) -> None:
    gone = f"content/acme/{'1' * 64}"
    lock.delete(gone)
    assert lock.state(gone) == LockState()


def test_a_decision_whose_content_was_missing_does_not_stop_retention() -> None:
    class Absent:
        def __getattr__(self, name: str) -> Any:
            def refuse(*_: Any, **__: Any) -> None:
                raise ClientError({"Error": {"Code": "NoSuchKey", "Message": "not there"}}, name)

            return refuse

    lock = S3ObjectLock(Absent(), "locked")
    lock.retain(KEY, LATER, NOW)
    lock.hold(KEY, on=True)


def test_delete_takes_all_versions_and_markers_of_exactly_this_object(lock: S3ObjectLock, client: Any) -> None:
    name = f"deep/er/{KEY}"
    client.put_object(Bucket="locked", Key=name, Body=b"again")
    client.delete_object(Bucket="locked", Key=name)
    client.put_object(Bucket="locked", Key=f"{name}.longer", Body=b"another")
    lock.delete(KEY)
    left = client.list_object_versions(Bucket="locked")
    assert [v["Key"] for v in left["Versions"]] == [f"{name}.longer"]
    assert "DeleteMarkers" not in left


def test_a_locked_version_is_not_deleted_and_the_store_says_why(lock: S3ObjectLock) -> None:
    lock.retain(KEY, LATER, NOW)
    with pytest.raises(StoreUnavailable, match=r"content/acme/0{64} in s3://locked: .*AccessDenied"):
        lock.delete(KEY)


def test_support_is_asked_of_the_bucket(client: Any) -> None:
    assert S3ObjectLock(client, "locked").supports()
    assert not S3ObjectLock(client, "plain").supports()
    with pytest.raises(StoreUnavailable, match="s3://missing"):
        S3ObjectLock(client, "missing").supports()


@pytest.mark.parametrize(
    "error",
    [
        ClientError({"Error": {"Code": "SlowDown", "Message": "later"}}, "GetObjectRetention"),
        EndpointConnectionError(endpoint_url="https://s3"),
    ],
)
def test_an_outage_is_unavailable(error: Exception) -> None:
    class Down:
        def get_object_retention(self, **_: Any) -> None:
            raise error

    with pytest.raises(StoreUnavailable, match="object lock of k in s3://b"):
        S3ObjectLock(Down(), "b").retain("k", LATER, NOW)


@pytest.mark.usefixtures("client")
def test_a_store_is_opened_by_its_url() -> None:
    assert isinstance(open_object_lock("s3://locked/deep/er", OPTIONS), S3ObjectLock)
    assert isinstance(open_object_lock("s3://plain", OPTIONS), NoObjectLock)
    assert isinstance(open_object_lock("file:///tmp"), NoObjectLock)
    assert isinstance(open_object_lock("gs://bucket"), NoObjectLock)
    assert not NoObjectLock().supports()
    with pytest.raises(ObjectLockMissing, match="no Object Lock"):
        NoObjectLock().retain(KEY, LATER, NOW)


@pytest.mark.usefixtures("client")
def test_old_versions_are_asked_of_the_bucket() -> None:
    assert keeps_old_versions("s3://locked/keys", OPTIONS)
    assert not keeps_old_versions("s3://plain/keys", OPTIONS)
    assert not keeps_old_versions("file:///keys")


def test_without_the_extra_the_error_names_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "boto3", None)
    with pytest.raises(ObjectLockMissing, match=r"pip install 'mediasieve\[objectlock\]'"):
        open_object_lock("s3://locked")
    assert isinstance(open_object_lock("file:///tmp"), NoObjectLock)


def test_the_endpoint_and_credentials_of_the_store_are_used() -> None:
    from pipeline.evidence.object_lock import _client

    made = _client({"aws_endpoint": "http://127.0.0.1:9", "Region": "eu-west-1", "aws_access_key_id": "id"} | OPTIONS)
    assert made.meta.endpoint_url == "http://127.0.0.1:9"


def test_what_locks_an_older_version_counts_and_a_release_reaches_it(lock: S3ObjectLock, client: Any) -> None:
    lock.retain(KEY, LATER, NOW)
    lock.hold(KEY, on=True)
    client.put_object(Bucket="locked", Key=f"deep/er/{KEY}", Body=b"sealed again")
    assert lock.state(KEY) == LockState(LATER, held=True)
    assert sorted(lock.starts(KEY, 6)) == [(b"sealed", 6), (b"sealed", 12)]
    lock.hold(KEY, on=False)
    assert lock.state(KEY) == LockState(LATER, held=False)
    payload = Payload.of_key(KEY)
    assert payload is not None
    assert Vault(Objects("memory://"), None, lock).obstacle(payload, NOW) is not None


def test_a_lock_on_an_older_version_ends_in_an_unreadable_object(lock: S3ObjectLock, client: Any) -> None:
    payload = Payload.of_key(KEY)
    assert payload is not None
    keys = KeyStore(Objects("memory://"), MasterKeys({"m": bytes(32)}, "m"))
    sealed = seal(Subject("acme", payload.sha256), b"x", keys.create("acme", payload.sha256))
    lock.delete(KEY)
    client.put_object(Bucket="locked", Key=f"deep/er/{KEY}", Body=sealed)
    lock.retain(KEY, LATER, NOW)
    client.put_object(Bucket="locked", Key=f"deep/er/{KEY}", Body=sealed)
    vault = Vault(Objects("memory://"), keys, lock)
    assert vault.obstacle(payload, NOW) is None
    assert vault.destroy(payload, NOW) is False
    assert keys.state("acme", payload.sha256) == "destroyed"
    assert len(lock.starts(KEY, 1)) == 2


def test_an_empty_version_has_an_empty_start(lock: S3ObjectLock, client: Any) -> None:
    client.put_object(Bucket="locked", Key=f"deep/er/{KEY}.png", Body=b"")
    assert lock.starts(f"{KEY}.png", 6) == [(b"", 0)]


def test_a_bucket_that_locks_is_asked_once(client: Any, sent: list[Any]) -> None:
    lock = S3ObjectLock(client, "locked")
    assert lock.supports()
    assert lock.supports()
    assert len(sent) == 1


def test_a_vault_over_s3_deletes_through_the_lock(lock: S3ObjectLock, client: Any) -> None:
    payload = Payload.of_key(KEY)
    assert payload is not None
    vault = Vault(Objects("memory://"), None, lock)
    lock.retain(KEY, LATER, NOW)
    assert vault.obstacle(payload, NOW) is not None
    with pytest.raises(StoreUnavailable, match="no key that could be destroyed"):
        vault.destroy(payload, NOW)
    assert vault.obstacle(payload, LATER) is None
    with pytest.raises(StoreUnavailable, match="AccessDenied"):
        vault.destroy(payload, LATER)  # our clock says it is over, the store's does not: the store has the last word
