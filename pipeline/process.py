"""What every worker process has: logs, metrics, health, and an orderly end on SIGTERM."""

from __future__ import annotations

import faulthandler
import os
import signal
import sys
from collections.abc import Callable
from dataclasses import dataclass
from typing import Self

import structlog

from pipeline.observability.health import HealthServer, Pulse
from pipeline.observability.logging import configure_logging
from pipeline.observability.metrics import Metrics
from pipeline.observability.tracing import Tracing, TracingUnavailable, open_tracing
from pipeline.observability.watch import FleetWatch
from pipeline.settings import FleetSettings, SettingsInvalid
from pipeline.streaming.clock import Clock, SystemClock

log = structlog.get_logger("mediasieve")


@dataclass(frozen=True, slots=True)
class WorkerProcess:
    """One worker's surroundings; `stopping` becomes true with SIGTERM or SIGINT."""

    clock: Clock
    metrics: Metrics
    watch: FleetWatch
    health: HealthServer
    stopping: Callable[[], bool]
    tracing: Tracing

    @classmethod
    def start(cls, name: str, settings: FleetSettings) -> Self:
        """Once per process, from its main thread.

        Raises:
            OSError: the health port is taken.
            SettingsInvalid: spans are asked for, and the packages for it are missing.
        """
        faulthandler.enable()  # a crash in native code then leaves the Python stacks in the log
        configure_logging(settings.log, worker=name, pid=str(os.getpid()))
        clock = SystemClock()
        metrics = Metrics()
        pulse = Pulse(clock)
        tracing = _tracing(settings, name)
        health = HealthServer(settings.health, pulse, metrics)
        health.start()
        watch = FleetWatch(metrics, pulse, clock, name, tracing)
        return cls(clock, metrics, watch, health, _stop_on_signals(), tracing)

    def failed(self, code: int, error: Exception) -> int:
        """The last log line of a worker that gives up; returns the code."""
        log.error("worker_stopped", exit_code=code, cause=type(error).__name__, detail=str(error))
        self.tracing.close()
        sys.stderr.flush()
        return code

    def drained(self) -> int:
        """The last log line of a worker that was asked to end; returns 0."""
        log.info("worker_drained")
        self.tracing.close()
        self.health.stop()
        return 0


def _tracing(settings: FleetSettings, name: str) -> Tracing:
    try:
        return open_tracing(settings.trace, name)
    except TracingUnavailable as error:
        raise SettingsInvalid(str(error)) from error


def _stop_on_signals() -> Callable[[], bool]:
    asked = False

    def ask(signum: int, frame: object) -> None:  # noqa: ARG001 - a handler's signature
        nonlocal asked
        asked = True

    signal.signal(signal.SIGTERM, ask)
    signal.signal(signal.SIGINT, ask)
    return lambda: asked
