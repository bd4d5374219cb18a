"""The runbooks' count sees what is lost, doubled or not of theirs."""

from __future__ import annotations

import orjson

from pipeline.streaming.transport import RawRecord, TopicPartition
from schemas.deadletter import DEAD_LETTER_HEADER
from schemas.topics import Topic
from tests.runbooks.count import Count


def decision(media_id: str, uid: str, **unmapped: object) -> RawRecord:
    made = {
        "decision_uid": uid,
        "reasons": [{"code": "uncertain"}],
        "admission": {"media_id": media_id, "bundle_version": "a"},
    }
    value = orjson.dumps({"unmapped": {"mediasieve": made, **unmapped}})
    return RawRecord(TopicPartition(Topic.ESCALATE, 0), 0, None, value)


def letter(media_id: str) -> RawRecord:
    header = (DEAD_LETTER_HEADER, orjson.dumps({"media_id": media_id, "code": "source_gone"}))
    return RawRecord(TopicPartition(Topic.DEAD_LETTER, 0), 0, None, b"", (header,))


def count_of(*records: RawRecord) -> Count:
    found = Count()
    for record in records:
        found.add(record)
    return found


def test_one_answer_each_is_exact_and_reviews_are_no_answers() -> None:
    found = count_of(decision("one", "1"), letter("two"), decision("one", "1", review={"label": "photograph"}))
    assert found.exact({"one", "two"})
    assert found.line({"one", "two"}) == (
        "published 2, decided 1, dead letters 1, lost 0, answered again 0, decision_uids seen twice 0"
    )


def test_what_is_lost_is_named() -> None:
    found = count_of(decision("one", "1"))
    assert found.missing(["one", "two"]) == ["two"]
    assert not found.exact({"one", "two"})
    assert "lost 1," in found.line({"one", "two"})


def test_a_second_answer_is_not_exact() -> None:
    found = count_of(decision("one", "1"), decision("one", "1"))
    assert not found.exact({"one"})
    assert found.line({"one"}).endswith("answered again 1, decision_uids seen twice 1")


def test_two_media_under_one_uid_are_not_exact() -> None:
    assert not count_of(decision("one", "1"), decision("two", "1")).exact({"one", "two"})


def test_an_answer_that_nobody_asked_for_is_not_exact() -> None:
    assert not count_of(decision("one", "1"), decision("two", "2")).exact({"one"})
