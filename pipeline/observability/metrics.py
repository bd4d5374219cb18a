"""Every metric of the fleet in one typed table; nothing else creates one."""

from __future__ import annotations

import threading
from collections import defaultdict
from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest


class Kind(StrEnum):
    """Prometheus kinds in use."""

    COUNTER = "counter"
    GAUGE = "gauge"
    HISTOGRAM = "histogram"


@dataclass(frozen=True, slots=True)
class MetricSpec:
    """One row of the table."""

    name: str
    kind: Kind
    meaning: str
    labels: tuple[str, ...] = ()
    buckets: tuple[float, ...] = ()

    @property
    def unit(self) -> str:
        """The last word of the name, or what the values of a name without one are."""
        word = self.name.removesuffix("_total").rpartition("_")[2]
        return "always 1" if word == "info" else _UNITS.get(self.name, word)


_UNITS = {
    "mediasieve_rejects_accepted_total": "records",
    "mediasieve_transaction_unknown_total": "commits",
    "mediasieve_gateway_unreadable_total": "records",
    "mediasieve_gateway_lag_unknown_total": "measurements",
    "mediasieve_reference_sequence": "number",
    "mediasieve_reference_waits": "0 or 1",
    "mediasieve_reference_refused_total": "pointers",
    "mediasieve_ready": "0 or 1",
    "mediasieve_mllm_circuit": "0 or 1",
    "mediasieve_classifier_fnr": "share",
    "mediasieve_drift_psi": "nats",
    "mediasieve_drift_flagged": "0 or 1",
}
"""Of names that end in no unit."""


_SECONDS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60)
_ITEMS = (1, 2, 4, 8, 16, 32, 64, 128, 256)

METRICS: tuple[MetricSpec, ...] = (
    MetricSpec("mediasieve_decisions_total", Kind.COUNTER, "decisions made visible", ("outcome", "stage", "reason")),
    MetricSpec(
        "mediasieve_audit_samples_total", Kind.COUNTER, "what later stages made of sampled passes", ("outcome", "stage")
    ),
    MetricSpec("mediasieve_records_total", Kind.COUNTER, "input records committed", ("topic",)),
    MetricSpec("mediasieve_rejects_total", Kind.COUNTER, "dead letters by reject code", ("code", "topic")),
    MetricSpec("mediasieve_rejects_accepted_total", Kind.COUNTER, "own rejects an operator had accepted", ("topic",)),
    MetricSpec("mediasieve_defers_total", Kind.COUNTER, "records that had to wait", ("scope",)),
    MetricSpec("mediasieve_rebalances_total", Kind.COUNTER, "partitions assigned, revoked or lost", ("kind",)),
    MetricSpec("mediasieve_transaction_aborts_total", Kind.COUNTER, "aborted commits"),
    MetricSpec("mediasieve_transaction_unknown_total", Kind.COUNTER, "commits of unknown outcome"),
    MetricSpec("mediasieve_commit_seconds", Kind.HISTOGRAM, "one commit", (), _SECONDS),
    MetricSpec("mediasieve_batch_items", Kind.HISTOGRAM, "items in a batch", (), _ITEMS),
    MetricSpec("mediasieve_batch_wait_seconds", Kind.HISTOGRAM, "wait of a batch's first item", (), _SECONDS),
    MetricSpec("mediasieve_item_seconds", Kind.HISTOGRAM, "from poll to commit, by item", (), _SECONDS),
    MetricSpec("mediasieve_executor_crashes_total", Kind.COUNTER, "processes of the executor that died"),
    MetricSpec("mediasieve_in_flight_items", Kind.GAUGE, "items in the executor"),
    MetricSpec("mediasieve_oldest_in_flight_seconds", Kind.GAUGE, "age of the oldest item in the executor"),
    MetricSpec("mediasieve_assigned_partitions", Kind.GAUGE, "partitions of this member"),
    MetricSpec("mediasieve_audit_leaves_total", Kind.COUNTER, "leaves under a checkpoint", ("topic",)),
    MetricSpec("mediasieve_audit_checkpoint_seconds", Kind.HISTOGRAM, "tiles and checkpoint of a batch", (), _SECONDS),
    MetricSpec("mediasieve_audit_waits_total", Kind.COUNTER, "waits for a log or store that was away", ("topic",)),
    MetricSpec("mediasieve_gateway_submissions_total", Kind.COUNTER, "items by their status over HTTP", ("status",)),
    MetricSpec("mediasieve_gateway_refusals_total", Kind.COUNTER, "requests refused because of lag", ("stage",)),
    MetricSpec("mediasieve_gateway_ack_seconds", Kind.HISTOGRAM, "wait for the brokers, by request", (), _SECONDS),
    MetricSpec("mediasieve_gateway_events_total", Kind.COUNTER, "decisions and dead letters read"),
    MetricSpec("mediasieve_gateway_unreadable_total", Kind.COUNTER, "records that are no decisions", ("topic",)),
    MetricSpec("mediasieve_gateway_streams", Kind.GAUGE, "open streams of decisions"),
    MetricSpec("mediasieve_gateway_lag_seconds", Kind.GAUGE, "lag of the stage that is furthest behind"),
    MetricSpec("mediasieve_gateway_lag_unknown_total", Kind.COUNTER, "measurements of lag that failed"),
    MetricSpec("mediasieve_gateway_oldest_open_seconds", Kind.GAUGE, "age of the oldest undecided submission"),
    MetricSpec("mediasieve_review_waiting_cases", Kind.GAUGE, "held media that waits for people"),
    MetricSpec("mediasieve_review_oldest_case_seconds", Kind.GAUGE, "age of the oldest of them"),
    MetricSpec("mediasieve_review_outbox_records", Kind.GAUGE, "records of the console that Kafka does not have yet"),
    MetricSpec("mediasieve_adaptation_reviews_total", Kind.COUNTER, "reviews by what was made of them", ("result",)),
    MetricSpec("mediasieve_adaptation_waiting_reviews", Kind.GAUGE, "reviews whose decision is not archived yet"),
    MetricSpec("mediasieve_adaptation_trials_total", Kind.COUNTER, "families that were tried", ("result",)),
    MetricSpec("mediasieve_adaptation_offers_total", Kind.COUNTER, "what became of candidates", ("result",)),
    MetricSpec(
        "mediasieve_reference_info",
        Kind.GAUGE,
        "1: content hashes of the bundle's reference, the one that decides, and the one that watches",
        ("base", "active", "candidate"),
    ),
    MetricSpec("mediasieve_reference_sequence", Kind.GAUGE, "number of the pointer that is in force, 0 before any"),
    MetricSpec("mediasieve_reference_adopted_seconds", Kind.GAUGE, "when it was adopted, Unix time"),
    MetricSpec("mediasieve_reference_waits", Kind.GAUGE, "1 while a published reference is not on this disk yet"),
    MetricSpec("mediasieve_reference_refused_total", Kind.COUNTER, "pointers that were not adopted", ("cause",)),
    MetricSpec("mediasieve_ready", Kind.GAUGE, "1 when the stage is warm and partitions are assigned"),
    MetricSpec("mediasieve_lag_records", Kind.GAUGE, "uncommitted records of this member's partitions", ("topic",)),
    MetricSpec("mediasieve_lag_seconds", Kind.GAUGE, "age of the oldest of them", ("topic",)),
    MetricSpec("mediasieve_step_seconds", Kind.HISTOGRAM, "one step of a stage", ("stage", "step"), _SECONDS),
    MetricSpec(
        "mediasieve_fetch_refusals_total", Kind.COUNTER, "media that could not be had, by reject code", ("code",)
    ),
    MetricSpec("mediasieve_bundle_info", Kind.GAUGE, "the bundle that this worker decides by", ("worker", "bundle")),
    MetricSpec("mediasieve_model_info", Kind.GAUGE, "the model behind the last scores", ("stage", "model", "bundle")),
    MetricSpec(
        "mediasieve_audit_checkpoint_age_seconds", Kind.GAUGE, "wait of the oldest record that no checkpoint covers"
    ),
    MetricSpec(
        "mediasieve_audit_checkpoint_timestamp_seconds", Kind.GAUGE, "when the last checkpoint was made, Unix time"
    ),
    MetricSpec("mediasieve_mllm_circuit", Kind.GAUGE, "1 for the state the breaker is in", ("state",)),
    MetricSpec("mediasieve_mllm_budget_tokens", Kind.GAUGE, "left now (below 0: overdrawn), and a minute", ("what",)),
)


