"""What of the log's records goes to retention."""

from __future__ import annotations

from typing import Any, cast
from uuid import UUID

import pytest

from pipeline.evidence.retain import Retainer
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
    retaining(cast("Retainer", retained))(topic, record(topic, value))
    return retained.calls


@pytest.mark.parametrize("topic", [Topic.BLOCK, Topic.ESCALATE, Topic.PASS])
def test_a_decision_goes_with_its_bytes_and_its_place(topic: Topic) -> None:
    value = finding("m", UID)
    ((decision, *rest),) = hand_on(topic, value)
    assert decision.decision_uid == UID
    assert rest == [value, topic, 3, 17]


def test_what_is_no_decision_and_what_cannot_be_read_stays_away() -> None:
    assert hand_on(Topic.REVIEWS, finding("m", UID)) == []
    assert hand_on(Topic.BLOCK, b"{") == []
