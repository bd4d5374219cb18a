"""The table is all there is, and what the runner tells ends up in it."""

from __future__ import annotations

from collections.abc import Iterator, MutableMapping
from typing import Any

import pytest
import structlog
from prometheus_client import generate_latest
from prometheus_client.parser import text_string_to_metric_families

from pipeline.observability.health import Pulse
from pipeline.observability.metrics import METRICS, Kind, Metrics, MetricSpec
from pipeline.observability.watch import FleetWatch
from pipeline.streaming.stage import Defer, DeferScope, Output, Reject
from schemas.deadletter import RejectCode
from schemas.decision import Outcome
from schemas.topics import Topic
from tests.support.cases import decision
from tests.support.entries import entry
from tests.support.streaming import FakeClock

by_name = pytest.mark.parametrize("spec", METRICS, ids=lambda s: s.name)


def exposed(metrics: Metrics) -> dict[str, Any]:
    text = generate_latest(metrics.registry).decode()
    return {family.name: family for family in text_string_to_metric_families(text)}


@by_name
def test_every_row_exists_from_the_start(spec: MetricSpec) -> None:
    family = exposed(Metrics())[spec.name.removesuffix("_total")]
    assert (family.type, family.documentation) == (spec.kind.value, spec.meaning)


def test_nothing_but_the_table_exists() -> None:
    found = {name for name in exposed(Metrics()) if not name.endswith("_created")}
    assert found == {s.name.removesuffix("_total") for s in METRICS}


def test_what_is_said_replaces_what_was_said_before() -> None:
    metrics = Metrics()
    metrics.say("mediasieve_reference_info", "b", "one", "")
    metrics.say("mediasieve_reference_info", "b", "two", "")
    (sample,) = exposed(metrics)["mediasieve_reference_info"].samples
    assert (sample.labels, sample.value) == ({"base": "b", "active": "two", "candidate": ""}, 1.0)


@by_name
def test_every_row_takes_a_value(spec: MetricSpec) -> None:
    metrics = Metrics()
    labels = [f"l{i}" for i in range(len(spec.labels))]
    match spec.kind:
        case Kind.COUNTER:
            metrics.count(spec.name, *labels, by=2.0)
            value = metrics.registry.get_sample_value(spec.name, dict(zip(spec.labels, labels, strict=True)))
        case Kind.GAUGE:
            metrics.set(spec.name, 2.0, *labels)
            value = metrics.registry.get_sample_value(spec.name, dict(zip(spec.labels, labels, strict=True)))
        case Kind.HISTOGRAM:
            metrics.observe(spec.name, 2.0)
            value = metrics.registry.get_sample_value(f"{spec.name}_sum")
    assert value == 2.0


@by_name
def test_units_and_kinds_are_in_the_names(spec: MetricSpec) -> None:
    assert spec.name.startswith("mediasieve_")
    assert spec.name.endswith("_total") == (spec.kind is Kind.COUNTER)
    assert bool(spec.buckets) == (spec.kind is Kind.HISTOGRAM)


def test_an_unknown_name_is_a_fault() -> None:
    metrics = Metrics()
    with pytest.raises(KeyError, match="mediasieve_nothing"):
        metrics.count("mediasieve_nothing")
    with pytest.raises(KeyError, match="mediasieve_commit_seconds"):
        metrics.set("mediasieve_commit_seconds", 1.0)
    with pytest.raises(KeyError, match="mediasieve_ready"):
        metrics.observe("mediasieve_ready", 1.0)


def test_two_registries_do_not_share_values() -> None:
    first, second = Metrics(), Metrics()
    first.set("mediasieve_ready", 1.0)
    assert second.registry.get_sample_value("mediasieve_ready") == 0.0


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
    watched.watch.commit_failed(aborts=2, unknown=1)
    topic = Topic.INGEST.value
    assert watched.value("mediasieve_rejects_total", code="source_gone", topic=topic) == 1.0
    assert watched.value("mediasieve_rejects_accepted_total", topic=topic) == 1.0
    assert watched.value("mediasieve_defers_total", scope="item") == 1.0
    assert watched.value("mediasieve_rebalances_total", kind="revoked") == 3.0
    assert watched.value("mediasieve_batch_items_sum") == 4.0
    assert watched.value("mediasieve_executor_crashes_total") == 1.0
    assert watched.value("mediasieve_transaction_aborts") == 2.0
    assert watched.value("mediasieve_transaction_unknown") == 1.0
    assert all(line["offset"] == 3 for line in watched.logs if line["event"] in {"rejected", "deferred"})
