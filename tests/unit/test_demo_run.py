"""What became of every reference that a demo published."""

from __future__ import annotations

import pytest

from pipeline.streaming.codec import Codec, Identity, TopicNames
from pipeline.streaming.failure import DeadLetterLimits, SourceRate
from pipeline.streaming.stage import Output, Reject
from pipeline.streaming.transport import OutRecord, RawRecord, TopicPartition
from schemas.deadletter import RejectCode
from schemas.decision import Decision, Outcome, ReasonCode
from schemas.media import MediaReference, StageTiming
from schemas.topics import DECISION_TOPICS
from schemas.types import StageName
from tests.support.cases import decision
from tests.support.entries import item
from tests.support.streaming import FakeClock
from workers.demo_media import DemoItem
from workers.demo_run import Tally

NAMES = TopicNames("demo")
CODEC: Codec[MediaReference] = Codec(
    stage=StageName.CLASSIFIER,
    version="v1",
    model=MediaReference,
    identity=lambda r: Identity(r.media_id, "default", ""),
    cluster="kafka",
    names=NAMES,
    clock=FakeClock(),
    source_rate=SourceRate(DeadLetterLimits()),
)
INPUT = RawRecord(TopicPartition("demo.media.ingest", 0), 4, None, b"{}")


@pytest.fixture
def tally() -> Tally:
    return Tally({m: DemoItem(f"file:///{m}", "photograph", "") for m in ("m-1", "m-2")}, NAMES)


def read_back(out: OutRecord) -> RawRecord:
    return RawRecord(TopicPartition(out.topic, 0), 0, out.key, out.value, out.headers)


def decided(media_id: str, made: Decision | None = None) -> RawRecord:
    made = made or decision()
    stamped = made.model_copy(update={"admission": made.admission.model_copy(update={"media_id": media_id})})
    (out,) = CODEC.write(
        INPUT, CODEC.trace(INPUT), item(media_id), (Output(DECISION_TOPICS[made.outcome], "k", stamped),)
    )
    return read_back(out)


def dead(media_id: str, code: RejectCode = RejectCode.SOURCE_GONE) -> RawRecord:
    return read_back(CODEC.dead_letter(INPUT, CODEC.trace(INPUT), item(media_id), Reject(code, "404")))


def test_at_first_everything_is_pending(tally: Tally) -> None:
    assert tally.pending == ["m-1", "m-2"]
    assert not tally.complete


def test_each_answered_once_is_complete(tally: Tally) -> None:
    assert tally.add(decided("m-1")) == "m-1"
    assert tally.pending == ["m-2"]
    assert tally.add(dead("m-2")) == "m-2"
    assert tally.complete


@pytest.mark.parametrize("second", [decided, dead])
def test_two_answers_of_any_kind_are_doubled(tally: Tally, second: object) -> None:
    assert callable(second)
    tally.add(dead("m-2"))
    tally.add(decided("m-1"))
    tally.add(second("m-1"))
    assert (tally.pending, tally.doubled, tally.complete) == ([], ["m-1"], False)


def test_records_of_another_run_are_not_counted(tally: Tally) -> None:
    assert tally.add(decided("m-9")) is None
    assert tally.add(dead("m-9")) is None
    assert tally.summary()["outcomes"] == {}
    assert tally.summary()["dead_letters"] == {}


def test_forget_counts_from_nothing_again(tally: Tally) -> None:
    tally.add(decided("m-1"))
    tally.add(dead("m-2"))
    tally.forget()
    assert tally.pending == ["m-1", "m-2"]
    tally.add(decided("m-1"))
    assert tally.doubled == []


def test_the_summary_counts_by_outcome_stage_and_reason(tally: Tally) -> None:
    tally.add(decided("m-1"))
    tally.add(decided("m-2", decision(Outcome.ESCALATE, ReasonCode.MEDIA_TRUNCATED)))
    tally.add(dead("m-2", RejectCode.SOURCE_GONE))
    summary = tally.summary()
    assert summary["published"] == 2
    assert summary["outcomes"] == {"pass/released": 1, "escalate": 1}
    assert summary["stage_exited"] == {"classifier": 2}
    assert summary["reasons"] == {"score_below_t1": 1, "media_truncated": 1}
    assert summary["dead_letters"] == {"source_gone": 1}
    assert (summary["pending"], summary["doubled"], summary["complete"]) == ([], ["m-2"], False)


def test_latencies_are_waiting_and_work_by_stage(tally: Tally) -> None:
    for waited_ms in range(1, 11):
        timing = StageTiming(stage=StageName.CLASSIFIER, waited_ms=waited_ms, worked_ms=100.0)
        tally.add(decided("m-1", decision().model_copy(update={"timings": (timing,)})))
    assert tally.summary()["latency_ms"] == {"classifier": {"p50": 106.0, "p95": 110.0, "n": 10}}
