"""The content store and the key store in an S3 bucket: what is sent, and what an outage does."""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Iterator
from pathlib import Path

import pytest

from pipeline.media.content_store import ContentStore, open_store
from pipeline.media.errors import ContentErased, ContentMissing, StoreUnavailable
from pipeline.media.key_store import KeyStore, Rewrapped
from pipeline.media.master_keys import MasterKeys
from pipeline.media.objects import Objects, Superseded
from pipeline.media.store_settings import KeySettings, StoreSettings
from tests.support.s3_server import S3Server, running_s3

DATA = b"original bytes" * 100
SHA256 = hashlib.sha256(DATA).hexdigest()


@pytest.fixture
def s3() -> Iterator[S3Server]:
    with running_s3() as server:
        yield server


@pytest.fixture
def settings(s3: S3Server, tmp_path: Path) -> StoreSettings:
    (tmp_path / "master").write_bytes(base64.b64encode(bytes(32)))
    keys = KeySettings(url="s3://vault", options=s3.options, master_keys={"m": tmp_path / "master"}, current="m")
    return StoreSettings(url="s3://evidence/fleet", options=s3.options, keys=keys)


@pytest.fixture
def store(settings: StoreSettings) -> ContentStore:
    return open_store(settings)


def test_everything_comes_back_and_lies_where_it_should(store: ContentStore, s3: S3Server) -> None:
    uri = store.put("acme", SHA256, DATA)
    panel, digest = store.put_evidence("acme", b"panel", ".png")
    assert uri == f"s3://evidence/fleet/content/acme/{SHA256}"
    assert (store.get_uri(uri), store.get_evidence(panel, digest)) == (DATA, b"panel")
    assert s3.keys("evidence") == [f"fleet/content/acme/{SHA256}", f"fleet/evidence/acme/{digest}.png"]
    assert s3.keys("vault") == sorted(f"keys/acme/{sha256}/0" for sha256 in (SHA256, digest))
    assert not any(DATA[:16] in held for held in s3.objects.values())


def test_every_put_is_conditional_and_carries_its_checksum(store: ContentStore, s3: S3Server) -> None:
    """A bucket with Object Lock refuses a put without a checksum."""
    store.put("acme", SHA256, DATA)
    store.put_evidence("acme", bytes(6 * 2**20), ".bin")
    assert len(s3.puts) == 4
    for name, headers in s3.puts:
        sent = base64.b64encode(hashlib.sha256(s3.objects[name]).digest()).decode()
        assert headers["x-amz-checksum-sha256"] == sent, name
        assert headers["if-none-match"] == "*", name


def test_what_is_there_is_not_sent_over(store: ContentStore, s3: S3Server) -> None:
    store.put("acme", SHA256, DATA)
    held = dict(s3.objects)
    store.put("acme", SHA256, DATA)
    assert s3.objects == held


def test_objects_are_listed_below_the_stores_prefix_and_deleted(store: ContentStore, s3: S3Server) -> None:
    uri, _ = store.put_evidence("acme", b"panel", ".png")
    store.put("acme", SHA256, DATA)
    (found,) = store.list_objects("evidence")
    assert (found.key, found.size) == (store.key_of(uri), len(s3.objects[f"evidence/fleet/{found.key}"]))
    store.delete(found.key)
    with pytest.raises(ContentMissing):
        store.get_uri(uri)


def test_an_erased_object_is_replaced_when_it_comes_again(store: ContentStore) -> None:
    assert store.keys is not None
    store.put("acme", SHA256, DATA)
    store.keys.destroy("acme", SHA256)
    with pytest.raises(ContentErased):
        store.get("acme", SHA256)
    store.put("acme", SHA256, DATA)
    assert store.get("acme", SHA256) == DATA


def test_a_swap_is_refused_by_the_store_itself(s3: S3Server) -> None:
    objects = Objects("s3://vault", s3.options)
    objects.create("a", b"1")
    seen = objects.read_versioned("a")
    objects.replace("a", b"2")
    with pytest.raises(Superseded):
        objects.swap("a", b"3", seen)
    assert objects.read("a") == b"2"


def test_keys_are_rewrapped(s3: S3Server) -> None:
    objects = Objects("s3://vault", s3.options)
    old, new = bytes(32), bytes(range(32))
    secret = KeyStore(objects, MasterKeys({"old": old}, "old")).create("acme", SHA256).secret
    assert KeyStore(objects, MasterKeys({"old": old, "new": new}, "new")).rewrap() == Rewrapped(1, 0, 0)
    assert KeyStore(objects, MasterKeys({"new": new}, "new")).get("acme", SHA256, 0) == secret


def test_a_full_store_keeps_nothing_and_takes_it_once_there_is_room(store: ContentStore, s3: S3Server) -> None:
    s3.refuses = 507
    for call in (lambda: store.put("acme", SHA256, DATA), store.probe):
        with pytest.raises(StoreUnavailable, match="cannot put"):
            call()
    assert s3.objects == {}
    s3.refuses = None
    store.probe()
    store.put("acme", SHA256, DATA)
    assert store.get("acme", SHA256) == DATA
