"""Keys of single objects: made once, destroyed for good, wrapped anew."""

from __future__ import annotations

import base64
import hashlib
import json
import os
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from pipeline.media.errors import ContentCorrupt, ContentErased, ContentMissing, StoreUnavailable
from pipeline.media.key_store import KeyStore, Rewrapped
from pipeline.media.master_keys import MasterKeyError, MasterKeys
from pipeline.media.objects import Objects, Superseded, Versioned
from pipeline.media.store_settings import KeySettings

SHA256 = hashlib.sha256(b"original").hexdigest()
OLD, NEW = bytes(range(32)), bytes(range(32, 64))


@pytest.fixture(params=["file", "memory"])
def objects(request: pytest.FixtureRequest, tmp_path: Path) -> Objects:
    return Objects("memory://" if request.param == "memory" else (tmp_path / "keys of ours").as_uri())


@pytest.fixture
def keys(objects: Objects) -> KeyStore:
    return KeyStore(objects, MasterKeys({"old": OLD}, "old"))


def rotated(objects: Objects) -> KeyStore:
    return KeyStore(objects, MasterKeys({"old": OLD, "new": NEW}, "new"))


def stored(objects: Objects, name: str) -> bytes:
    return objects.read(f"keys/{name}")


def test_a_key_is_made_once_and_read_back(keys: KeyStore) -> None:
    key = keys.create("acme", SHA256)
    assert (key.generation, len(key.secret)) == (0, 32)
    assert keys.create("acme", SHA256) == key
    assert keys.get("acme", SHA256, 0) == key.secret
    assert key.secret.hex() not in repr(key)


def test_every_tenant_has_a_key_of_its_own(keys: KeyStore) -> None:
    ours, theirs = keys.create("acme", SHA256), keys.create("rival", SHA256)
    assert ours.secret != theirs.secret
    assert keys.destroy("acme", SHA256)
    assert keys.get("rival", SHA256, 0) == theirs.secret


def test_a_destroyed_key_leaves_nothing_but_a_tombstone(keys: KeyStore, objects: Objects) -> None:
    keys.create("acme", SHA256)
    assert keys.state("acme", SHA256) == "live"
    assert keys.destroy("acme", SHA256)
    assert keys.state("acme", SHA256) == "destroyed"
    assert json.loads(stored(objects, f"acme/{SHA256}/0")) == {"v": 1, "state": "destroyed"}
    with pytest.raises(ContentErased, match=SHA256):
        keys.get("acme", SHA256, 0)
    assert not keys.destroy("acme", SHA256), "it is destroyed already"


def test_content_that_comes_again_gets_a_fresh_key(keys: KeyStore) -> None:
    first = keys.create("acme", SHA256)
    keys.destroy("acme", SHA256)
    second = keys.create("acme", SHA256)
    assert (second.generation, second.secret != first.secret) == (1, True)
    assert keys.state("acme", SHA256) == "live"
    assert keys.destroy("acme", SHA256)
    for generation in (0, 1):
        with pytest.raises(ContentErased):
            keys.get("acme", SHA256, generation)


def test_what_never_had_a_key_is_missing_and_not_erased(keys: KeyStore) -> None:
    assert keys.state("acme", SHA256) == "none"
    assert not keys.destroy("acme", SHA256)
    with pytest.raises(ContentMissing) as caught:
        keys.get("acme", SHA256, 0)
    assert not isinstance(caught.value, ContentErased)


def test_many_writers_of_the_same_content_agree_on_its_key(keys: KeyStore) -> None:
    keys.create("acme", SHA256)
    keys.destroy("acme", SHA256)
    with ThreadPoolExecutor(8) as threads:
        made = set(threads.map(lambda _: keys.create("acme", SHA256), range(40)))
    assert len(made) == 1


def test_a_wrapped_key_opens_under_its_own_name_alone(keys: KeyStore, objects: Objects) -> None:
    keys.create("acme", SHA256)
    objects.replace(f"keys/rival/{SHA256}/0", stored(objects, f"acme/{SHA256}/0"))
    with pytest.raises(ContentCorrupt, match="does not open"):
        keys.get("rival", SHA256, 0)


