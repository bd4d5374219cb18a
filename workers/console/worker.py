"""The console as a process: its database, what runs in the background, and the pages beside it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from sqlalchemy import Engine
from sqlalchemy.exc import SQLAlchemyError

from pipeline.exit_codes import EXIT_FENCED, EXIT_SOURCE_FAILED, EXIT_STAGE_FAILED, EXIT_UNKNOWN_VERSION
from pipeline.process import WorkerProcess
from pipeline.settings import SettingsInvalid
from pipeline.streaming.codec import TopicNames
from pipeline.streaming.kafka.acknowledged import AcknowledgedWriter
from pipeline.streaming.kafka.source import KafkaSource
from pipeline.streaming.transport import SourceFailed
from schemas.wire import UnknownMajorVersion
from workers.console.background import Background, ProducerLost
from workers.console.consumer import NAME, DecisionConsumer
from workers.console.domain.intake import Intake
from workers.console.domain.publisher import Hook, OutboxPublisher, no_hook
from workers.console.domain.service import ReviewService
from workers.settings import Settings
from workers.web.database import open_database

_ACK_TIMEOUT_S = 20.0
_QUEUE_RECORDS = 20_000


@dataclass(frozen=True, slots=True)
class Console:
    """What the pages stand on."""

    engine: Engine
    service: ReviewService
    background: Background
    process: WorkerProcess

    @property
    def ending(self) -> bool:
        """Asked to end, or a part of it has failed."""
        return self.process.stopping() or self.background.failure is not None


Serve = Callable[[Console], None]
"""Answers requests, in the calling thread, until `console.ending`."""


def run_console(settings: Settings, serve: Serve, hook: Hook = no_hook) -> int:
    """Run until SIGTERM or SIGINT; returns the process's exit code. `hook` is the publisher's.

    0: drained. 3: the producer is beyond repair. 6: a decision of a newer major version. 7: the broker refuses to be
    read. In each case what people did is in the database, and goes to Kafka after the restart.

    Raises:
        SettingsInvalid: the database cannot be used; nothing was started.
    """
    engine = open_database(settings.database)
    process = WorkerProcess.start(NAME, settings)
    try:
        console = open_console(settings, engine, process, hook)
    except SQLAlchemyError as error:
        raise SettingsInvalid(f"MEDIASIEVE_DATABASE__URL (in the file: database.url): {error}") from error
    console.background.start()
    try:
        serve(console)
    finally:
        console.background.stop()
        engine.dispose()
    failure = console.background.failure
    return process.drained() if failure is None else process.failed(exit_code(failure), failure)


def open_console(settings: Settings, engine: Engine, process: WorkerProcess, hook: Hook = no_hook) -> Console:
    """All parts; nothing runs yet."""
    mine, clock, names = settings.console.review, process.clock, TopicNames(settings.kafka.topic_prefix)
    service = ReviewService(engine, clock, mine)
    writer = AcknowledgedWriter(settings.kafka, _ACK_TIMEOUT_S, _QUEUE_RECORDS)
    background = Background(
        DecisionConsumer(KafkaSource(settings.kafka.consumer(NAME)), Intake(engine, clock, mine), names, process.watch),
        OutboxPublisher(engine, clock, writer, names=names, settings=mine, hook=hook),
        writer,
        service,
        metrics=process.metrics,
        publish_every_s=mine.publish_every_s,
    )
    return Console(engine, service, background, process)


def exit_code(error: Exception) -> int:
    """Of a process that ends for this reason."""
    match error:
        case ProducerLost():
            return EXIT_FENCED
        case UnknownMajorVersion():
            return EXIT_UNKNOWN_VERSION
        case SourceFailed():
            return EXIT_SOURCE_FAILED
        case _:
            return EXIT_STAGE_FAILED
