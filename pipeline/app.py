"""The only wiring: settings and a stage become a runner over Kafka, with health, metrics and signals."""

from __future__ import annotations

import uuid
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

from pipeline.exit_codes import (
    EXIT_DEAD_LETTER_LIMIT,
    EXIT_FENCED,
    EXIT_SOURCE_FAILED,
    EXIT_STAGE_FAILED,
    EXIT_UNKNOWN_VERSION,
)
from pipeline.observability.metrics import Metrics
from pipeline.observability.watch import Readings
from pipeline.process import WorkerProcess
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


@dataclass(frozen=True, slots=True)
class WorkerSpec:
    """A stage as a consumer group, before it meets a broker. The lanes name logical topics.

    `readings`: labelled gauges of the stage's own, asked for about once a second.
    `measure` is given the process's metrics before anything runs, for numbers that the runner does not know.
    """

    name: StageName
    plan: Plan
    model: type[Record]
    identity: Callable[[Any], Identity]
    executor: Executor[Any]
    version: str
    readings: Readings = tuple
    measure: Callable[[Metrics], None] = lambda _: None


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
        samples=settings.trace.samples,
        flags=settings.trace.flags,
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
    process = WorkerProcess.start(spec.name.value, settings)
    process.watch.follow(spec.readings, bundle=spec.version)
    spec.measure(process.metrics)
    runner = build_runner(spec, settings, watch=process.watch, hook=hook, ledger=ledger)
    try:
        runner.run(process.stopping)
    except (Fenced, SourceFailed, StageFailed, DeadLetterLimitExceeded, UnknownMajorVersion) as error:
        code = process.failed(_exit_code(error), error)
        runner.abandon()
        return code
    return process.drained()


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
