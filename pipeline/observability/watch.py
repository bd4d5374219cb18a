"""The runner's listener in production: metrics, one log line per decision, and the pulse that health reads."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import TypeAlias

import structlog

from pipeline.observability.health import Pulse
from pipeline.observability.metrics import Metrics
from pipeline.observability.record_spans import RecordSpans
from pipeline.observability.report_metrics import Reading
from pipeline.observability.tracing import NoTracing, Tracing
from pipeline.streaming.clock import Clock
from pipeline.streaming.lag import Lag
from pipeline.streaming.partitions import Entry
from pipeline.streaming.stage import Defer, Output, Reject
from pipeline.streaming.watch import Watch
from schemas.deadletter import RejectCode
from schemas.decision import Decision
from schemas.shadow import AuditSample

Readings: TypeAlias = Callable[[], Iterable[Reading]]
"""Quick, and does not raise: called by the runner's thread."""

FETCH_CODES = frozenset(
    {
        RejectCode.URI_REFUSED,
        RejectCode.SOURCE_GONE,
        RejectCode.SOURCE_FORBIDDEN,
        RejectCode.SOURCE_UNAVAILABLE,
        RejectCode.DECLARED_MISMATCH,
        RejectCode.MEDIA_EMPTY,
    }
)
"""Rejects of media that were not had from where their reference says."""

_READ_EVERY_S = 1.0

log = structlog.get_logger("mediasieve")


