from __future__ import annotations

import hashlib
from datetime import timedelta
from pathlib import Path
from uuid import UUID

import pytest

from pipeline.evidence.archive import BY_DECISION, BY_MEDIA, ERASED, LIVE, Erased, LiveEntry, media_digest
from pipeline.evidence.payload import Payload
from pipeline.evidence.retention import RetentionPolicy, due_at
from pipeline.media.errors import ContentCorrupt
from pipeline.media.objects import Objects
from schemas.decision import Outcome, Risk
from schemas.erasure import ErasureCause
from schemas.ocsf import encode_finding, finding_from_closed_case
from schemas.topics import Topic
from tests.support.evidence import Crash, Desk, decision, record_bytes
from tests.support.findings import review_of


@pytest.fixture
def desk() -> Desk:
    return Desk()


def test_a_record_is_found_by_uid_and_by_media_id_with_its_exact_bytes_and_place(desk: Desk) -> None:
    made = decision("photo-1")
    value = record_bytes(made) + b"\n  "
    desk.archive.put(made, value, Topic.BLOCK, 3, 17)
    (found,) = desk.archive.get(made.decision_uid)
    assert (found.topic, found.partition, found.offset, found.sequence) == (Topic.BLOCK, 3, 17, 0)
    assert found.record_sha256 == hashlib.sha256(value).hexdigest()
    assert desk.archive.value(found) == value
    assert desk.archive.find("acme", "photo-1") == [made.decision_uid]
    assert desk.archive.find("other", "photo-1") == []
    assert desk.archive.find("acme", "photo-2") == []


def test_no_pointer_holds_the_media_id_or_the_uri(desk: Desk) -> None:
    desk.decide("very-secret-name")
    pointers = list(desk.store.objects.list("archive"))
    assert len(pointers) == 6  # by-decision, by-media, live, by-payload for content, panel and record
    for pointer in pointers:
        text = pointer.key.encode() + desk.store.objects.read(pointer.key)
        assert b"very-secret-name" not in text
        assert b"example.org" not in text


def test_the_record_lies_sealed(desk: Desk) -> None:
    made = desk.decide("very-secret-name")
    (found,) = desk.archive.get(made.decision_uid)
    assert b"very-secret-name" not in desk.store.objects.read(found.record.key)
    assert b"very-secret-name" in desk.archive.value(found)


def test_putting_again_changes_nothing(desk: Desk) -> None:
    made = decision()
    value = record_bytes(made)
    first = desk.archive.put(made, value, Topic.BLOCK, 0, 1)
    before = {o.key for o in desk.store.objects.list("")}
    assert desk.archive.put(made, value, Topic.BLOCK, 0, 1) == first
    assert {o.key for o in desk.store.objects.list("")} == before


def test_two_deliveries_of_one_reference_are_both_kept(desk: Desk) -> None:
    made = desk.decide(outcome=Outcome.ESCALATE)
    desk.commit(made)
    desk.commit(made.model_copy(update={"sequence": 1}))
    found = desk.archive.get(made.decision_uid)
    assert [(f.sequence, f.offset) for f in found] == [(0, 0), (0, 1), (1, 2)]


def test_the_sequence_is_in_order_beyond_nine(desk: Desk) -> None:
    made = decision()
    for sequence in (10, 9, 2, 0):
        changed = made.model_copy(update={"sequence": sequence})
        desk.archive.put(changed, record_bytes(changed), Topic.BLOCK, 0, sequence)
    assert [f.sequence for f in desk.archive.get(made.decision_uid)] == [0, 2, 9, 10]


def test_after_a_crash_at_any_step_of_put_a_repetition_makes_it_whole() -> None:
    whole = Desk()
    made = whole.decide()
    wanted = {o.key for o in whole.store.objects.list("archive")}
    steps = whole.fuse.count
    for step in range(steps):
        desk = Desk()
        desk.fuse.blow_at = step
        with pytest.raises(Crash):
            desk.decide()
        assert all(desk.readable(made).values()) or not desk.archive.get(made.decision_uid)
        desk.fuse.blow_at = None
        desk.decide()
        assert {o.key for o in desk.store.objects.list("archive")} == wanted
        assert all(desk.readable(made).values())


