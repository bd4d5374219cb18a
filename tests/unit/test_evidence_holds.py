from __future__ import annotations

from datetime import timedelta
from uuid import uuid4

import pytest
from pydantic import ValidationError

from pipeline.evidence.due import Applied, Unreadable
from pipeline.evidence.erasure import ErasureRefused
from pipeline.evidence.hold_locks import align_object_holds
from pipeline.evidence.legal_hold import HOLDS, Hold, HoldUnknown
from pipeline.evidence.request import erase_media
from schemas.decision import Outcome
from schemas.erasure import ErasureCause
from tests.support.evidence import T0, Desk, MemoryLock

THERE = {"content": True, "spectral_panel": True, "record": True}


@pytest.fixture
def desk() -> Desk:
    return Desk()


def hold(desk: Desk, media_id: str | None = "m1", tenant: str = "acme") -> Hold:
    return desk.holds.set(tenant, media_id, "counsel", "case 12")


def test_a_hold_wins_over_retention_until_it_is_released(desk: Desk) -> None:
    made = desk.decide(outcome=Outcome.PASS)
    held = hold(desk)
    desk.after(days=31)
    (applied,) = desk.apply()
    assert applied.erasure_id is None
    assert applied.obstacle is not None
    assert f"legal hold {held.hold_id} of counsel since {T0}: case 12" in applied.obstacle
    assert desk.readable(made) == THERE
    assert desk.journal.announced == []
    desk.holds.release(held.hold_id, "counsel", "closed")
    assert [a.obstacle for a in desk.apply()] == [None]
    assert not any(desk.readable(made).values())


def test_a_hold_refuses_a_request(desk: Desk) -> None:
    made = desk.decide()
    hold(desk)
    with pytest.raises(ErasureRefused, match=r"legal hold .* counsel .* case 12"):
        erase_media(desk.archive, desk.eraser, "acme", "m1", actor="dpo", reason="r")
    assert desk.readable(made) == THERE
    assert desk.journal.announced == []


def test_a_hold_that_comes_between_plan_and_deed_counts(desk: Desk) -> None:
    made = desk.decide()
    plan = desk.eraser.plan(desk.archive.get(made.decision_uid))
    hold(desk)
    with pytest.raises(ErasureRefused, match="case 12"):
        desk.eraser.carry_out(plan, ErasureCause.REQUEST, "a", "d")
    assert desk.readable(made) == THERE


def test_of_several_holds_one_is_enough(desk: Desk) -> None:
    made = desk.decide(outcome=Outcome.PASS)
    first, second = hold(desk), hold(desk)
    desk.after(days=31)
    desk.holds.release(first.hold_id, "counsel", "closed")
    assert desk.apply()[0].obstacle is not None
    assert desk.readable(made) == THERE
    desk.holds.release(second.hold_id, "counsel", "closed")
    assert desk.apply()[0].obstacle is None


def test_a_hold_on_everything_of_a_tenant_covers_what_is_yet_to_come(desk: Desk) -> None:
    hold(desk, None)
    ours = desk.decide("m9", Outcome.PASS)
    theirs = desk.decide("m9", Outcome.PASS, tenant="other")
    desk.after(days=31)
    assert [a.obstacle is None for a in desk.apply()] == [False, True]
    assert desk.readable(ours) == THERE
    assert not any(desk.readable(theirs).values())


def test_what_is_held_keeps_what_it_shares_with_a_media_item_that_is_not(desk: Desk) -> None:
    held = desk.decide("m1", Outcome.PASS)
    other = desk.decide("m2", Outcome.PASS)
    hold(desk, "m1")
    desk.after(days=31)
    desk.apply()
    assert desk.readable(held) == THERE
    assert desk.readable(other) == THERE | {"record": False}


def test_the_history_stays(desk: Desk) -> None:
    first = hold(desk)
    desk.after(days=1)
    second = hold(desk, None)
    desk.holds.release(first.hold_id, "clerk", "case closed")
    found = desk.holds.every()
    assert [h.hold_id for h in found] == [first.hold_id, second.hold_id]
    assert found[0].released is not None
    assert (found[0].released.actor, found[0].released.reason) == ("clerk", "case closed")
    assert found[0].released.released_at == T0 + timedelta(days=1)
    assert found[1] == second


def test_a_second_release_changes_nothing(desk: Desk) -> None:
    held = hold(desk)
    first = desk.holds.release(held.hold_id, "clerk", "closed")
    desk.after(days=1)
    assert desk.holds.release(held.hold_id, "other", "again") == first


def test_an_unknown_hold_and_an_empty_reason_are_refused(desk: Desk) -> None:
    with pytest.raises(HoldUnknown, match="hold list"):
        desk.holds.release(uuid4(), "clerk", "closed")
    with pytest.raises(ValidationError, match="reason"):
        desk.holds.set("acme", "m1", "counsel", "")
    assert desk.holds.every() == []


def test_a_damaged_hold_keeps_its_item_rather_than_counting_as_none(desk: Desk) -> None:
    made = desk.decide(outcome=Outcome.PASS)
    other = desk.decide("m2", Outcome.PASS, content=b"other", panel=None)
    desk.store.objects.replace(hold(desk).key, b"{")
    desk.after(days=31)
    kept, erased = sorted(desk.apply_all(), key=lambda each: isinstance(each, Applied))
    assert isinstance(kept, Unreadable)
    assert HOLDS in kept.cause
    assert kept.decision_uids == (made.decision_uid,)
    assert isinstance(erased, Applied)
    assert desk.readable(made) == THERE
    assert desk.readable(other)["content"] is False


def test_a_store_that_can_hold_is_told_and_shared_objects_stay_held() -> None:
    desk = Desk(locking=True)
    assert isinstance(desk.lock, MemoryLock)
    desk.decide("m1")
    desk.decide("m2")
    first, second = hold(desk, "m1"), hold(desk, "m2")
    assert align_object_holds(desk.archive, desk.holds, desk.lock, first) == 3
    align_object_holds(desk.archive, desk.holds, desk.lock, second)
    assert held_count(desk.lock) == 4  # content and panel of both, a record each
    desk.holds.release(first.hold_id, "clerk", "closed")
    align_object_holds(desk.archive, desk.holds, desk.lock, first)
    assert held_count(desk.lock) == 3
    desk.holds.release(second.hold_id, "clerk", "closed")
    align_object_holds(desk.archive, desk.holds, desk.lock, second)
    assert held_count(desk.lock) == 0


def test_a_tenants_hold_reaches_its_objects_and_those_that_come() -> None:
    desk = Desk(locking=True)
    assert isinstance(desk.lock, MemoryLock)
    desk.decide("m1", tenant="other")
    desk.decide("m1")
    align_object_holds(desk.archive, desk.holds, desk.lock, hold(desk, None))
    assert held_count(desk.lock) == 3
    desk.decide("m2", content=b"new", panel=b"new panel")
    assert held_count(desk.lock) == 6


def test_a_store_that_cannot_hold_is_not_asked(desk: Desk) -> None:
    desk.decide()
    assert align_object_holds(desk.archive, desk.holds, desk.lock, hold(desk)) == 0


def held_count(lock: MemoryLock) -> int:
    return sum(state.held for state in lock.states.values())
