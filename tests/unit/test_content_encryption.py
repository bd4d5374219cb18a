"""Contents and evidence under keys of their own: read back, erased, put again, and never weakened."""

from __future__ import annotations

import hashlib
import json
import pickle
import struct
from collections.abc import Callable
from pathlib import Path

import pytest

from pipeline.media.content_store import ContentStore, open_store
from pipeline.media.errors import ContentCorrupt, ContentErased, ContentMissing, StoreUnavailable
from pipeline.media.key_store import KeyStore
from pipeline.media.master_keys import MasterKeys
from pipeline.media.objects import Objects
from pipeline.media.store_settings import KeySettings, StoreSettings
from tests.support.worker_stages import BreakableObjects, BreakableStore

DATA = b"original bytes" * 100
SHA256 = hashlib.sha256(DATA).hexdigest()
MASTER = bytes(range(32))
CONTENT = f"content/acme/{SHA256}"


def store_with(keys: KeyStore | None, directory: Path) -> ContentStore:
    return ContentStore((directory / "a store").as_uri(), keys=keys)


@pytest.fixture
def keys() -> KeyStore:
    return KeyStore(Objects("memory://"), MasterKeys({"m": MASTER}, "m"))


@pytest.fixture
def store(keys: KeyStore, tmp_path: Path) -> ContentStore:
    return store_with(keys, tmp_path)


@pytest.fixture
def plain(tmp_path: Path) -> ContentStore:
    """The same directory as a worker without keys sees it."""
    return store_with(None, tmp_path)


def blob(store: ContentStore, name: str = CONTENT) -> bytes:
    return store.objects.read(name)


def header(data: bytes) -> dict[str, object]:
    magic, size = struct.unpack_from(">4sI", data)
    assert magic == b"MSV1"
    fields: dict[str, object] = json.loads(data[8 : 8 + size])
    return fields


def test_contents_come_back_and_do_not_lie_open(store: ContentStore) -> None:
    uri = store.put("acme", SHA256, DATA)
    assert store.get("acme", SHA256) == store.get_uri(uri) == DATA
    assert uri == store.content_uri("acme", SHA256)
    assert DATA[:16] not in blob(store)
    assert header(blob(store))["alg"] == "A256GCM"


def test_evidence_comes_back_and_does_not_lie_open(store: ContentStore) -> None:
    uri, sha256 = store.put_evidence("acme", DATA, ".png")
    assert store.get_evidence(uri, sha256) == DATA
    assert store.key_of(uri) == f"evidence/acme/{SHA256}.png"
    assert DATA[:16] not in blob(store, store.key_of(uri))


def test_empty_content_is_sealed_too(store: ContentStore) -> None:
    uri, sha256 = store.put_evidence("acme", b"", "")
    assert store.get_evidence(uri, sha256) == b""


def test_every_object_has_a_nonce_of_its_own(store: ContentStore) -> None:
    store.put("acme", SHA256, DATA)
    uri, _ = store.put_evidence("acme", DATA, ".png")
    assert header(blob(store))["nonce"] != header(blob(store, store.key_of(uri)))["nonce"]


def test_erasing_one_tenants_copy_leaves_anothers(store: ContentStore, keys: KeyStore) -> None:
    for tenant in ("acme", "rival"):
        store.put(tenant, SHA256, DATA)
    keys.destroy("acme", SHA256)
    with pytest.raises(ContentErased):
        store.get("acme", SHA256)
    assert store.get("rival", SHA256) == DATA


def test_what_is_erased_counts_as_missing_for_a_stage() -> None:
    assert issubclass(ContentErased, ContentMissing)


def test_erased_content_that_comes_again_is_readable_under_a_fresh_key(store: ContentStore, keys: KeyStore) -> None:
    store.put("acme", SHA256, DATA)
    uri, _ = store.put_evidence("acme", DATA, ".png")
    before = blob(store)
    keys.destroy("acme", SHA256)
    store.put("acme", SHA256, DATA)
    assert store.get("acme", SHA256) == DATA
    assert header(before)["key"] == 0
    assert header(blob(store))["key"] == 1
    with pytest.raises(ContentErased):
        store.get_uri(uri)
    store.put_evidence("acme", DATA, ".png")
    assert store.get_uri(uri) == DATA