def test_the_key_itself_is_not_stored(keys: KeyStore, objects: Objects) -> None:
    secret = keys.create("acme", SHA256).secret
    record = stored(objects, f"acme/{SHA256}/0")
    assert secret not in record
    assert base64.b64encode(secret) not in record
    assert secret not in base64.b64decode(json.loads(record)["wrapped"])


@pytest.mark.parametrize("left", [b"", b"{", b'{"v":1,"state":"live"}', b'{"v":1,"state":"odd"}', b"[]"])
def test_a_record_that_is_no_key_is_corrupt_and_content_that_comes_again_goes_round_it(
    left: bytes, keys: KeyStore, objects: Objects
) -> None:
    objects.replace(f"keys/acme/{SHA256}/0", left)
    with pytest.raises(ContentCorrupt, match="not a wrapped key"):
        keys.get("acme", SHA256, 0)
    assert keys.create("acme", SHA256).generation == 1


def test_a_record_of_a_newer_release_waits_for_the_upgrade(keys: KeyStore, objects: Objects) -> None:
    objects.replace(f"keys/acme/{SHA256}/0", b'{"v":2,"state":"live","elsewhere":1}')
    for call in (lambda: keys.get("acme", SHA256, 0), lambda: keys.create("acme", SHA256)):
        with pytest.raises(StoreUnavailable, match="upgrade"):
            call()


def test_a_master_key_that_is_not_here_or_another_one_loses_nothing(keys: KeyStore, objects: Objects) -> None:
    secret = keys.create("acme", SHA256).secret
    for masters in (MasterKeys({"new": NEW}, "new"), MasterKeys({"old": NEW}, "old")):
        stranger = KeyStore(objects, masters)
        with pytest.raises(StoreUnavailable, match=r"store\.keys\.master_keys"):
            stranger.get("acme", SHA256, 0)
        with pytest.raises(StoreUnavailable, match=r"store\.keys\.master_keys"):
            stranger.create("acme", SHA256)
    assert keys.get("acme", SHA256, 0) == secret


def test_after_a_rotation_old_keys_open_and_new_ones_are_under_the_new_master(keys: KeyStore, objects: Objects) -> None:
    secret = keys.create("acme", SHA256).secret
    both = rotated(objects)
    assert both.get("acme", SHA256, 0) == secret
    both.create("rival", SHA256)
    assert json.loads(stored(objects, f"rival/{SHA256}/0"))["master"] == "new"


def test_rewrapped_keys_open_without_the_old_master(keys: KeyStore, objects: Objects) -> None:
    digests = [hashlib.sha256(bytes([n])).hexdigest() for n in range(5)]
    secrets = [keys.create("acme", digest).secret for digest in digests]
    keys.create("rival", SHA256)
    keys.destroy("acme", digests[0])
    both = rotated(objects)
    both.create("acme", SHA256)
    both.probe()
    assert both.rewrap("acme") == Rewrapped(changed=4, current=1, destroyed=1)
    assert both.rewrap() == Rewrapped(changed=1, current=5, destroyed=1)
    only_new = KeyStore(objects, MasterKeys({"new": NEW}, "new"))
    assert [only_new.get("acme", digest, 0) for digest in digests[1:]] == secrets[1:]
    with pytest.raises(ContentErased):
        only_new.get("acme", digests[0], 0)


def test_a_key_destroyed_while_it_is_rewrapped_stays_destroyed(monkeypatch: pytest.MonkeyPatch) -> None:
    """On an object store the swap fails and is tried again."""
    objects = Objects("memory://")
    KeyStore(objects, MasterKeys({"old": OLD}, "old")).create("acme", SHA256)
    both = rotated(objects)
    swap, destroyed = Objects.swap, []

    def destroy_first(self: Objects, key: str, data: bytes, seen: Versioned) -> None:
        destroyed.append(both.destroy("acme", SHA256))
        swap(self, key, data, seen)

    monkeypatch.setattr(Objects, "swap", destroy_first)
    assert both.rewrap() == Rewrapped(changed=0, current=0, destroyed=1)
    assert destroyed == [True]
    with pytest.raises(ContentErased):
        both.get("acme", SHA256, 0)


