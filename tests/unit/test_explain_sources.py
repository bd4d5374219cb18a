"""Where `mediasieve explain` finds the records of a decision."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from uuid import UUID

import orjson
import pytest

from pipeline.evidence.archive import BY_DECISION, Archive, Erased
from pipeline.evidence.request import erase_media
from pipeline.streaming.codec import TopicNames
from pipeline.streaming.transport import RawRecord, TopicPartition
from schemas.erasure import Erasure, ErasureCause
from schemas.topics import Topic
from schemas.wire import encode
from tests.support.evidence import Desk, record_bytes
from tests.support.explaining import NO_PROVER, TENANT, Case, finding, review
from workers.explain.archived import ArchiveSource
from workers.explain.collect import explain
from workers.explain.events import Place, read_event
from workers.explain.evidence import EvidenceReader
from workers.explain.sources import FindingUnreadable, Records, find_in, from_file
from workers.explain.story import Held
from workers.explain.topics import naming, sort_records

UNKNOWN = UUID(int=9)


def archive_of(case: Case) -> Archive:
    return Archive(case.store, case.store.objects)


def source_of(case: Case) -> ArchiveSource:
    return ArchiveSource(archive_of(case), "the store")


def test_an_unknown_decision_is_found_nowhere(tmp_path: Path) -> None:
    case = Case()
    file = tmp_path / "finding.json"
    file.write_bytes(finding(case.released()))
    assert find_in([source_of(case), from_file(file)], UNKNOWN) is None


def test_the_archive_gives_the_record_with_its_place() -> None:
    case = Case()
    decision = case.blocked()
    value = finding(decision)
    archive_of(case).put(decision, value, Topic.BLOCK, 3, 17)
    found = source_of(case).find(decision.decision_uid)
    assert found is not None
    assert [(e.value, e.place) for e in found.events] == [(value, Place(Topic.BLOCK, 3, 17))]
    assert explain(found, EvidenceReader(case.store), NO_PROVER, None).story.events[0].place == "decisions.block[3]@17"


def test_an_erased_record_leaves_outcome_time_and_reason_of_its_erasure() -> None:
    case = Case()
    decision = case.blocked()
    archive = archive_of(case)
    pointer = archive.put(decision, finding(decision), Topic.BLOCK, 3, 17)
    assert case.store.keys is not None
    case.store.keys.destroy(TENANT, pointer.record_sha256)
    when = datetime(2032, 2, 1, tzinfo=UTC)
    archive.mark_erased(
        pointer,
        Erased(erasure_id=UUID(int=1), cause=ErasureCause.REQUEST, actor="dpo", detail="article 17", erased_at=when),
    )
    found = source_of(case).find(decision.decision_uid)
    assert found is not None
    story = explain(found, EvidenceReader(case.store), NO_PROVER, None).story
    assert story.headline == (
        "The outcome was block, decided on 2026-01-31 12:00:03 UTC. "
        "Erased on 2032-02-01 00:00:00 UTC by request (dpo): article 17"
    )
    assert story.verdict is None
    assert [(p.kind, p.held, p.sha256) for p in story.evidence] == [
        ("decision_record", Held.ERASED, pointer.record_sha256)
    ]
    assert [e.detail for e in story.erasures] == ["article 17"]
    assert story.holds


def test_after_an_ordinary_erasure_nothing_is_called_missing() -> None:
    desk = Desk()
    made = desk.decide("m1")
    records = Records("a file", (read_event(record_bytes(made)),))
    erase_media(desk.archive, desk.eraser, "acme", "m1", actor="dpo", reason="article 17")
    found = find_in([ArchiveSource(desk.archive, "the store")], made.decision_uid)
    assert found is not None
    story = explain(found, EvidenceReader(desk.store), NO_PROVER, None).story
    assert [(p.kind, p.held) for p in story.evidence] == [("decision_record", Held.ERASED)]
    assert "article 17" in story.headline
    found = find_in([ArchiveSource(desk.archive, "the store"), records], made.decision_uid)
    assert found is not None
    story = explain(found, EvidenceReader(desk.store), NO_PROVER, None).story
    assert {p.held for p in story.evidence} == {Held.ERASED}
    assert all("article 17" in p.said for p in story.evidence)


def test_without_keys_too_nothing_is_called_missing_after_an_erasure() -> None:
    desk = Desk(encrypted=False)
    made = desk.decide("m1")
    records = Records("a file", (read_event(record_bytes(made)),))
    erase_media(desk.archive, desk.eraser, "acme", "m1", actor="dpo", reason="article 17")
    found = find_in([ArchiveSource(desk.archive, "the store"), records], made.decision_uid)
    assert found is not None
    story = explain(found, EvidenceReader(desk.store), NO_PROVER, None).story
    assert {p.held for p in story.evidence} == {Held.ERASED}


def test_a_record_that_is_not_the_pointers_does_not_hold() -> None:
    case = Case()
    ours, theirs = case.blocked(), replace(case, media_id="img-2").blocked()
    archive = archive_of(case)
    mine, other = (
        archive.put(ours, finding(ours), Topic.BLOCK, 0, 1),
        archive.put(theirs, finding(theirs), Topic.BLOCK, 0, 2),
    )
    exchanged = mine.model_copy(update={"record_uri": other.record_uri, "record_sha256": other.record_sha256})
    case.store.objects.replace(f"{BY_DECISION}{mine.place}.json", exchanged.model_dump_json().encode())
    found = source_of(case).find(ours.decision_uid)
    assert found is not None
    story = explain(found, EvidenceReader(case.store), NO_PROVER, None).story
    assert [(p.kind, p.held) for p in story.evidence] == [("decision_record", Held.DIGEST_DIFFERS)]
    assert not story.holds


@pytest.mark.parametrize(("change", "held"), [("lost", Held.MISSING), ("changed", Held.DIGEST_DIFFERS)])
def test_a_record_that_is_lost_or_changed_is_said(change: str, held: Held) -> None:
    case = Case()
    decision = case.blocked()
    pointer = archive_of(case).put(decision, finding(decision), Topic.BLOCK, 0, 1)
    if change == "lost":
        case.store.delete(pointer.record.key)
    else:
        sealed = case.store.objects.read(pointer.record.key)
        case.store.objects.replace(pointer.record.key, sealed[:-1] + bytes([sealed[-1] ^ 1]))
    found = source_of(case).find(decision.decision_uid)
    assert found is not None
    story = explain(found, EvidenceReader(case.store), NO_PROVER, None).story
    assert story.evidence[0].held is held
    assert story.holds is (held is not Held.DIGEST_DIFFERS)


def test_a_file_holds_one_finding_or_one_a_line(tmp_path: Path) -> None:
    case = Case()
    first, second = case.released(), replace(case, media_id="img-2").blocked()
    one, many = tmp_path / "one.json", tmp_path / "many.jsonl"
    one.write_bytes(orjson.dumps(orjson.loads(finding(first)), option=orjson.OPT_INDENT_2))
    many.write_bytes(finding(first) + b"\n\n" + finding(second) + b"\n")
    assert from_file(one).find(first.decision_uid) is not None
    found = from_file(many).find(second.decision_uid)
    assert found is not None
    assert found.events[0].value == finding(second)
    assert from_file(many).uids(TENANT, "img-2") == (second.decision_uid,)


@pytest.mark.parametrize(
    ("data", "message"), [(b"", "is empty"), (b"{}\n", "line 1"), (b'{"a": 1}\n{"b"', "line 1"), (b"\xff", "line 1")]
)
def test_a_file_without_findings_is_refused_by_name_and_line(tmp_path: Path, data: bytes, message: str) -> None:
    file = tmp_path / "finding.json"
    file.write_bytes(data)
    with pytest.raises(FindingUnreadable, match=rf"finding\.json.*{message}"):
        from_file(file)


def test_topics_give_findings_reviews_and_erasures_and_count_the_rest() -> None:
    case = Case()
    decision = case.escalated()
    erasure = Erasure(
        erasure_id=UUID(int=3),
        tenant=TENANT,
        media_id=case.media_id,
        sha256s=("0" * 64,),
        cause=ErasureCause.RETENTION,
        actor="sweep",
        detail="30 d",
        erased_at=datetime(2026, 3, 1, tzinfo=UTC),
    )
    raw = [
        RawRecord(TopicPartition(f"p.{topic.value}", 2), 5, None, value)
        for topic, value in (
            (Topic.ESCALATE, finding(decision)),
            (Topic.REVIEWS, encode(review(decision))),
            (Topic.ERASURES, encode(erasure)),
            (Topic.PASS, b"no finding"),
        )
    ]
    records = sort_records(raw, TopicNames("p"), "the topics")
    found = records.find(decision.decision_uid)
    assert found is not None
    assert found.events[0].place == Place(Topic.ESCALATE, 2, 5)
    assert [r.reviewer for r in found.reviews] == ["ana"]
    assert [e.actor for e in found.erasures] == ["sweep"]
    assert found.notes == ("records on the topics that could not be read: 1",)


def test_only_what_names_the_decision_is_kept_of_the_topics() -> None:
    case = Case()
    mine, other = case.escalated(), replace(case, media_id="img-2").blocked()
    raw = [
        RawRecord(TopicPartition(topic.value, 0), offset, None, value)
        for offset, (topic, value) in enumerate(
            [(Topic.ESCALATE, finding(mine)), (Topic.BLOCK, finding(other)), (Topic.ERASURES, b"{}")]
        )
    ]
    assert [r.offset for r in naming(str(mine.decision_uid), raw, TopicNames())] == [0, 2]


def test_sources_complete_each_other_and_no_record_is_told_twice() -> None:
    case = Case()
    decision = case.escalated()
    value = finding(decision)
    archive_of(case).put(decision, value, Topic.ESCALATE, 0, 1)
    told = Records("a file", (read_event(value),), (review(decision),))
    found = find_in([source_of(case), told], decision.decision_uid)
    assert found is not None
    assert found.source == "the archive in the store and a file"
    assert len(found.events) == 1
    assert len(found.reviews) == 1


def test_other_decisions_on_the_media_are_named_the_latest_last() -> None:
    case = Case()
    decision = case.blocked()
    later_uid = UUID(int=4)
    later = decision.model_copy(
        update={
            "decision_uid": later_uid,
            "admission": decision.admission.model_copy(update={"decision_uid": later_uid}),
            "decided_at": datetime(2027, 1, 1, tzinfo=UTC),
        }
    )
    archive = archive_of(case)
    for offset, each in enumerate((later, decision)):
        archive.put(each, finding(each), Topic.BLOCK, 0, offset)
    source = source_of(case)
    assert source.uids(TENANT, case.media_id) == (decision.decision_uid, later_uid)
    found = source.find(decision.decision_uid)
    assert found is not None
    assert found.other_decisions == (later_uid,)
    assert source.uids(TENANT, "unknown") == ()