class Metrics:
    """The table's metrics in a registry of their own."""

    def __init__(self) -> None:
        """All metrics exist from the start, so that a missing one is a fault and not a zero."""
        self.registry = CollectorRegistry()
        self._counters: dict[str, Counter] = {}
        self._gauges: dict[str, Gauge] = {}
        self._histograms: dict[str, Histogram] = {}
        self._said: defaultdict[str, set[tuple[str, ...]]] = defaultdict(set)
        self._whole = threading.Lock()
        for spec in METRICS:
            self._create(spec)

    def count(self, name: str, *labels: str, by: float = 1.0) -> None:
        """Add to a counter; KeyError for one that is not in the table."""
        counter = self._counters[name]
        (counter.labels(*labels) if labels else counter).inc(by)

    def set(self, name: str, value: float, *labels: str) -> None:
        """Set a gauge."""
        gauge = self._gauges[name]
        (gauge.labels(*labels) if labels else gauge).set(value)

    def say(self, name: str, *labels: str) -> None:
        """Set a labelled gauge to 1 under these labels alone."""
        self.replace(name, {labels: 1.0})

    def replace(self, name: str, values: Mapping[tuple[str, ...], float]) -> None:
        """Set a labelled gauge by labels; what it said of others before is gone."""
        gauge = self._gauges[name]
        with self._whole:
            for labels, value in values.items():
                gauge.labels(*labels).set(value)
            for labels in self._said[name] - values.keys():
                gauge.remove(*labels)
            self._said[name] = set(values)

    def exposition(self) -> bytes:
        """All of it in Prometheus's text format; never in the middle of a `replace`. Thread-safe, as all here."""
        with self._whole:
            return generate_latest(self.registry)

    def observe(self, name: str, value: float, *labels: str) -> None:
        """Add to a histogram."""
        histogram = self._histograms[name]
        (histogram.labels(*labels) if labels else histogram).observe(value)

    def _create(self, spec: MetricSpec) -> None:
        match spec.kind:
            case Kind.COUNTER:
                self._counters[spec.name] = Counter(
                    spec.name.removesuffix("_total"), spec.meaning, spec.labels, registry=self.registry
                )
            case Kind.GAUGE:
                self._gauges[spec.name] = Gauge(spec.name, spec.meaning, spec.labels, registry=self.registry)
            case Kind.HISTOGRAM:
                self._histograms[spec.name] = Histogram(
                    spec.name, spec.meaning, spec.labels, buckets=spec.buckets, registry=self.registry
                )
