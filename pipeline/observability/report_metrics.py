"""Numbers of reports for Prometheus: a file for node_exporter's textfile collector, for they come from no worker."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from prometheus_client import CollectorRegistry, Gauge, write_to_textfile

from pipeline.observability.metrics import Kind, MetricSpec

_BOUND = ("bound",)
"""low, high, interval_low or interval_high."""

REPORT_METRICS: tuple[MetricSpec, ...] = (
    MetricSpec(
        "mediasieve_classifier_fnr", Kind.GAUGE, "false negative rate of stage 1, see audit-sample report", _BOUND
    ),
    MetricSpec("mediasieve_classifier_missed_share", Kind.GAUGE, "generated images among stage-1 passes", _BOUND),
    MetricSpec(
        "mediasieve_audit_report_items", Kind.GAUGE, "released, sampled, represented, unlabelled items", ("what",)
    ),
    MetricSpec("mediasieve_drift_psi", Kind.GAUGE, "population stability index of a source", ("source", "what")),
    MetricSpec("mediasieve_drift_flagged", Kind.GAUGE, "1 where the drift is large and no chance", ("source", "what")),
    MetricSpec("mediasieve_report_made_seconds", Kind.GAUGE, "when the report was made, Unix time", ("report",)),
)
"""Labelled gauges, written by `mediasieve audit-sample report` and `mediasieve drift report`."""


@dataclass(frozen=True, slots=True)
class Reading:
    """One value of a metric of the table."""

    name: str
    labels: tuple[str, ...]
    value: float


def write_textfile(path: Path, readings: Iterable[Reading]) -> None:
    """Replace the file as a whole, so that no collector reads half of it; what has no reading is absent.

    Raises:
        KeyError: a name that is not in the table.
        OSError: the file cannot be written.
    """
    registry = CollectorRegistry()
    specs = {spec.name: spec for spec in REPORT_METRICS}
    gauges: dict[str, Gauge] = {}
    for reading in readings:
        if reading.name not in gauges:
            spec = specs[reading.name]
            gauges[reading.name] = Gauge(spec.name, spec.meaning, spec.labels, registry=registry)
        gauges[reading.name].labels(*reading.labels).set(reading.value)
    write_to_textfile(str(path), registry)