def test_a_released_pass_is_not_archived(desk: Desk) -> None:
    made = decision(outcome=Outcome.PASS, risk=Risk.RELEASED)
    desk.commit(made)
    assert list(desk.store.objects.list("")) == []
    with pytest.raises(ValueError, match="released"):
        desk.archive.put(made, record_bytes(made), Topic.PASS, 0, 0)


def test_a_damaged_pointer_is_named(desk: Desk) -> None:
    made = desk.decide()
    (found,) = desk.archive.get(made.decision_uid)
    desk.store.objects.replace(f"{BY_DECISION}{found.place}.json", b'{"v": 1}')
    with pytest.raises(ContentCorrupt, match=f"{found.place}.json: decision_uid: Field required"):
        desk.archive.get(made.decision_uid)


def test_a_pointer_that_lies_at_anothers_place_is_named(desk: Desk) -> None:
    ours, theirs = desk.decide("m1"), desk.decide("m2", content=b"other")
    (our_record,), (their_record,) = desk.archive.get(ours.decision_uid), desk.archive.get(theirs.decision_uid)
    name = f"{BY_DECISION}{our_record.place}.json"
    desk.store.objects.replace(name, desk.store.objects.read(f"{BY_DECISION}{their_record.place}.json"))
    with pytest.raises(ContentCorrupt, match=f"{name}: holds the pointer to {their_record.place}"):
        desk.archive.get(ours.decision_uid)


@pytest.mark.parametrize("left", [b"", b'{"v":'])
def test_a_pointer_that_a_power_cut_left_is_written_again(desk: Desk, left: bytes) -> None:
    made = desk.decide()
    (found,) = desk.archive.get(made.decision_uid)
    desk.store.objects.replace(f"{BY_DECISION}{found.place}.json", left)
    desk.archive.put(made, record_bytes(made), Topic.BLOCK, 0, 0)
    assert desk.archive.get(made.decision_uid) == [found]


def test_an_empty_mark_of_an_erasure_is_none(desk: Desk) -> None:
    made = desk.decide()
    (found,) = desk.archive.get(made.decision_uid)
    desk.store.objects.create(f"{ERASED}{found.place}.json", b"")
    assert desk.archive.unerased(made.decision_uid) == [found]
    mark = Erased(erasure_id=UUID(int=1), cause=ErasureCause.REQUEST, actor="dpo", detail="r", erased_at=desk.now)
    desk.archive.mark_erased(found, mark)
    assert desk.archive.erased(found) == mark


def test_on_local_disk_all_that_is_archived_is_flushed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    synced: list[str] = []
    sync = Objects.sync

    def note(self: Objects, key: str) -> None:
        sync(self, key)
        synced.append(key)

    monkeypatch.setattr(Objects, "sync", note)
    desk = Desk(encrypted=False, url=tmp_path.as_uri())
    made = desk.decide()
    (found,) = desk.archive.get(made.decision_uid)
    assert {found.record.key} | {o.key for o in desk.store.objects.list("archive")} == set(synced)
    hold = desk.holds.set("acme", "m1", "counsel", "case")
    desk.holds.release(hold.hold_id, "counsel", "closed")
    assert {o.key for o in desk.store.objects.list("holds")} <= set(synced)


def test_payloads_of_another_tenant_and_of_no_tenant_are_not_ours(desk: Desk) -> None:
    uri, sha256 = desk.store.put_evidence("other", b"theirs", ".png")
    foreign = [{"kind": "x", "uri": uri, "sha256": sha256}, {"kind": "y", "uri": "https://a.b/c", "sha256": sha256}]
    made = decision().model_dump() | {"evidence": foreign}
    found = desk.archive.put(type(decision()).model_validate(made), b"{}", Topic.BLOCK, 0, 0)
    assert [p.key for p in found.payloads] == [f"content/acme/{'0' * 64}"]