def test_what_is_readable_is_not_written_again(store: ContentStore) -> None:
    store.put("acme", SHA256, DATA)
    first = blob(store)
    store.put("acme", SHA256, DATA)
    assert blob(store) == first


def test_an_object_of_one_tenant_does_not_open_as_anothers(store: ContentStore, keys: KeyStore) -> None:
    store.put("acme", SHA256, DATA)
    keys.create("rival", SHA256)
    store.objects.replace(f"content/rival/{SHA256}", blob(store))
    with pytest.raises(ContentCorrupt, match="not sealed for rival"):
        store.get("rival", SHA256)


def _with(change: Callable[[dict[str, object]], object]) -> Callable[[bytes], bytes]:
    def changed(data: bytes) -> bytes:
        (size,) = struct.unpack_from(">I", data, 4)
        fields = json.loads(data[8 : 8 + size])
        change(fields)
        text = json.dumps(fields).encode()
        return b"MSV1" + struct.pack(">I", len(text)) + text + data[8 + size :]

    return changed


DAMAGE = {
    "last bit": lambda data: data[:-1] + bytes([data[-1] ^ 1]),
    "cut": lambda data: data[:-1],
    "longer": lambda data: data + b"\0",
    "empty": lambda data: b"",
    "no tag": lambda data: data[:-1400],
    "other digest": _with(lambda fields: fields.update(sha256="0" * 64)),
    "other length": _with(lambda fields: fields.update(bytes=1)),
    "other nonce": _with(lambda fields: fields.update(nonce="AAAAAAAAAAAAAAAA")),
    "short nonce": _with(lambda fields: fields.update(nonce="AAAA")),
    "nonce that is no base64": _with(lambda fields: fields.update(nonce="?")),
    "no nonce": _with(lambda fields: fields.pop("nonce")),
    "no key": _with(lambda fields: fields.pop("key")),
    "negative key": _with(lambda fields: fields.update(key=-1)),
    "said to be plain": _with(lambda fields: fields.update(alg="none")),
}


@pytest.mark.parametrize("damage", DAMAGE.values(), ids=DAMAGE)
def test_any_damage_is_seen(damage: Callable[[bytes], bytes], store: ContentStore) -> None:
    store.put("acme", SHA256, DATA)
    store.objects.replace(CONTENT, damage(blob(store)))
    with pytest.raises(ContentCorrupt, match=SHA256):
        store.get("acme", SHA256)


def test_a_key_that_is_gone_is_missing_and_not_erased(store: ContentStore, tmp_path: Path) -> None:
    store.put("acme", SHA256, DATA)
    elsewhere = store_with(KeyStore(Objects("memory://"), MasterKeys({"m": MASTER}, "m")), tmp_path)
    with pytest.raises(ContentMissing, match="key") as caught:
        elsewhere.get("acme", SHA256)
    assert not isinstance(caught.value, ContentErased)


@pytest.mark.parametrize("left", [0, 20, 300])
def test_an_object_cut_by_a_power_cut_is_healed_by_the_next_put(left: int, store: ContentStore) -> None:
    store.put("acme", SHA256, DATA)
    store.objects.replace(CONTENT, blob(store)[:left])
    store.put("acme", SHA256, DATA)
    assert store.get("acme", SHA256) == DATA


# with and without keys


def test_what_was_stored_without_keys_stays_readable_and_is_sealed_when_it_comes_again(
    store: ContentStore, plain: ContentStore
) -> None:
    plain.put("acme", SHA256, DATA)
    uri, _ = plain.put_evidence("acme", DATA, ".png")
    assert store.get("acme", SHA256) == store.get_uri(uri) == DATA
    store.put("acme", SHA256, DATA)
    store.put_evidence("acme", DATA, ".png")
    assert store.get("acme", SHA256) == store.get_uri(uri) == DATA
    assert DATA[:16] not in blob(store)
    assert DATA[:16] not in blob(store, store.key_of(uri))


def test_evidence_of_before_there_were_tenants_stays_readable(store: ContentStore, plain: ContentStore) -> None:
    plain.objects.create(f"evidence/{SHA256}.png", DATA)
    for reader in (store, plain):
        uri = f"{reader.objects.base}/evidence/{SHA256}.png"
        assert reader.get_evidence(uri, SHA256) == DATA
    plain.objects.replace(f"evidence/{SHA256}.png", b"forged")
    with pytest.raises(ContentCorrupt):
        store.get_uri(uri)


