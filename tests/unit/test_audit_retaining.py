"""What of the log's records goes to retention."""

from __future__ import annotations

import threading
from collections.abc import Sequence
from typing import Any, cast
from uuid import UUID

import pytest

from pipeline.evidence.retain import Retainer
from pipeline.media.errors import StoreUnavailable
from pipeline.streaming.transport import RawRecord, TopicPartition
from schemas.topics import Topic
from tests.support.audit import finding
from workers.audit.retaining import retaining

UID = UUID(int=5)


class Retained:
    """The one call that the worker makes of a Retainer."""

    def __init__(self) -> None:
        self.calls: list[tuple[Any, ...]] = []

    def committed(self, *arguments: Any) -> None:
        self.calls.append(arguments)


def record(topic: Topic, value: bytes) -> RawRecord:
    return RawRecord(TopicPartition(f"prefix.{topic}", 3), 17, None, value)


def hand_on(topic: Topic, value: bytes) -> list[tuple[Any, ...]]:
    retained = Retained()
    retaining(cast("Retainer", retained), 2)(topic, [record(topic, value)])
    return retained.calls


def places(uids: Sequence[UUID]) -> list[RawRecord]:
    tp = TopicPartition("decisions.block", 0)
    return [RawRecord(tp, at, None, finding(f"m{uid.int}", uid)) for at, uid in enumerate(uids)]


@pytest.mark.parametrize("topic", [Topic.BLOCK, Topic.ESCALATE, Topic.PASS])
def test_a_decision_goes_with_its_bytes_and_its_place(topic: Topic) -> None:
    value = finding("m", UID)
    ((decision, *rest),) = hand_on(topic, value)
    assert decision.decision_uid == UID
    assert rest == [value, topic, 3, 17]


def test_as_many_at_once_as_there_are_threads() -> None:
    together = threading.Barrier(8, timeout=30)

    class Meets:
        def committed(self, *_: Any) -> None:
            together.wait()

    retaining(cast("Retainer", Meets()), 8)(Topic.BLOCK, places([UUID(int=n) for n in range(8)]))


def test_records_of_one_decision_keep_their_order() -> None:
    retained = Retained()
    uids = [UUID(int=n % 3) for n in range(60)]
    retaining(cast("Retainer", retained), 8)(Topic.BLOCK, places(uids))
    assert len(retained.calls) == 60
    for uid in set(uids):
        offsets = [call[-1] for call in retained.calls if call[0].decision_uid == uid]
        assert offsets == sorted(offsets)


def test_a_failure_of_one_is_told_when_all_have_ended() -> None:
    class Fails(Retained):
        def committed(self, *arguments: Any) -> None:
            if arguments[-1] == 0:
                raise StoreUnavailable("away")
            super().committed(*arguments)

    retained = Fails()
    with pytest.raises(StoreUnavailable, match="away"):
        retaining(cast("Retainer", retained), 4)(Topic.BLOCK, places([UUID(int=n) for n in range(20)]))
    assert len(retained.calls) == 19


def test_what_is_no_decision_and_what_cannot_be_read_stays_away() -> None:
    assert hand_on(Topic.REVIEWS, finding("m", UID)) == []
    assert hand_on(Topic.BLOCK, b"{") == []
