"""A running fleet seen from outside: one trace from a producer to the decision, and the metrics it tells."""

from __future__ import annotations

import json
import os
import shutil
import time
import urllib.request
from collections.abc import Iterator, Mapping, Sequence
from uuid import uuid4

import orjson
import pytest
from opentelemetry import propagate, trace
from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from prometheus_client import Metric
from prometheus_client.parser import text_string_to_metric_families

from pipeline.observability.metrics import METRICS
from schemas.topics import Topic
from schemas.types import StageName
from tests.support.dashboard import Prometheus, panels, running_prometheus
from tests.support.fleet import LiveFleet
from tests.support.kafka import TIMEOUT_S
from tests.support.mailbox import Decided
from tests.support.otlp import Collector, Seen, tree
from tests.support.waiting import wait_until

MADE = "made-pixel-shuffle.png"
"""Goes through all three stages."""

STEPS = {
    "classifier": ["fetch", "decode", "infer", "store"],
    "spectral": ["read", "decode", "infer", "panel", "store"],
    "mllm": ["read", "infer", "store"],
}


@pytest.fixture(scope="module", autouse=True)
def scraping(fleet: LiveFleet, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Prometheus | None]:
    """Beside all tests of this file: it takes 5 s until it scrapes at all. None where there is no Prometheus."""
    binary = shutil.which("prometheus")
    if binary is None:
        yield None
        return
    ports = {member.stage: [member.port] for member in fleet.fleet.members}
    with running_prometheus(binary, tmp_path_factory.mktemp("prometheus"), ports, "200ms") as running:
        yield running


@pytest.fixture(scope="module")
def producer(spans: Collector) -> Iterator[trace.Tracer]:
    """A foreign program that is instrumented by OpenTelemetry's own means."""
    provider = TracerProvider(resource=Resource.create({"service.name": "producer"}))
    provider.add_span_processor(SimpleSpanProcessor(OTLPSpanExporter(endpoint=spans.endpoint)))
    yield provider.get_tracer("producer")
    provider.shutdown()


@pytest.fixture(scope="module")
def traced(fleet: LiveFleet, spans: Collector, producer: trace.Tracer) -> tuple[Decided, list[Seen]]:
    """A decision of stage 3 and all spans of its trace."""
    media_id = uuid4().hex
    with producer.start_as_current_span("submit", kind=trace.SpanKind.PRODUCER) as span:
        headers: dict[str, str] = {}
        propagate.inject(headers)
        value = orjson.dumps({"uri": fleet.uri(MADE), "media_id": media_id})
        fleet.send_raw(value, headers=[(name, text.encode()) for name, text in headers.items()])
    trace_id = f"{span.get_span_context().trace_id:032x}"
    decided = fleet.decided(media_id)
    root = f"{span.get_span_context().span_id:016x}"
    wait_until(lambda: root in {s.span_id for s in _up(decided, spans.of(trace_id))}, TIMEOUT_S, "the whole trace")
    return decided, spans.of(trace_id)


def test_a_trace_shows_the_way_from_the_producer_to_the_decision(
    fleet: LiveFleet, traced: tuple[Decided, list[Seen]]
) -> None:
    decided, found = traced
    print("\n".join(tree(found)).replace(f"{fleet.prefix}.", ""))
    by_id = {span.span_id: span for span in found}
    assert len(by_id) == len(found), "each span was exported once"
    (root,) = [span for span in found if span.parent_id not in by_id]
    assert (root.service, root.name, root.kind) == ("producer", "submit", "producer")
    way = list(_up(decided, found))
    names = [(span.service, span.name.replace(f"{fleet.prefix}.", ""), span.kind) for span in reversed(way)]
    reads = [Topic.INGEST.value, Topic.SUSPECT_PRIORITY.value, Topic.ANOMALOUS_PRIORITY.value]
    assert names == [
        ("producer", "submit", "producer"),
        ("mediasieve-classifier", f"process {reads[0]}", "consumer"),
        ("mediasieve-classifier", f"send {reads[1]}", "producer"),
        ("mediasieve-spectral", f"process {reads[1]}", "consumer"),
        ("mediasieve-spectral", f"send {reads[2]}", "producer"),
        ("mediasieve-mllm", f"process {reads[2]}", "consumer"),
        ("mediasieve-mllm", f"send {decided.topic.value}", "producer"),
    ]


def _up(decided: Decided, found: Sequence[Seen]) -> Iterator[Seen]:
    """From the span that the decision's own header names as far up as is known."""
    by_id = {span.span_id: span for span in found}
    at = (decided.record.header("traceparent") or b"").decode().split("-")[2]
    while at in by_id:
        yield by_id[at]
        at = by_id[at].parent_id


