"""Writers and erasures of the same bytes at the same time."""

from __future__ import annotations

import hashlib
from collections.abc import Callable

from pipeline.evidence.due import Applied, apply_retention
from pipeline.evidence.payload import Payload
from pipeline.media.content_store import ContentStore
from pipeline.media.key_store import DataKey, KeyStore
from pipeline.media.master_keys import MasterKeys
from pipeline.media.objects import Objects
from schemas.decision import Outcome
from tests.support.evidence import POLICY, T0, Desk

DATA = b"original bytes"
SHA256 = hashlib.sha256(DATA).hexdigest()
PAYLOAD = Payload(key=f"content/acme/{SHA256}", tenant="acme", sha256=SHA256)


class Interrupted(KeyStore):
    """Once, after a key was made or destroyed, something else happens first."""

    def __init__(self) -> None:
        super().__init__(Objects("memory://"), MasterKeys({"m": bytes(32)}, "m"))
        self.after_create: Callable[[], object] | None = None
        self.after_destroy: Callable[[], object] | None = None

    def create(self, tenant: str, sha256: str) -> DataKey:
        key = super().create(tenant, sha256)
        happens, self.after_create = self.after_create, None
        if happens is not None:
            happens()
        return key

    def destroy(self, tenant: str, sha256: str) -> bool:
        destroyed = super().destroy(tenant, sha256)
        happens, self.after_destroy = self.after_destroy, None
        if happens is not None:
            happens()
        return destroyed


def desk_with(keys: KeyStore) -> Desk:
    desk = Desk()
    desk.keys = desk.store.keys = keys
    desk.vault = type(desk.vault)(desk.store.objects, keys, desk.lock)
    return desk


def test_what_is_put_while_its_key_is_destroyed_is_sealed_under_the_next() -> None:
    keys = Interrupted()
    desk = desk_with(keys)
    keys.after_create = lambda: desk.vault.destroy(PAYLOAD, T0)
    desk.store.put("acme", SHA256, DATA)
    assert desk.store.get("acme", SHA256) == DATA


def test_evidence_that_is_put_while_its_key_is_destroyed_is_sealed_under_the_next() -> None:
    keys = Interrupted()
    desk = desk_with(keys)
    keys.after_create = lambda: keys.destroy("acme", SHA256)
    uri, sha256 = desk.store.put_evidence("acme", DATA, ".png")
    assert desk.store.get_evidence(uri, sha256) == DATA


def test_an_erasure_does_not_delete_what_came_again_meanwhile() -> None:
    keys = Interrupted()
    desk = desk_with(keys)
    desk.store.put("acme", SHA256, DATA)
    keys.after_destroy = lambda: desk.store.put("acme", SHA256, DATA)
    assert desk.vault.destroy(PAYLOAD, T0)
    assert desk.store.get("acme", SHA256) == DATA


def test_a_store_without_keys_puts_once() -> None:
    store = ContentStore("memory://")
    store.put("acme", SHA256, DATA)
    assert store.get("acme", SHA256) == DATA


def test_what_the_items_before_took_hours_for_is_judged_anew() -> None:
    desk = Desk()
    for number in range(2):
        desk.decide(f"m{number}", Outcome.PASS, content=b"%d" % number, panel=None)
    desk.after(days=31)
    run = apply_retention(desk.archive, POLICY, desk.eraser, desk.now, "retention", dry_run=False)
    first = next(run)
    assert isinstance(first, Applied)
    (other,) = {"m0", "m1"} - {desk.journal.announced[0].media_id}
    reviewed = desk.decide(other, Outcome.BLOCK, content=other[1:].encode(), panel=None, sequence=1)
    assert list(run) == []
    assert all(desk.readable(reviewed).values())