def test_a_worker_without_keys_neither_reads_nor_weakens_what_is_sealed(
    store: ContentStore, plain: ContentStore
) -> None:
    store.put("acme", SHA256, DATA)
    uri, _ = store.put_evidence("acme", DATA, ".png")
    for call in (
        lambda: plain.get("acme", SHA256),
        lambda: plain.get_uri(uri),
        lambda: plain.put("acme", SHA256, DATA),
        lambda: plain.put_evidence("acme", DATA, ".png"),
    ):
        with pytest.raises(StoreUnavailable, match=r"set store\.keys"):
            call()
    assert store.get("acme", SHA256) == store.get_uri(uri) == DATA


def test_plain_evidence_that_looks_like_an_envelope_is_not_taken_for_one(plain: ContentStore) -> None:
    fields = json.dumps({"v": 1, "alg": "none", "sha256": "0" * 64, "bytes": 0}).encode()
    lure = b"MSV1" + struct.pack(">I", len(fields)) + fields
    uri, sha256 = plain.put_evidence("acme", lure, ".txt")
    assert plain.get_evidence(uri, sha256) == lure


def test_plain_evidence_lies_as_it_is(plain: ContentStore) -> None:
    uri, _ = plain.put_evidence("acme", DATA, ".png")
    assert blob(plain, plain.key_of(uri)) == DATA


# the rest of the interface


def test_objects_are_listed_and_deleted(store: ContentStore) -> None:
    store.put("acme", SHA256, DATA)
    uri, _ = store.put_evidence("a.b:c@d", DATA, ".png")
    store.put_evidence("rival", DATA, ".png")
    assert {found.key for found in store.list_objects("evidence")} == {
        f"evidence/{tenant}/{SHA256}.png" for tenant in ("a.b:c@d", "rival")
    }
    (found,) = store.list_objects("evidence/a.b:c@d")
    assert found.key == store.key_of(uri)
    assert found.size == len(blob(store, found.key))
    assert found.modified.utcoffset() is not None
    store.delete(found.key)
    store.delete(found.key)
    assert list(store.list_objects("evidence/a.b:c@d")) == []
    with pytest.raises(ContentMissing):
        store.get_uri(uri)


def test_a_probe_asks_both_stores() -> None:
    store, key_objects = BreakableStore(), BreakableObjects("memory://")
    store.keys = KeyStore(key_objects, MasterKeys({"m": MASTER}, "m"))
    store.probe()
    key_objects.down = True
    with pytest.raises(StoreUnavailable):
        store.probe()
    key_objects.down, store.down = False, True
    with pytest.raises(StoreUnavailable):
        store.probe()


def test_nothing_is_kept_while_the_key_store_is_down() -> None:
    store, key_objects = BreakableStore(), BreakableObjects("memory://")
    store.keys = KeyStore(key_objects, MasterKeys({"m": MASTER}, "m"))
    key_objects.down = True
    for call in (lambda: store.put("acme", SHA256, DATA), lambda: store.put_evidence("acme", DATA, ".png")):
        with pytest.raises(StoreUnavailable):
            call()
    assert store.names() == []


def test_settings_cross_process_borders(tmp_path: Path) -> None:
    keys = KeySettings(url="s3://vault", master_keys={"m": tmp_path / "master"}, current="m")
    settings = StoreSettings(url="s3://evidence", options={"region": "eu-west-1"}, keys=keys)
    assert pickle.loads(pickle.dumps(settings)) == settings


def test_a_store_opens_as_the_settings_say(tmp_path: Path) -> None:
    (tmp_path / "master").write_text("AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA=\n", encoding="ascii")
    keys = KeySettings(url=(tmp_path / "k").as_uri(), master_keys={"m": tmp_path / "master"}, current="m")
    settings = StoreSettings(url=(tmp_path / "s").as_uri(), keys=keys)
    open_store(settings).put("acme", SHA256, DATA)
    assert open_store(settings).get("acme", SHA256) == DATA
    assert open_store(StoreSettings(url="memory://")).keys is None
