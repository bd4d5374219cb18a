from __future__ import annotations

import os
from datetime import timedelta
from pathlib import Path

import pytest

from pipeline.evidence.in_flight import longest_flight
from pipeline.evidence.sweep import SweepRefused, Swept, sweep
from pipeline.media.errors import ContentMissing
from schemas.decision import Outcome
from schemas.erasure import ErasureCause
from tests.support.evidence import T0, Desk
from tests.support.evidence_files import put_at

AGE = timedelta(days=45)


@pytest.fixture
def directory(tmp_path: Path) -> Path:
    return tmp_path / "store"


@pytest.fixture
def desk(directory: Path) -> Desk:
    return Desk(url=directory.as_uri())


def run(desk: Desk, *, dry_run: bool = False) -> list[Swept]:
    return list(sweep(desk.archive, desk.vault, desk.holds, AGE, desk.now, dry_run=dry_run))


def test_old_objects_that_no_archived_decision_names_go(desk: Desk, directory: Path) -> None:
    kept = desk.decide("m1")
    orphan = desk.decide("m2", content=b"orphan", panel=b"orphan panel", archived=False)
    put_at(directory, T0)
    desk.after(days=45)
    assert {s.obstacle for s in run(desk, dry_run=True)} == {None}
    assert all(desk.readable(orphan).values())
    swept = run(desk)
    assert sorted(s.key.split("/")[0] for s in swept) == ["content", "evidence"]
    assert desk.readable(kept) == {"content": True, "spectral_panel": True, "record": True}
    assert desk.readable(orphan)["content"] is desk.readable(orphan)["spectral_panel"] is False
    assert run(desk) == []


def test_nothing_younger_goes(desk: Desk, directory: Path) -> None:
    desk.decide("m2", archived=False)
    put_at(directory, T0 + timedelta(seconds=1))
    desk.after(days=45)
    assert run(desk) == []


def test_an_old_object_stays_while_another_of_its_digest_is_young(desk: Desk, directory: Path) -> None:
    desk.decide("m2", archived=False, content=b"same", panel=None)
    put_at(directory, T0)
    uri, sha256 = desk.store.put_evidence("acme", b"same", ".png")
    young = directory / "evidence" / "acme" / f"{sha256}.png"
    os.utime(young, ((T0 + AGE).timestamp(),) * 2)
    desk.after(days=46)
    assert run(desk) == []
    assert desk.store.get_evidence(uri, sha256) == b"same"


def test_what_an_erased_decision_left_under_a_lock_goes_when_that_is_over(directory: Path) -> None:
    desk = Desk(url=directory.as_uri(), locking=True)
    made = desk.decide(outcome=Outcome.BLOCK)
    plan = desk.eraser.plan(desk.archive.unerased(made.decision_uid))
    done = desk.eraser.carry_out(plan, ErasureCause.REQUEST, "dpo", "r")
    put_at(directory, T0)
    desk.now = T0.replace(year=2107)
    assert {s.key for s in run(desk)} == set(done.locked)
    assert list(desk.store.objects.list("content")) == []


def test_a_tenants_hold_keeps_its_orphans_too(desk: Desk, directory: Path) -> None:
    desk.decide("m2", archived=False)
    desk.decide("m2", archived=False, tenant="other")
    hold = desk.holds.set("acme", None, "counsel", "case 12")
    put_at(directory, T0)
    desk.after(days=45)
    swept = run(desk)
    assert [s.obstacle for s in swept] == [f"legal hold {hold.hold_id} on all of acme"] * 2 + [None] * 2
    assert [o.key.split("/")[1] for o in desk.store.objects.list("content")] == ["acme"]


def test_an_age_at_which_something_may_be_on_its_way_is_refused(desk: Desk) -> None:
    assert longest_flight() == timedelta(days=7 + 7 + 30)
    with pytest.raises(SweepRefused, match="give 45d or more"):
        list(sweep(desk.archive, desk.vault, desk.holds, timedelta(days=43), desk.now, dry_run=True))


def test_objects_of_no_tenant_are_left(desk: Desk, directory: Path) -> None:
    desk.store.objects.create(f"evidence/{'0' * 64}.png", b"from an older release")
    desk.store.objects.create("archive/of/mine", b"")
    put_at(directory, T0)
    desk.after(days=45)
    assert run(desk) == []
    assert desk.store.objects.read(f"evidence/{'0' * 64}.png")


def test_a_key_is_destroyed_with_its_object(desk: Desk, directory: Path) -> None:
    made = desk.decide("m2", archived=False)
    assert made.facts is not None
    blob = (directory / "content" / "acme" / made.facts.sha256).read_bytes()
    put_at(directory, T0)
    desk.after(days=45)
    run(desk)
    (directory / "content" / "acme").mkdir(exist_ok=True)
    (directory / "content" / "acme" / made.facts.sha256).write_bytes(blob)
    with pytest.raises(ContentMissing, match="erased"):
        desk.store.get("acme", made.facts.sha256)
