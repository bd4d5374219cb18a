"""The table is all there is, and what it exposes is whole."""

from __future__ import annotations

import threading
from typing import Any

import pytest
from prometheus_client.parser import text_string_to_metric_families

from pipeline.observability.metrics import METRICS, Kind, Metrics, MetricSpec
from pipeline.observability.report_metrics import REPORT_METRICS

UNITS = {
    *("seconds", "records", "items", "tokens", "share", "nats", "0 or 1", "always 1", "number", "events", "decisions"),
    *(
        "rejects",
        "defers",
        "rebalances",
        "aborts",
        "crashes",
        "partitions",
        "leaves",
        "waits",
        "submissions",
        "samples",
    ),
    *("refusals", "streams", "cases", "reviews", "trials", "offers", "pointers", "commits", "measurements"),
}

by_name = pytest.mark.parametrize("spec", METRICS, ids=lambda s: s.name)


def exposed(metrics: Metrics) -> dict[str, Any]:
    return {family.name: family for family in text_string_to_metric_families(metrics.exposition().decode())}


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
    named = dict(zip(spec.labels, labels, strict=True))
    match spec.kind:
        case Kind.COUNTER:
            metrics.count(spec.name, *labels, by=2.0)
            value = metrics.registry.get_sample_value(spec.name, named)
        case Kind.GAUGE:
            metrics.set(spec.name, 2.0, *labels)
            value = metrics.registry.get_sample_value(spec.name, named)
        case Kind.HISTOGRAM:
            metrics.observe(spec.name, 2.0, *labels)
            value = metrics.registry.get_sample_value(f"{spec.name}_sum", named)
    assert value == 2.0


@pytest.mark.parametrize("spec", [*METRICS, *REPORT_METRICS], ids=lambda s: s.name)
def test_every_row_has_a_unit_that_says_something(spec: MetricSpec) -> None:
    assert spec.unit in UNITS


def test_a_replaced_gauge_forgets_what_it_said_of_others() -> None:
    metrics = Metrics()
    metrics.replace("mediasieve_lag_records", {("a",): 1.0, ("b",): 2.0})
    metrics.replace("mediasieve_lag_records", {("b",): 3.0})
    samples = exposed(metrics)["mediasieve_lag_records"].samples
    assert [(s.labels, s.value) for s in samples] == [({"topic": "b"}, 3.0)]


def test_a_scrape_sees_a_replaced_gauge_before_or_after_and_never_between(monkeypatch: pytest.MonkeyPatch) -> None:
    """Two references that decide at once, or none, would be a false alarm."""
    metrics = Metrics()
    metrics.say("mediasieve_reference_info", "b", "0", "")
    gauge = metrics._gauges["mediasieve_reference_info"]
    remove = gauge.remove
    seen: list[int] = []
    scraped, stop = threading.Semaphore(0), threading.Event()

    def scrape() -> None:
        while not stop.is_set():
            families = text_string_to_metric_families(metrics.exposition().decode())
            seen.append(sum(len(f.samples) for f in families if f.name == "mediasieve_reference_info"))
            scraped.release()

    def remove_late(*labels: str) -> None:
        """Lets whole scrapes happen between the new value and the end of the old one, if anything may."""
        while scraped.acquire(blocking=False):
            pass
        for _ in range(2):  # the first may have begun before
            scraped.acquire(timeout=0.1)
        remove(*labels)

    monkeypatch.setattr(gauge, "remove", remove_late)
    thread = threading.Thread(target=scrape)
    thread.start()
    try:
        for number in range(1, 4):
            metrics.say("mediasieve_reference_info", "b", str(number), "")
    finally:
        stop.set()
        thread.join()
    assert set(seen) == {1}


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