@pytest.mark.parametrize("key", ["evidence/a/x.png", f"evidence/{'0' * 64}.png", f"keys/a/{'0' * 64}", "", "content"])
def test_what_is_no_payload(key: str) -> None:
    assert Payload.of_key(key) is None


def test_the_media_folder_is_named_by_digest_alone(desk: Desk) -> None:
    desk.decide("photo-1")
    (pointer,) = desk.store.objects.list(BY_MEDIA)
    assert pointer.key.startswith(f"{BY_MEDIA}acme/{media_digest('photo-1')}/")


def test_what_is_not_erased_is_listed_with_what_its_period_depends_on(desk: Desk) -> None:
    made = desk.decide(outcome=Outcome.PASS, risk=Risk.CLEARED)
    desk.decide(tenant="other")
    (record,) = desk.archive.get(made.decision_uid)
    (entry,) = desk.archive.live("acme")
    assert entry == LiveEntry("acme", "cleared", record.decided_at.date(), record.place) == record.live
    assert entry.decision_uid == made.decision_uid
    assert {e.tenant for e in desk.archive.live()} == {"acme", "other"}
    desk.store.objects.replace(f"{LIVE}acme/block/yesterday/x", b"")
    with pytest.raises(ContentCorrupt, match="block/yesterday/x"):
        list(desk.archive.live())


@pytest.mark.parametrize(
    ("outcome", "risk", "topic", "kind"),
    [
        (Outcome.ESCALATE, None, Topic.BLOCK, "block"),
        (Outcome.PASS, Risk.LOW_RISK, Topic.BLOCK, "block"),
        (Outcome.PASS, Risk.RELEASED, Topic.BLOCK, "block"),
        (Outcome.PASS, Risk.LOW_RISK, Topic.ESCALATE, "escalate"),
        (Outcome.BLOCK, None, Topic.PASS, "cleared"),
        (Outcome.PASS, Risk.LOW_RISK, Topic.PASS, "low_risk"),
    ],
)
def test_what_people_decided_is_kept_as_their_outcome(
    desk: Desk, outcome: Outcome, risk: Risk | None, topic: Topic, kind: str
) -> None:
    made = decision(outcome=outcome, risk=risk)
    assert desk.archive.put(made, record_bytes(made), topic, 0, 1).kind == kind


def test_a_record_of_another_topic_is_not_archived(desk: Desk) -> None:
    made = decision()
    with pytest.raises(ValueError, match=r"reviews\.verdicts: expected one of decisions\.block"):
        desk.archive.put(made, record_bytes(made), Topic.REVIEWS, 0, 1)


def test_the_period_of_peoples_word_begins_with_it(desk: Desk) -> None:
    made = decision(outcome=Outcome.ESCALATE)
    review = review_of(made).model_copy(update={"reviewed_at": made.decided_at + timedelta(days=300)})
    desk.archive.put(made, record_bytes(made), Topic.ESCALATE, 0, 1)
    closed = encode_finding(finding_from_closed_case(made, review, review.reviewed_at, 2))
    desk.archive.put(made, closed, Topic.BLOCK, 0, 2)
    periods = {"low_risk": "1d", "cleared": "1d", "escalate": "1y", "block": "30d"}
    policy = RetentionPolicy.model_validate({"version": "1", "default": periods})
    records = desk.archive.get(made.decision_uid)
    assert [r.counts_from for r in records] == [review.reviewed_at, made.decided_at]
    assert {e.day for e in desk.archive.live()} == {made.decided_at.date(), review.reviewed_at.date()}
    assert due_at(policy, records) == made.decided_at.replace(year=made.decided_at.year + 1)
    longer = RetentionPolicy.model_validate({"version": "1", "default": periods | {"block": "1y"}})
    assert due_at(longer, records) == review.reviewed_at.replace(year=review.reviewed_at.year + 1)
