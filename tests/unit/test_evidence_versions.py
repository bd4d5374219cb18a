"""Bytes that come again are a new version of their object: what holds or opens an older one counts as well."""

from __future__ import annotations

import os
from datetime import timedelta
from pathlib import Path

import pytest

from pipeline.evidence.erasure import ErasureRefused
from pipeline.evidence.object_lock import LockState
from pipeline.evidence.payload import Payload
from pipeline.evidence.request import erase_media
from pipeline.evidence.sweep import Swept, sweep
from pipeline.media.errors import StoreUnavailable
from schemas.decision import Decision, Outcome
from tests.support.evidence import T0, Desk, MemoryLock
from tests.support.evidence_files import put_at

AGE = timedelta(days=46)
YEARS_LATER = T0.replace(year=2107)


@pytest.fixture
def desk() -> Desk:
    return Desk(locking=True)


def content_of(made: Decision) -> Payload:
    assert made.facts is not None
    tenant, sha256 = made.admission.tenant, made.facts.sha256
    return Payload(key=f"content/{tenant}/{sha256}", tenant=tenant, sha256=sha256)


def put_again(desk: Desk, made: Decision) -> None:
    """The same bytes, sealed anew over the old ones."""
    key = content_of(made).key
    desk.store.objects.replace(key, desk.store.objects.read(key))


def erase(desk: Desk) -> tuple[str, ...]:
    return erase_media(desk.archive, desk.eraser, "acme", "m1", actor="dpo", reason="r")[1].locked


def run(desk: Desk) -> list[Swept]:
    return list(sweep(desk.archive, desk.vault, desk.holds, AGE, desk.now, dry_run=False))


def test_a_hold_on_an_older_version_wins(desk: Desk) -> None:
    made = desk.decide()
    desk.lock.hold(content_of(made).key, on=True)
    put_again(desk, made)
    with pytest.raises(ErasureRefused, match="legal hold in the store"):
        erase(desk)
    assert all(desk.readable(made).values())


def test_a_lock_on_an_older_version_lets_the_erasure_end(desk: Desk) -> None:
    made = desk.decide()
    put_again(desk, made)
    assert content_of(made).key in erase(desk)
    assert not any(desk.readable(made).values())
    desk.now = YEARS_LATER
    assert desk.vault.destroy(content_of(made), desk.now)


def test_what_was_locked_in_plain_before_there_were_keys_is_not_called_erased() -> None:
    desk = Desk(locking=True)
    keys, desk.store.keys = desk.store.keys, None
    made = desk.decide()
    desk.store.keys = keys
    with pytest.raises(ErasureRefused, match=r"locked until .*no key"):
        erase(desk)
    assert desk.journal.announced == []
    assert all(desk.readable(made).values())


def test_a_plain_version_below_a_sealed_one_stands_against_an_erasure(desk: Desk) -> None:
    keys, desk.store.keys = desk.store.keys, None
    desk.decide(panel=None)
    desk.store.keys = keys
    made = desk.decide(panel=None)
    put_again(desk, made)
    with pytest.raises(ErasureRefused, match=r"a version .* lies there in plain"):
        erase(desk)
    assert all(desk.readable(made).values())


def test_a_lock_that_comes_between_the_plan_and_the_deed_stops_it(desk: Desk) -> None:
    keys, desk.store.keys = desk.store.keys, None
    made = desk.decide(archived=False)
    desk.store.keys = keys
    desk.lock.retain(content_of(made).key, YEARS_LATER, desk.now)
    with pytest.raises(StoreUnavailable, match="locked until"):
        desk.vault.destroy(content_of(made), desk.now)


@pytest.fixture
def on_disk(tmp_path: Path) -> Desk:
    return Desk(locking=True, url=tmp_path.as_uri())


def test_the_sweep_leaves_what_a_lock_forbids_with_all_that_shares_its_key(on_disk: Desk, tmp_path: Path) -> None:
    made = on_disk.decide("m2", content=b"same", panel=b"same", archived=False)
    on_disk.lock.retain(content_of(made).key, YEARS_LATER, on_disk.now)
    put_at(tmp_path, T0)
    on_disk.now = T0 + AGE
    assert {str(s.obstacle) for s in run(on_disk)} == {f"{content_of(made).key} is locked until {YEARS_LATER}"}
    assert on_disk.readable(made)["content"]
    assert on_disk.readable(made)["spectral_panel"]


def test_the_sweep_does_not_call_removed_what_an_erasure_left_locked(on_disk: Desk, tmp_path: Path) -> None:
    on_disk.decide(outcome=Outcome.BLOCK)
    locked = erase(on_disk)
    put_at(tmp_path, T0)
    on_disk.now = T0 + AGE
    assert {s.key for s in run(on_disk) if s.obstacle is not None} == set(locked)
    assert on_disk.lock.state(locked[0]) != LockState()


def test_the_sweep_asks_again_before_it_removes(tmp_path: Path) -> None:
    desk = Desk(url=tmp_path.as_uri())
    for number in range(3):
        desk.decide(f"m{number}", content=b"%d" % number, panel=None, archived=False)
    put_at(tmp_path, T0)
    desk.now = T0 + AGE
    swept = sweep(desk.archive, desk.vault, desk.holds, AGE, desk.now, dry_run=False)
    next(swept)
    left = [o.key for o in desk.store.objects.list("content")]
    for key in left:
        os.utime(tmp_path / key, (desk.now.timestamp(),) * 2)
    assert list(swept) == []
    assert [o.key for o in desk.store.objects.list("content")] == left


def test_the_lock_of_the_tests_refuses_as_s3_does(desk: Desk) -> None:
    assert isinstance(desk.lock, MemoryLock)
    made = desk.decide()
    put_again(desk, made)
    with pytest.raises(StoreUnavailable, match="AccessDenied"):
        desk.lock.delete(content_of(made).key)
