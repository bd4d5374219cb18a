from __future__ import annotations

import hashlib
import resource
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from pipeline.media.content_store import ContentStore
from pipeline.media.errors import ContentCorrupt, ContentMissing, StoreUnavailable

DATA = b"original bytes" * 100
SHA256 = hashlib.sha256(DATA).hexdigest()


@pytest.fixture
def directory(tmp_path: Path) -> Path:
    return tmp_path / "a store"


@pytest.fixture(params=["file", "memory"])
def store(request: pytest.FixtureRequest, directory: Path) -> ContentStore:
    return ContentStore("memory://" if request.param == "memory" else directory.as_uri())


@pytest.fixture
def local(directory: Path) -> ContentStore:
    return ContentStore(directory.as_uri())


def test_content_comes_back_by_digest_and_by_uri(store: ContentStore) -> None:
    uri = store.put("acme", SHA256, DATA)
    assert uri.endswith(f"/content/acme/{SHA256}")
    assert store.get("acme", SHA256) == DATA
    assert store.get_uri(uri) == DATA


def test_empty_content_is_content(store: ContentStore) -> None:
    sha256 = hashlib.sha256(b"").hexdigest()
    assert store.get_uri(store.put("acme", sha256, b"")) == b""


def test_evidence_comes_back_and_lies_without_an_envelope(local: ContentStore, directory: Path) -> None:
    uri, sha256 = local.put_evidence("acme", b"\x89PNG panel", ".png")
    assert sha256 == hashlib.sha256(b"\x89PNG panel").hexdigest()
    assert local.get_uri(uri) == local.get_evidence(uri, sha256) == b"\x89PNG panel"
    assert (directory / "evidence" / "acme" / f"{sha256}.png").read_bytes() == b"\x89PNG panel"


def test_tenants_do_not_see_each_other(store: ContentStore) -> None:
    store.put("acme", SHA256, DATA)
    with pytest.raises(ContentMissing, match=SHA256):
        store.get("other", SHA256)


def test_putting_twice_is_fine(store: ContentStore) -> None:
    assert store.put("acme", SHA256, DATA) == store.put("acme", SHA256, DATA)
    assert store.put_evidence("acme", DATA, "") == store.put_evidence("acme", DATA, "")


def test_a_foreign_uri_is_refused(store: ContentStore) -> None:
    for uri in ("file:///etc/passwd", "memory:///evidence/../x", f"evidence/{SHA256}"):
        with pytest.raises(ValueError, match="not a URI of the store"):
            store.get_uri(uri)


@pytest.mark.parametrize("tenant", ["../up", "", "a/b", "-a"])
def test_a_malformed_tenant_is_refused(store: ContentStore, tenant: str) -> None:
    with pytest.raises(ValueError, match="pattern"):
        store.put(tenant, SHA256, DATA)


def test_a_wrong_digest_is_refused_before_anything_is_kept(store: ContentStore) -> None:
    with pytest.raises(ValueError, match="not the digest"):
        store.put("acme", "0" * 64, DATA)
    with pytest.raises(ContentMissing):
        store.get("acme", "0" * 64)


def test_a_malformed_suffix_is_refused(store: ContentStore) -> None:
    with pytest.raises(ValueError, match="suffix"):
        store.put_evidence("acme", DATA, "/../x")


@pytest.mark.parametrize(
    "damage",
    [
        lambda blob: blob[:-1] + bytes([blob[-1] ^ 1]),
        lambda blob: blob[:-1],
        lambda blob: blob + b"\0",
        lambda blob: b"",
        lambda blob: blob[:20],
        lambda blob: b"MSV1\xff\xff\xff\xff" + blob,
        lambda blob: b"MSV1\0\0\0\2[]" + DATA,
        lambda blob: DATA,
    ],
)
def test_any_damage_is_seen(local: ContentStore, directory: Path, damage: object) -> None:
    local.put("acme", SHA256, DATA)
    file = directory / "content" / "acme" / SHA256
    file.write_bytes(damage(file.read_bytes()))  # type: ignore[operator]  # a lambda above
    with pytest.raises(ContentCorrupt, match=SHA256):
        local.get("acme", SHA256)


def test_damaged_evidence_is_seen(local: ContentStore, directory: Path) -> None:
    uri, sha256 = local.put_evidence("acme", DATA, ".png")
    (directory / "evidence" / "acme" / f"{sha256}.png").write_bytes(b"forged")
    with pytest.raises(ContentCorrupt):
        local.get_uri(uri)


def test_evidence_of_another_digest_than_the_record_says_is_seen(store: ContentStore) -> None:
    uri, _ = store.put_evidence("acme", DATA, ".png")
    with pytest.raises(ContentCorrupt):
        store.get_evidence(uri, "0" * 64)


def test_an_object_left_empty_by_a_power_cut_is_healed_by_the_next_put(local: ContentStore, directory: Path) -> None:
    local.put("acme", SHA256, DATA)
    (directory / "content" / "acme" / SHA256).write_bytes(b"")
    local.put("acme", SHA256, DATA)
    assert local.get("acme", SHA256) == DATA


def test_an_envelope_of_a_newer_release_waits_for_the_upgrade(local: ContentStore, directory: Path) -> None:
    local.put("acme", SHA256, DATA)
    file = directory / "content" / "acme" / SHA256
    file.write_bytes(file.read_bytes().replace(b'"none"', b'"aes1"'))
    with pytest.raises(StoreUnavailable, match="upgrade"):
        local.get("acme", SHA256)


def test_many_threads_may_put_the_same_content(local: ContentStore, directory: Path) -> None:
    with ThreadPoolExecutor(8) as threads:
        uris = set(threads.map(lambda _: local.put("acme", SHA256, DATA), range(40)))
    assert len(uris) == 1
    assert local.get("acme", SHA256) == DATA
    assert [path.name for path in (directory / "content" / "acme").iterdir()] == [SHA256]


@pytest.fixture
def small_files() -> Iterator[None]:
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (4096, hard))
    yield
    resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


@pytest.mark.usefixtures("small_files")
def test_a_full_disk_is_unavailable_and_leaves_nothing_behind(local: ContentStore) -> None:
    data = bytes(100_000)
    sha256 = hashlib.sha256(data).hexdigest()
    with pytest.raises(StoreUnavailable, match="cannot put"):
        local.put("acme", sha256, data)
    with pytest.raises(ContentMissing):
        local.get("acme", sha256)


def test_a_directory_that_cannot_be_made_is_unavailable(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"")
    with pytest.raises(StoreUnavailable):
        ContentStore((tmp_path / "file" / "below").as_uri())


def test_an_unknown_kind_of_store_is_refused() -> None:
    with pytest.raises(ValueError, match="expected file:///dir"):
        ContentStore("ftp://host/dir")
