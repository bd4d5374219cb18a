"""Bytes that come again are not taken away from the item that brought them."""

from __future__ import annotations

import os
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from pipeline.evidence.in_flight import longest_flight
from pipeline.evidence.request import erase_media
from pipeline.evidence.sweep import SweepRefused, least_age, sweep
from pipeline.media.content_store import FRESH_FOR
from schemas.decision import Decision, Outcome
from tests.support.evidence import Desk
from tests.support.evidence_files import put_at

NOW = datetime.now(UTC)
DECIDED = NOW - timedelta(days=31)


@pytest.fixture
def directory(tmp_path: Path) -> Path:
    return tmp_path / "store"


@pytest.fixture
def desk(directory: Path) -> Desk:
    made = Desk(url=directory.as_uri())
    made.now = NOW
    return made


@pytest.fixture
def due(desk: Desk, directory: Path) -> Decision:
    made = desk.decide("m1", Outcome.PASS, at=DECIDED)
    put_at(directory, DECIDED)
    return made


def again(desk: Desk) -> Decision:
    """The same bytes under another media id, not decided yet."""
    return desk.decide("m2", Outcome.BLOCK, at=NOW, archived=False)


def test_bytes_that_were_put_again_stay_for_the_item_on_its_way(desk: Desk, due: Decision) -> None:
    coming = again(desk)
    (applied,) = desk.apply()
    assert len(applied.plan.kept) == 2
    assert desk.readable(due)["record"] is False
    desk.commit(coming)
    assert all(desk.readable(coming).values())


def test_nothing_is_spared_without_such_an_item(desk: Desk, due: Decision) -> None:
    desk.apply()
    assert not any(desk.readable(due).values())


def test_a_request_spares_nothing(desk: Desk, due: Decision) -> None:
    coming = again(desk)
    erase_media(desk.archive, desk.eraser, "acme", "m1", actor="dpo", reason="r")
    assert desk.readable(coming)["content"] is False


def test_the_sweep_takes_what_was_spared_for_nothing(desk: Desk, due: Decision) -> None:
    again(desk)
    desk.apply()
    for age, left in ((44, 2), (46, 0)):
        desk.now = NOW + timedelta(days=age)
        list(sweep(desk.archive, desk.vault, desk.holds, timedelta(days=45), desk.now, dry_run=False))
        found = [o.key for prefix in ("content", "evidence") for o in desk.store.objects.list(prefix)]
        assert len(found) == left


def test_the_sweep_leaves_an_old_orphan_that_came_again(desk: Desk, directory: Path) -> None:
    again(desk)
    put_at(directory, NOW - timedelta(days=100))
    coming = again(desk)
    assert list(sweep(desk.archive, desk.vault, desk.holds, timedelta(days=45), NOW, dry_run=False)) == []
    assert desk.readable(coming)["content"]


def test_bytes_that_came_again_hours_after_the_first_are_not_old_with_them(desk: Desk, directory: Path) -> None:
    desk.now = NOW + timedelta(days=30)
    first = desk.decide("m1", Outcome.PASS, at=NOW - timedelta(hours=20))
    put_at(directory, NOW - timedelta(hours=20))
    coming = again(desk)
    desk.apply()
    assert desk.readable(first)["record"] is False
    desk.commit(coming)
    assert all(desk.readable(coming).values())


def test_the_sweep_allows_for_what_was_not_put_again(desk: Desk) -> None:
    assert least_age() >= longest_flight() + FRESH_FOR
    with pytest.raises(SweepRefused, match="45d or more"):
        list(sweep(desk.archive, desk.vault, desk.holds, longest_flight(), NOW, dry_run=True))


@pytest.mark.parametrize(("age", "renewed"), [(timedelta(minutes=30), False), (timedelta(hours=2), True)])
def test_a_put_makes_an_object_young_again_once_an_hour(
    desk: Desk, directory: Path, age: timedelta, *, renewed: bool
) -> None:
    made = again(desk)
    assert made.facts is not None
    file = directory / "content" / "acme" / made.facts.sha256
    put_at(directory, datetime.now(UTC) - age)
    before = os.stat(file)
    again(desk)
    assert (os.stat(file).st_mtime_ns > before.st_mtime_ns) is renewed
    assert all(v for k, v in desk.readable(made).items() if k != "record")
