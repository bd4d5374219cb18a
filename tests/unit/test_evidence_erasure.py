from __future__ import annotations

from datetime import timedelta

import pytest

from pipeline.evidence.erasure import Eraser, ErasureRefused
from pipeline.evidence.request import erase_media
from pipeline.media.errors import ContentErased, StoreUnavailable
from schemas.decision import Decision, Outcome
from schemas.erasure import ErasureCause
from tests.support.evidence import T0, BrokenJournal, Crash, Desk, MemoryLock, archived_records

GONE = {"content": False, "spectral_panel": False, "record": False}
THERE = {"content": True, "spectral_panel": True, "record": True}


def erase(desk: Desk, media_id: str = "m1", tenant: str = "acme") -> None:
    erase_media(desk.archive, desk.eraser, tenant, media_id, actor="dpo", reason="request 1")


def keys(desk: Desk, prefix: str) -> set[str]:
    return {o.key for o in desk.store.objects.list(prefix)}


def test_what_is_due_is_announced_then_unreadable_while_digests_stay() -> None:
    desk = Desk()
    made = desk.decide(outcome=Outcome.PASS)
    (record,) = archived_records(desk, made)
    desk.after(days=30)
    (applied,) = desk.apply()
    assert desk.readable(made) == GONE
    assert keys(desk, "content") == keys(desk, "evidence") == set()
    (announced,) = desk.journal.announced
    assert announced.erasure_id == applied.erasure_id
    assert (announced.tenant, announced.media_id, announced.cause) == ("acme", "m1", ErasureCause.RETENTION)
    assert set(announced.sha256s) == {made.facts and made.facts.sha256, made.evidence[0].sha256, record.record_sha256}
    assert archived_records(desk, made) == [record]
    mark = desk.archive.erased(record)
    assert mark is not None
    assert (mark.actor, mark.detail, mark.erased_at) == ("retention", "retention policy test", desk.now)
    assert desk.archive.find("acme", "m1") == [made.decision_uid]


def test_nothing_is_due_a_moment_earlier() -> None:
    desk = Desk()
    made = desk.decide(outcome=Outcome.PASS)
    desk.now = T0 + timedelta(days=30) - timedelta(microseconds=1)
    assert desk.apply() == []
    assert desk.readable(made) == THERE
    assert desk.journal.announced == []


def test_a_second_run_changes_nothing() -> None:
    desk = Desk()
    desk.decide(outcome=Outcome.PASS)
    desk.after(days=31)
    desk.apply()
    changes = desk.fuse.count
    assert desk.apply() == []
    assert desk.fuse.count == changes


def test_a_dry_run_says_the_same_and_changes_nothing() -> None:
    desk = Desk()
    for number in range(3):
        desk.decide(f"m{number}", Outcome.PASS, panel=b"shared panel", content=b"%d" % number)
    desk.after(days=31)
    changes = desk.fuse.count
    planned = desk.apply(dry_run=True)
    assert desk.fuse.count == changes
    assert [a.plan for a in planned] == [a.plan for a in desk.apply()]


def test_nothing_is_destroyed_when_the_erasure_cannot_be_announced() -> None:
    desk = Desk()
    made = desk.decide()
    desk.eraser = Eraser(desk.archive, desk.vault, desk.holds, BrokenJournal(), lambda: desk.now)
    with pytest.raises(StoreUnavailable):
        erase(desk)
    assert desk.readable(made) == THERE


