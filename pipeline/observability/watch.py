"""The runner's listener in production: metrics, one log line per decision, and the pulse that health reads."""

from __future__ import annotations

from collections.abc import Sequence

import structlog

from pipeline.observability.health import Pulse
from pipeline.observability.metrics import Metrics
from pipeline.streaming.clock import Clock
from pipeline.streaming.partitions import Entry
from pipeline.streaming.stage import Defer, Output, Reject
from pipeline.streaming.watch import Watch
from schemas.decision import Decision
from schemas.shadow import AuditSample

log = structlog.get_logger("mediasieve")


class FleetWatch(Watch):
    """See Watch for the methods."""

    def __init__(self, metrics: Metrics, pulse: Pulse, clock: Clock) -> None:
        """One per process."""
        self._metrics = metrics
        self._pulse = pulse
        self._clock = clock

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
        self._metrics.set("mediasieve_in_flight_items", in_flight)
        self._metrics.set("mediasieve_oldest_in_flight_seconds", oldest_in_flight_s)

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
            for output in entry.outputs:
                self._decision(entry, output)

    def commit_failed(self, aborts: int, unknown: int) -> None:
        """See Watch."""
        self._metrics.set("mediasieve_transaction_aborts", aborts)
        self._metrics.set("mediasieve_transaction_unknown", unknown)
        log.warning("commit_failed", aborts=aborts, unknown=unknown)

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
    return place | ({"media_id": entry.item.media_id, "trace_id": entry.item.trace_id} if entry.item else {})