@pytest.mark.parametrize("stage", StageName)
def test_each_stage_shows_its_steps_inside_of_its_span(stage: StageName, traced: tuple[Decided, list[Seen]]) -> None:
    _, found = traced
    mine = [s for s in found if s.service == f"mediasieve-{stage}"]
    (top,) = [s for s in mine if s.kind == "consumer"]
    steps = sorted((s for s in mine if s.kind == "internal"), key=lambda s: s.start_ns)
    assert [s.name for s in steps] == [*STEPS[stage.value], "commit"]
    assert {s.parent_id for s in steps} == {top.span_id}
    assert all(top.start_ns - 10**6 <= s.start_ns <= s.end_ns <= top.end_ns + 10**6 for s in steps)
    assert sum(s.end_ns - s.start_ns for s in steps) > 0
    assert top.attributes["messaging.consumer.group.name"] == stage.value


def test_the_decisions_log_line_names_the_span(fleet: LiveFleet, traced: tuple[Decided, list[Seen]]) -> None:
    decided, found = traced
    (member,) = [m for m in fleet.fleet.members if m.stage == StageName.MLLM]
    lines = [json.loads(line) for line in member.log_path.read_text().splitlines() if '"decision"' in line]
    (line,) = [one for one in lines if one.get("media_id") == decided.decision.admission.media_id]
    (top,) = [s for s in found if s.service == "mediasieve-mllm" and s.kind == "consumer"]
    assert (line["trace_id"], line["span_id"], line["worker"]) == (top.trace_id, top.span_id, "mllm")


def scraped(fleet: LiveFleet, stage: StageName) -> dict[str, Metric]:
    (member,) = [m for m in fleet.fleet.members if m.stage == stage]
    with urllib.request.urlopen(f"http://127.0.0.1:{member.port}/metrics", timeout=5.0) as answer:
        return {family.name: family for family in text_string_to_metric_families(answer.read().decode())}


@pytest.mark.parametrize("stage", StageName)
def test_each_worker_tells_the_table_and_its_own_state(
    stage: StageName, fleet: LiveFleet, traced: tuple[Decided, list[Seen]]
) -> None:
    wait_until(lambda: not _lag(scraped(fleet, stage)), TIMEOUT_S, f"{stage} to tell that it has caught up")
    found = scraped(fleet, stage)
    assert {name for name in found if not name.endswith("_created")} == {s.name.removesuffix("_total") for s in METRICS}
    assert [s.labels["worker"] for s in found["mediasieve_bundle_info"].samples] == [stage.value]
    assert [s.labels["stage"] for s in found["mediasieve_model_info"].samples] == [stage.value]
    told = {s.labels["step"] for s in found["mediasieve_step_seconds"].samples if s.labels["stage"] == stage.value}
    assert set(STEPS[stage.value]) <= told
    references = [s.labels for s in found["mediasieve_reference_info"].samples]
    assert bool(references) == (stage is StageName.SPECTRAL)


def _lag(found: Mapping[str, Metric]) -> float:
    """Records; infinite until the worker has told any."""
    told = [s.value for s in found["mediasieve_lag_records"].samples]
    return sum(told) if told else float("inf")


@pytest.fixture
def prometheus(scraping: Prometheus | None) -> Prometheus:
    if scraping is None:
        missing = "no prometheus: install the distribution's package `prometheus`"
        if os.environ.get("CI"):
            pytest.fail(missing)
        pytest.skip(missing)
    return scraping


def test_a_real_prometheus_draws_the_dashboard_from_a_running_fleet(
    prometheus: Prometheus, traced: tuple[Decided, list[Seen]]
) -> None:
    """Every panel's query is answered, and those of the three stages have data; every alert is evaluated."""
    wait_until(lambda: len(_ready(prometheus)) == len(StageName), TIMEOUT_S, "all stages to be scraped")
    wait_until(lambda: "unknown" not in _health(prometheus), TIMEOUT_S, "all rules to be evaluated")
    drawn = {p["title"]: prometheus.panel(p, time.time() - 60.0, time.time(), 1.0) for p in panels()}
    assert _health(prometheus) == {"ok"}
    assert {name for name, _, _ in drawn["Behind, seconds"]} == {*StageName}
    for title in ("Furthest behind", "Ready workers", "Flow through the tiers", "In use"):
        assert drawn[title], title


def _health(prometheus: Prometheus) -> set[str]:
    return {rule["health"] for group in prometheus.ask("rules")["groups"] for rule in group["rules"]}


def _ready(prometheus: Prometheus) -> list[object]:
    """Stages scraped at least twice."""
    found: list[object] = prometheus.ask("query", query="count_over_time(mediasieve_ready[1m]) > 2")["result"]
    return found
