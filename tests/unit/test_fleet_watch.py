"""What the runner tells ends up in metrics and log lines."""

from __future__ import annotations

from collections.abc import Iterator, MutableMapping
from typing import Any

import pytest
import structlog

from pipeline.observability.health import Pulse
from pipeline.observability.metrics import Metrics
from pipeline.observability.report_metrics import Reading
from pipeline.observability.tracing import Span
from pipeline.observability.watch import FleetWatch
from pipeline.streaming.lag import Lag
from pipeline.streaming.stage import Defer, DeferScope, Output, Reject, Step
from pipeline.streaming.trace import RecordTrace
from schemas.deadletter import RejectCode
from schemas.decision import Outcome
from schemas.media import StageScore
from schemas.topics import Topic
from schemas.types import StageName
from tests.support.cases import decision
from tests.support.entries import entry
from tests.support.streaming import FakeClock


class Watched:
    """A FleetWatch and what it wrote."""

    def __init__(self, logs: list[MutableMapping[str, Any]]) -> None:
        self.clock = FakeClock()
        self.metrics = Metrics()
        self.pulse = Pulse(self.clock)
        self.watch = FleetWatch(self.metrics, self.pulse, self.clock)
        self.logs = logs

    def value(self, name: str, **labels: str) -> float | None:
        return self.metrics.registry.get_sample_value(name, labels)


@pytest.fixture
def watched() -> Iterator[Watched]:
    with structlog.testing.capture_logs() as logs:
        yield Watched(logs)


def test_a_turn_is_the_pulse_and_readiness(watched: Watched) -> None:
    watched.watch.warm()
    watched.clock.advance(9.0)
    assert watched.pulse.silent_s == 9.0
    watched.watch.turn(1.5, 4, 2)
    assert (watched.pulse.silent_s, watched.pulse.ready) == (0.0, True)
    assert watched.value("mediasieve_ready") == 1.0
    assert watched.value("mediasieve_assigned_partitions") == 2.0
    assert watched.value("mediasieve_in_flight_items") == 4.0
    assert watched.value("mediasieve_oldest_in_flight_seconds") == 1.5
    watched.watch.turn(0.0, 0, 0)
    assert watched.value("mediasieve_ready") == 0.0


def test_each_committed_decision_is_counted_and_logged_once(watched: Watched) -> None:
    done = entry(7, polled_at_s=watched.clock.now_s - 0.7)
    done.outputs = (Output(Topic.PASS, "k", decision(Outcome.PASS)),)
    watched.watch.committed([done, entry(8)], 0.02)
    labels = {"outcome": "pass", "stage": "classifier", "reason": "score_below_t1"}
    assert watched.value("mediasieve_decisions_total", **labels) == 1.0
    assert watched.value("mediasieve_records_total", topic=Topic.INGEST.value) == 2.0
    assert watched.value("mediasieve_item_seconds_count") == 2.0
    (line,) = watched.logs
    assert (line["event"], line["offset"], line["media_id"]) == ("decision", 7, "m-7")
    assert line["decision_uid"] == str(decision().decision_uid)


def test_everything_else_is_counted_too(watched: Watched) -> None:
    watched.watch.reject(entry(3), Reject(RejectCode.SOURCE_GONE, "404"))
    watched.watch.accepted(entry(3))
    watched.watch.defer(entry(3), Defer(DeferScope.ITEM, "503"))
    watched.watch.rebalance("revoked", 3)
    watched.watch.batch(4, 0.01)
    watched.watch.crash("killed by SIGKILL")
    watched.watch.commit_failed(aborts=1, unknown=0)
    watched.watch.commit_failed(aborts=2, unknown=1)
    topic = Topic.INGEST.value
    assert watched.value("mediasieve_rejects_total", code="source_gone", topic=topic) == 1.0
    assert watched.value("mediasieve_fetch_refusals_total", code="source_gone") == 1.0
    assert watched.value("mediasieve_rejects_accepted_total", topic=topic) == 1.0
    assert watched.value("mediasieve_defers_total", scope="item") == 1.0
    assert watched.value("mediasieve_rebalances_total", kind="revoked") == 3.0
    assert watched.value("mediasieve_batch_items_sum") == 4.0
    assert watched.value("mediasieve_executor_crashes_total") == 1.0
    assert watched.value("mediasieve_transaction_aborts_total") == 2.0
    assert watched.value("mediasieve_transaction_unknown_total") == 1.0
    assert all(line["offset"] == 3 for line in watched.logs if line["event"] in {"rejected", "deferred"})