def test_after_a_crash_at_any_step_a_repetition_ends_in_the_same_state() -> None:
    def filled() -> tuple[Desk, list[Decision]]:
        desk = Desk()
        made = [
            desk.decide("m1", Outcome.PASS),
            desk.decide("m1", Outcome.PASS, bundle="b2", panel=b"another panel"),
            desk.decide("m2", Outcome.PASS, content=b"other bytes"),
            desk.decide("m3", Outcome.BLOCK),
        ]
        desk.after(days=31)
        desk.fuse.count = 0
        return desk, made

    whole, _ = filled()
    whole.apply()
    wanted = {
        name: {o.key for o in objects.list("")}
        for name, objects in (("store", whole.store.objects), ("keys", whole.key_objects))
    }
    assert whole.fuse.count > 20
    for step in range(whole.fuse.count):
        desk, made = filled()
        desk.fuse.blow_at = step
        with pytest.raises(Crash):
            desk.apply()
        named = {sha256 for erasure in desk.journal.announced for sha256 in erasure.sha256s}
        for each in made:
            for ref in each.evidence:
                if not desk.readable(each)["spectral_panel"]:
                    assert ref.sha256 in named
        desk.fuse.blow_at = None
        desk.apply()
        assert {o.key for o in desk.store.objects.list("")} == wanted["store"]
        assert {o.key for o in desk.key_objects.list("")} == wanted["keys"]
        # m3 needs the content and the panel that m1 had too.
        assert [desk.readable(each) for each in made] == [
            {"content": True, "spectral_panel": True, "record": False},
            {"content": True, "spectral_panel": False, "record": False},
            {"content": False, "spectral_panel": True, "record": False},
            THERE,
        ]
        assert desk.apply() == []


def test_what_another_decision_of_the_tenant_needs_stays_until_that_one_is_due() -> None:
    desk = Desk()
    first = desk.decide("m1", Outcome.PASS)
    second = desk.decide("m2", Outcome.BLOCK)
    desk.after(days=31)
    (applied,) = desk.apply()
    assert {p.sha256 for p in applied.plan.kept} == {second.facts and second.facts.sha256, second.evidence[0].sha256}
    assert desk.readable(first) == THERE | {"record": False}
    assert desk.readable(second) == THERE
    desk.after(days=365 * 7)
    desk.apply()
    assert desk.readable(second) == GONE


def test_two_that_are_due_together_do_not_keep_each_other() -> None:
    desk = Desk()
    made = [desk.decide(f"m{number}", Outcome.PASS) for number in range(3)]
    desk.after(days=31)
    assert len(desk.apply()) == 3
    assert [desk.readable(each) for each in made] == [GONE] * 3


def test_erasing_one_tenants_copy_leaves_the_others() -> None:
    desk = Desk()
    ours, theirs = desk.decide(tenant="acme"), desk.decide(tenant="other")
    erase(desk)
    assert desk.readable(ours) == GONE
    assert desk.readable(theirs) == THERE
    assert {e.tenant for e in desk.journal.announced} == {"acme"}


def test_a_request_takes_all_decisions_on_a_media_id_before_they_are_due() -> None:
    desk = Desk()
    made = [desk.decide("m1", bundle=bundle) for bundle in ("b1", "b2")]
    other = desk.decide("m2", content=b"other", panel=b"other panel")
    erase(desk)
    assert [desk.readable(each) for each in made] == [GONE, GONE]
    assert desk.readable(other) == THERE
    (announced,) = desk.journal.announced
    assert (announced.cause, announced.actor, announced.detail) == (ErasureCause.REQUEST, "dpo", "request 1")


def test_a_request_for_nothing_and_a_second_request_say_so() -> None:
    desk = Desk()
    desk.decide()
    with pytest.raises(ErasureRefused, match="nothing is kept for tenant acme, media id m7"):
        erase(desk, "m7")
    with pytest.raises(ErasureRefused, match="nothing is kept for tenant other"):
        erase(desk, tenant="other")
    erase(desk)
    with pytest.raises(ErasureRefused, match="was erased already by dpo"):
        erase(desk)
    assert len(desk.journal.announced) == 1


def test_more_digests_than_a_record_holds_are_announced_in_several() -> None:
    desk = Desk()
    for number in range(40):
        desk.decide(bundle=f"b{number}", panel=b"%d" % number)
    erase(desk)
    sizes = [len(e.sha256s) for e in desk.journal.announced]
    assert sizes == [64, 17]  # one content, 40 panels, 40 records
    assert len({e.erasure_id for e in desk.journal.announced}) == 2


def test_reading_the_topic_again_does_not_bring_an_erased_record_back() -> None:
    desk = Desk(locking=True)
    made = desk.decide()
    erase(desk)
    desk._offset = 0
    desk.commit(made)
    assert desk.readable(made)["record"] is False
    with pytest.raises(ContentErased):
        desk.archive.value(archived_records(desk, made)[0])