def test_on_local_disk_destroying_waits_for_the_rewrap(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    objects = Objects(tmp_path.as_uri())
    KeyStore(objects, MasterKeys({"old": OLD}, "old")).create("acme", SHA256)
    both, swap = rotated(objects), Objects.swap
    destroyer = threading.Thread(target=both.destroy, args=("acme", SHA256))

    def destroy_meanwhile(self: Objects, key: str, data: bytes, seen: Versioned) -> None:
        destroyer.start()
        destroyer.join(0.05)
        assert destroyer.is_alive(), "it waits for the lock"
        swap(self, key, data, seen)

    monkeypatch.setattr(Objects, "swap", destroy_meanwhile)
    assert both.rewrap() == Rewrapped(changed=1, current=0, destroyed=0)
    destroyer.join()
    with pytest.raises(ContentErased):
        both.get("acme", SHA256, 0)


def test_a_key_behind_one_that_was_lost_is_destroyed_too(objects: Objects, keys: KeyStore) -> None:
    keys.create("acme", SHA256)
    keys.destroy("acme", SHA256)
    second = keys.create("acme", SHA256)
    objects.delete(f"keys/acme/{SHA256}/0")
    assert keys.state("acme", SHA256) == "live"
    assert keys.lives("acme", SHA256, second.generation)
    assert keys.destroy("acme", SHA256)
    assert not keys.lives("acme", SHA256, second.generation)
    assert keys.state("acme", SHA256) == "destroyed"


def test_a_swap_changes_what_was_seen_or_nothing(objects: Objects) -> None:
    objects.replace("a", b"1")
    seen = objects.read_versioned("a")
    objects.replace("a", b"2")
    with pytest.raises(Superseded):
        objects.swap("a", b"3", seen)
    objects.swap("a", b"4", objects.read_versioned("a"))
    assert objects.read("a") == b"4"
    seen = objects.read_versioned("a")
    objects.delete("a")
    with pytest.raises(Superseded):
        objects.swap("a", b"5", seen)


@pytest.mark.parametrize(("tenant", "sha256"), [("../up", SHA256), ("acme", "../up"), ("", SHA256), ("acme", "A" * 64)])
def test_a_malformed_name_is_refused(tenant: str, sha256: str, keys: KeyStore) -> None:
    for call in (keys.create, keys.destroy, keys.state, lambda t, s: keys.get(t, s, 0)):
        with pytest.raises(ValueError, match="pattern"):
            call(tenant, sha256)


@pytest.mark.parametrize(
    ("written", "why"),
    [
        (None, "No such file"),
        (b"not base64!", "no base64"),
        (base64.b64encode(b"short"), "holds 5 bytes, not 32"),
        (b"", "holds 0 bytes"),
    ],
)
def test_a_bad_master_key_file_is_named_with_the_way_out(written: bytes | None, why: str, tmp_path: Path) -> None:
    file = tmp_path / "master"
    if written is not None:
        file.write_bytes(written)
    settings = KeySettings(url="memory://", master_keys={"2026": file}, current="2026")
    with pytest.raises(MasterKeyError, match=f"store.keys.master_keys.2026: .*{why}.*openssl rand -base64 32"):
        KeyStore.open(settings)


def test_a_master_key_file_as_openssl_writes_it_is_read(tmp_path: Path) -> None:
    file = tmp_path / "master"
    file.write_bytes(base64.b64encode(os.urandom(32)) + b"\n")
    settings = KeySettings(url=tmp_path.as_uri(), master_keys={"a": file}, current="a")
    key = KeyStore.open(settings).create("acme", SHA256)
    assert KeyStore.open(settings).get("acme", SHA256, 0) == key.secret


def test_the_current_master_key_must_be_listed(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="add its file there"):
        KeySettings(url="memory://", master_keys={"a": tmp_path}, current="b")
    with pytest.raises(MasterKeyError, match="not among a"):
        MasterKeys({"a": OLD}, "b")
    with pytest.raises(MasterKeyError, match="has 3 bytes"):
        MasterKeys({"a": b"123"}, "a")
