"""Every metric of the fleet in one typed table; nothing else creates one."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram


class Kind(StrEnum):
    """Prometheus kinds in use."""

    COUNTER = "counter"
    GAUGE = "gauge"
    HISTOGRAM = "histogram"


@dataclass(frozen=True, slots=True)
class MetricSpec:
    """One row of the table; the unit is in the name."""

    name: str
    kind: Kind
    meaning: str
    labels: tuple[str, ...] = ()
    buckets: tuple[float, ...] = ()


_SECONDS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60)
_ITEMS = (1, 2, 4, 8, 16, 32, 64, 128, 256)

METRICS: tuple[MetricSpec, ...] = (
    MetricSpec("mediasieve_decisions_total", Kind.COUNTER, "decisions made visible", ("outcome", "stage", "reason")),
    MetricSpec("mediasieve_records_total", Kind.COUNTER, "input records committed", ("topic",)),
    MetricSpec("mediasieve_rejects_total", Kind.COUNTER, "dead letters by reject code", ("code", "topic")),
    MetricSpec("mediasieve_rejects_accepted_total", Kind.COUNTER, "own rejects an operator had accepted", ("topic",)),
    MetricSpec("mediasieve_defers_total", Kind.COUNTER, "records that had to wait", ("scope",)),
    MetricSpec("mediasieve_rebalances_total", Kind.COUNTER, "partitions assigned, revoked or lost", ("kind",)),
    MetricSpec("mediasieve_transaction_aborts", Kind.GAUGE, "aborted commits since the start"),
    MetricSpec("mediasieve_transaction_unknown", Kind.GAUGE, "commits of unknown outcome since the start"),
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
    MetricSpec("mediasieve_ready", Kind.GAUGE, "1 when the stage is warm and partitions are assigned"),
)


class Metrics:
    """The table's metrics in a registry of their own."""

    def __init__(self) -> None:
        """All metrics exist from the start, so that a missing one is a fault and not a zero."""
        self.registry = CollectorRegistry()
        self._counters: dict[str, Counter] = {}
        self._gauges: dict[str, Gauge] = {}
        self._histograms: dict[str, Histogram] = {}
        for spec in METRICS:
            self._create(spec)

    def count(self, name: str, *labels: str, by: float = 1.0) -> None:
        """Add to a counter; KeyError for one that is not in the table."""
        counter = self._counters[name]
        (counter.labels(*labels) if labels else counter).inc(by)

    def set(self, name: str, value: float) -> None:
        """Set a gauge."""
        self._gauges[name].set(value)

    def observe(self, name: str, value: float) -> None:
        """Add to a histogram."""
        self._histograms[name].observe(value)

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