def test_lag_is_told_by_topic_and_ends_with_the_assignment(watched: Watched) -> None:
    watched.watch.turn(0.0, 0, 2)
    watched.watch.lag({"media.ingest": Lag(7, 30.0)})
    assert watched.value("mediasieve_lag_records", topic="media.ingest") == 7.0
    assert watched.value("mediasieve_lag_seconds", topic="media.ingest") == 30.0
    watched.watch.turn(0.0, 0, 0)
    assert watched.value("mediasieve_lag_records", topic="media.ingest") is None


def test_steps_are_timed_by_stage_and_step(watched: Watched) -> None:
    done = entry(7)
    done.steps = (Step("fetch", 0, 2_000_000_000), Step("infer", 0, 500_000_000))
    watched.watch.committed([done], 0.02)
    assert watched.value("mediasieve_step_seconds_sum", stage="worker", step="fetch") == 2.0
    assert watched.value("mediasieve_step_seconds_count", stage="worker", step="infer") == 1.0


def test_a_stages_own_gauges_are_read_once_a_second_and_replaced(watched: Watched) -> None:
    state = ["closed"]
    watched.watch.follow(lambda: [Reading("mediasieve_mllm_circuit", (state[0],), 1.0)], bundle="b-1")
    watched.watch.turn(0.0, 0, 1)
    assert watched.value("mediasieve_bundle_info", worker="worker", bundle="b-1") == 1.0
    assert watched.value("mediasieve_mllm_circuit", state="closed") == 1.0
    state[0] = "open"
    watched.clock.advance(0.5)
    watched.watch.turn(0.0, 0, 1)
    assert watched.value("mediasieve_mllm_circuit", state="closed") == 1.0
    watched.clock.advance(0.5)
    watched.watch.turn(0.0, 0, 1)
    assert watched.value("mediasieve_mllm_circuit", state="open") == 1.0
    assert watched.value("mediasieve_mllm_circuit", state="closed") is None


def test_a_gauge_that_a_stage_reads_no_more_is_gone(watched: Watched) -> None:
    readings = [Reading("mediasieve_mllm_budget_tokens", ("left",), 5.0)]
    watched.watch.follow(lambda: readings, bundle="b-1")
    watched.watch.turn(0.0, 0, 1)
    assert watched.value("mediasieve_mllm_budget_tokens", what="left") == 5.0
    readings.clear()
    watched.clock.advance(1.0)
    watched.watch.turn(0.0, 0, 1)
    assert watched.value("mediasieve_mllm_budget_tokens", what="left") is None


def test_the_model_behind_the_newest_score_is_told(watched: Watched) -> None:
    watch = FleetWatch(watched.metrics, watched.pulse, watched.clock, "classifier")
    for model in ("tiny", "larger"):
        done = entry(7)
        score = StageScore(stage=StageName.CLASSIFIER, score=0.1, bundle_version="b-1", model=model)
        done.outputs = (Output(Topic.PASS, "k", decision(Outcome.PASS).model_copy(update={"scores": (score,)})),)
        watch.committed([done], 0.02)
    (family,) = [f for f in watched.metrics.registry.collect() if f.name == "mediasieve_model_info"]
    assert [s.labels for s in family.samples] == [{"stage": "classifier", "model": "larger", "bundle": "b-1"}]


def test_log_lines_of_a_record_name_its_trace_and_span(watched: Watched) -> None:
    done = entry(7)
    done.trace = RecordTrace("a" * 32, "b" * 16, None, sampled=True)
    watched.watch.reject(done, Reject(RejectCode.SOURCE_GONE, "404"))
    (line,) = watched.logs
    assert (line["trace_id"], line["span_id"]) == ("a" * 32, "b" * 16)


def test_spans_are_made_of_what_was_committed_when_somebody_takes_them(watched: Watched) -> None:
    kept = Kept()
    watch = FleetWatch(watched.metrics, watched.pulse, watched.clock, "classifier", kept)
    done = entry(7, polled_at_s=watched.clock.now_s - 0.7)
    done.trace = RecordTrace("a" * 32, "b" * 16, None, sampled=True)
    watch.committed([done, entry(8)], 0.02)
    assert [span.name for span in kept.spans] == [f"process {Topic.INGEST.value}", "commit"]


class Kept:
    """Tracing that keeps."""

    on = True

    def __init__(self) -> None:
        self.spans: list[Span] = []

    def record(self, span: Span) -> None:
        self.spans.append(span)

    def close(self) -> None:
        pass