class FleetWatch(Watch):
    """See Watch for the methods."""

    def __init__(
        self, metrics: Metrics, pulse: Pulse, clock: Clock, worker: str = "worker", tracing: Tracing | None = None
    ) -> None:
        """One per process; `worker` is its name and its consumer group."""
        self._metrics = metrics
        self._pulse = pulse
        self._clock = clock
        self._worker = worker
        self._tracing = tracing or NoTracing()
        self._readings: Readings = tuple
        self._read_names: Iterable[str] = ()
        self._read_at_s = -math.inf
        self._aborts = self._unknown = 0

    def follow(self, readings: Readings, *, bundle: str) -> None:
        """Ask for the stage's own gauges from now on; `bundle` is the version that it decides by."""
        self._readings = readings
        self._metrics.replace("mediasieve_bundle_info", {(self._worker, bundle): 1.0})

    def warm(self) -> None:
        """See Watch."""
        self._pulse.warm = True
        self._pulse.turned_at_s = self._clock.monotonic_s()
        log.info("worker_warm")

    def turn(self, oldest_in_flight_s: float, in_flight: int, partitions: int) -> None:
        """See Watch."""
        self._pulse.turned_at_s = self._clock.monotonic_s()
        self._pulse.in_flight = in_flight
        self._pulse.oldest_in_flight_s = oldest_in_flight_s
        if partitions != self._pulse.partitions:
            self._pulse.partitions = partitions
            self._metrics.set("mediasieve_assigned_partitions", partitions)
            self._metrics.set("mediasieve_ready", float(self._pulse.ready))
            if not partitions:
                self.lag({})
        self._metrics.set("mediasieve_in_flight_items", in_flight)
        self._metrics.set("mediasieve_oldest_in_flight_seconds", oldest_in_flight_s)
        if self._pulse.turned_at_s - self._read_at_s >= _READ_EVERY_S:
            self._read_at_s = self._pulse.turned_at_s
            self._read()

    def lag(self, topics: Mapping[str, Lag]) -> None:
        """See Watch."""
        self._metrics.replace("mediasieve_lag_records", {(t,): lag.records for t, lag in topics.items()})
        self._metrics.replace("mediasieve_lag_seconds", {(t,): lag.seconds for t, lag in topics.items()})

    def rebalance(self, kind: str, partitions: int) -> None:
        """See Watch."""
        self._metrics.count("mediasieve_rebalances_total", kind, by=partitions)
        log.info("rebalance", kind=kind, partitions=partitions)

    def batch(self, items: int, waited_s: float) -> None:
        """See Watch."""
        self._metrics.observe("mediasieve_batch_items", items)
        self._metrics.observe("mediasieve_batch_wait_seconds", waited_s)

    def crash(self, how: str) -> None:
        """See Watch."""
        self._metrics.count("mediasieve_executor_crashes_total")
        log.error("executor_process_died", how=how)

    def reject(self, entry: Entry, reject: Reject) -> None:
        """See Watch."""
        self._metrics.count("mediasieve_rejects_total", reject.code.value, entry.tp.topic)
        if reject.code in FETCH_CODES:
            self._metrics.count("mediasieve_fetch_refusals_total", reject.code.value)
        log.warning("rejected", code=reject.code.value, detail=reject.detail, **_whose(entry))

    def accepted(self, entry: Entry) -> None:
        """See Watch."""
        self._metrics.count("mediasieve_rejects_accepted_total", entry.tp.topic)
        log.warning("deadletter_accepted", **_whose(entry))

    def defer(self, entry: Entry, defer: Defer) -> None:
        """See Watch."""
        self._metrics.count("mediasieve_defers_total", defer.scope.value)
        log.info("deferred", scope=defer.scope.value, cause=defer.cause, **_whose(entry))

    def committed(self, entries: Sequence[Entry], took_s: float) -> None:
        """See Watch."""
        self._metrics.observe("mediasieve_commit_seconds", took_s)
        now_s = self._clock.monotonic_s()
        for entry in entries:
            self._metrics.count("mediasieve_records_total", entry.tp.topic)
            self._metrics.observe("mediasieve_item_seconds", now_s - entry.polled_at_s)
            for step in entry.steps:
                taken_s = (step.end_ns - step.start_ns) / 1e9
                self._metrics.observe("mediasieve_step_seconds", taken_s, self._worker, step.name)
            for output in entry.outputs:
                self._model(output)
                self._decision(entry, output)
        if self._tracing.on:
            spans = RecordSpans(self._worker, self._clock.wall_s(), now_s, took_s)
            for entry in entries:
                for span in spans.of(entry):
                    self._tracing.record(span)

    def commit_failed(self, aborts: int, unknown: int) -> None:
        """See Watch."""
        self._metrics.count("mediasieve_transaction_aborts_total", by=aborts - self._aborts)
        self._metrics.count("mediasieve_transaction_unknown_total", by=unknown - self._unknown)
        self._aborts, self._unknown = aborts, unknown
        log.warning("commit_failed", aborts=aborts, unknown=unknown)

    def _read(self) -> None:
        """A stage's own gauges: what has no reading any more is gone."""
        found: dict[str, dict[tuple[str, ...], float]] = {name: {} for name in self._read_names}
        for reading in self._readings():
            found.setdefault(reading.name, {})[reading.labels] = reading.value
        for name, values in found.items():
            self._metrics.replace(name, values)
        self._read_names = found.keys()

    def _model(self, output: Output) -> None:
        """What the worker's own newest score was made with: published references change it while it runs."""
        scores = getattr(output.record, "scores", ())
        if scores and scores[-1].stage == self._worker:
            named = (self._worker, scores[-1].model, scores[-1].bundle_version)
            self._metrics.replace("mediasieve_model_info", {named: 1.0})

    def _decision(self, entry: Entry, output: Output) -> None:
        decision = output.record
        if isinstance(decision, AuditSample):
            found = decision.decision
            self._metrics.count("mediasieve_audit_samples_total", found.outcome.value, found.stage_exited.value)
        if not isinstance(decision, Decision):
            return
        reason = decision.reasons[0].code.value
        self._metrics.count("mediasieve_decisions_total", decision.outcome.value, decision.stage_exited.value, reason)
        log.info(
            "decision",
            outcome=decision.outcome.value,
            reason=reason,
            tenant=decision.admission.tenant,
            decision_uid=str(decision.decision_uid),
            **_whose(entry),
        )


def _whose(entry: Entry) -> dict[str, object]:
    place: dict[str, object] = {
        "topic": entry.tp.topic,
        "partition": entry.tp.partition,
        "offset": entry.raw.offset,
    }
    named = {"media_id": entry.item.media_id, "trace_id": entry.item.trace_id} if entry.item else {}
    span = {"trace_id": entry.trace.trace_id, "span_id": entry.trace.span_id} if entry.trace else {}
    return place | named | span
