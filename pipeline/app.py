"""The only wiring: settings and a stage become a runner over Kafka, with health, metrics and signals."""

from __future__ import annotations

import faulthandler
import os
import signal
import sys
import uuid
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import structlog

from pipeline.observability.health import HealthServer, Pulse
from pipeline.observability.logging import configure_logging
from pipeline.observability.metrics import Metrics
from pipeline.observability.watch import FleetWatch
from pipeline.settings import FleetSettings
from pipeline.streaming.clock import SystemClock
from pipeline.streaming.codec import Codec, Identity, TopicNames
from pipeline.streaming.executors.base import Executor, StageFailed
from pipeline.streaming.failure import DeadLetterLimitExceeded, SourceRate
from pipeline.streaming.kafka.source import KafkaSource
from pipeline.streaming.kafka.transaction import KafkaTransaction
from pipeline.streaming.plan import Plan
from pipeline.streaming.runner import Hook, Runner
from pipeline.streaming.transport import Fenced, Ledger, SourceFailed
from pipeline.streaming.watch import Watch
from schemas.base import Record
from schemas.topics import Topic
from schemas.types import StageName
from schemas.wire import UnknownMajorVersion

log = structlog.get_logger("mediasieve")

EXIT_FENCED = 3
EXIT_STAGE_FAILED = 4
EXIT_DEAD_LETTER_LIMIT = 5
EXIT_UNKNOWN_VERSION = 6
EXIT_SOURCE_FAILED = 7


@dataclass(frozen=True, slots=True)
class WorkerSpec:
    """A stage as a consumer group, before it meets a broker. The lanes name logical topics."""

    name: StageName
    plan: Plan
    model: type[Record]
    identity: Callable[[Any], Identity]
    executor: Executor[Any]
    version: str


def build_runner(
    spec: WorkerSpec,
    settings: FleetSettings,
    *,
    watch: Watch | None = None,
    hook: Hook = lambda _: None,
    ledger: Ledger | None = None,
) -> Runner:
    """A runner over Kafka; `ledger` replaces the transaction in tests of the tests."""
    clock = SystemClock()
    names = TopicNames(settings.kafka.topic_prefix)
    transactional_id = f"{spec.name}-{uuid.uuid4()}"
    codec: Codec[Any] = Codec(
        stage=spec.name,
        version=spec.version,
        model=spec.model,
        identity=spec.identity,
        cluster=settings.kafka.cluster_name,
        names=names,
        clock=clock,
        source_rate=SourceRate(settings.runner.dead_letters),
        edge=spec.plan.edge,
    )
    lanes = tuple(
        replace(lane, topics=tuple(names.physical(Topic(t)) for t in lane.topics)) for lane in spec.plan.lanes
    )
    return Runner(
        plan=replace(spec.plan, lanes=lanes),
        codec=codec,
        source=KafkaSource(settings.kafka.consumer(spec.name.value)),
        ledger=ledger or KafkaTransaction(settings.kafka.transactional_producer(transactional_id), hook),
        executor=spec.executor,
        settings=settings.runner,
        clock=clock,
        watch=watch,
        hook=hook,
    )


def run_worker(
    spec: WorkerSpec, settings: FleetSettings, hook: Hook = lambda _: None, ledger: Ledger | None = None
) -> int:
    """Run until SIGTERM or SIGINT; returns the process's exit code.

    0: drained. 3: fenced or aborted for too long. 4: the stage raised. 5: dead-letter limit. 6: a record of a
    newer major version. 7: the broker did not say what is committed. In each case but 0 nothing uncommitted was
    made visible.
    """
    faulthandler.enable()  # a crash in native code then leaves the Python stacks in the log
    configure_logging(settings.log, worker=spec.name.value, pid=str(os.getpid()))
    clock = SystemClock()
    metrics = Metrics()
    pulse = Pulse(clock)
    health = HealthServer(settings.health, pulse, metrics)
    health.start()
    stopping = _stop_on_signals()
    runner = build_runner(spec, settings, watch=FleetWatch(metrics, pulse, clock), hook=hook, ledger=ledger)
    try:
        runner.run(stopping)
    except (Fenced, SourceFailed, StageFailed, DeadLetterLimitExceeded, UnknownMajorVersion) as error:
        code = _exit_code(error)
        log.error("worker_stopped", exit_code=code, cause=type(error).__name__, detail=str(error))
        sys.stderr.flush()
        runner.abandon()
        return code
    log.info("worker_drained")
    health.stop()
    return 0


def _exit_code(error: Exception) -> int:
    match error:
        case StageFailed():
            return EXIT_STAGE_FAILED
        case DeadLetterLimitExceeded():
            return EXIT_DEAD_LETTER_LIMIT
        case UnknownMajorVersion():
            return EXIT_UNKNOWN_VERSION
        case SourceFailed():
            return EXIT_SOURCE_FAILED
        case _:
            return EXIT_FENCED


def _stop_on_signals() -> Callable[[], bool]:
    asked = False

    def ask(signum: int, frame: object) -> None:  # noqa: ARG001 - a handler's signature
        nonlocal asked
        asked = True

    signal.signal(signal.SIGTERM, ask)
    signal.signal(signal.SIGINT, ask)
    return lambda: asked