def test_content_that_comes_again_after_its_erasure_is_kept_for_its_own_time() -> None:
    desk = Desk()
    desk.decide("m1", Outcome.PASS)
    desk.after(days=31)
    desk.apply()
    again = desk.decide("m2", Outcome.PASS, at=desk.now)
    assert desk.readable(again) == THERE
    assert desk.apply() == []
    desk.after(days=62)
    desk.apply()
    assert desk.readable(again) == GONE


def test_a_lock_does_not_keep_a_key_from_being_destroyed() -> None:
    desk = Desk(locking=True)
    made = desk.decide()
    _, done = erase_media(desk.archive, desk.eraser, "acme", "m1", actor="dpo", reason="r")
    assert desk.readable(made) == GONE
    assert set(done.locked) == keys(desk, "content") | keys(desk, "evidence")
    assert len(done.locked) == 3


def test_an_expired_lock_lets_the_object_go() -> None:
    desk = Desk(locking=True)
    desk.decide(outcome=Outcome.PASS)
    desk.after(days=30)
    (applied,) = desk.apply()
    assert applied.locked == ()
    assert keys(desk, "content") == keys(desk, "evidence") == set()


def test_without_keys_a_lock_stands_against_an_erasure_and_nothing_is_announced() -> None:
    desk = Desk(encrypted=False, locking=True)
    made = desk.decide()
    with pytest.raises(ErasureRefused, match=r"locked until 2106-01-01.*no key"):
        erase(desk)
    assert desk.readable(made) == THERE
    assert desk.journal.announced == []


def test_without_keys_and_lock_erasing_is_deleting() -> None:
    desk = Desk(encrypted=False)
    made = desk.decide()
    erase(desk)
    assert desk.readable(made) == GONE


def test_a_hold_in_the_store_alone_wins_too() -> None:
    desk = Desk(locking=True)
    made = desk.decide(outcome=Outcome.PASS)
    desk.lock.hold(made.evidence[0].uri.removeprefix("memory:///"), on=True)
    desk.after(days=31)
    (applied,) = desk.apply()
    assert applied.obstacle is not None
    assert "legal hold in the store" in applied.obstacle
    assert desk.readable(made) == THERE


def test_a_record_that_cannot_be_read_is_erased_under_the_digest_of_its_media_id() -> None:
    desk = Desk()
    made = desk.decide()
    (record,) = archived_records(desk, made)
    desk.store.objects.delete(record.record.key)
    erase(desk)
    assert desk.journal.announced[0].media_id == f"sha256:{record.media_id_sha256}"
    assert desk.readable(made) == GONE


def test_the_retainer_locks_all_that_a_decision_rests_on_until_it_is_due() -> None:
    desk = Desk(locking=True)
    made = desk.decide(outcome=Outcome.ESCALATE)
    assert isinstance(desk.lock, MemoryLock)
    assert {state.until for state in desk.lock.states.values()} == {T0.replace(year=2101)}
    assert set(desk.lock.states) == keys(desk, "content") | keys(desk, "evidence")
    desk.commit(made.model_copy(update={"sequence": 1, "outcome": Outcome.BLOCK}))
    assert {state.until for state in desk.lock.states.values()} == {T0.replace(year=2106)}
    desk.commit(made.model_copy(update={"sequence": 2}))
    assert {state.until for state in desk.lock.states.values()} == {T0.replace(year=2106)}
    assert len(desk.lock.states) == 5


def test_as_long_as_the_record_is_readable_a_repetition_names_the_media_id() -> None:
    whole = Desk()
    whole.decide(outcome=Outcome.PASS)
    whole.after(days=31)
    whole.fuse.count = 0
    whole.apply()
    half_done = 0
    for step in range(whole.fuse.count):
        desk = Desk()
        made = desk.decide(outcome=Outcome.PASS)
        desk.after(days=31)
        desk.fuse.count, desk.fuse.blow_at = 0, step
        with pytest.raises(Crash):
            desk.apply()
        left = desk.readable(made)
        desk.fuse.blow_at = None
        desk.apply()
        if left["record"]:
            assert {e.media_id for e in desk.journal.announced} == {"m1"}
            half_done += not (left["content"] and left["spectral_panel"])
    assert half_done >= 3
