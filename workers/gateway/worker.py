"""The gateway as a process: settings become a server, a consumer and a meter; every way to end an exit code."""

from __future__ import annotations

import asyncio
import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import structlog
import uvicorn
from sqlalchemy import Engine
from sqlalchemy.exc import SQLAlchemyError

from pipeline.exit_codes import EXIT_FENCED, EXIT_SOURCE_FAILED, EXIT_STAGE_FAILED, EXIT_UNKNOWN_VERSION
from pipeline.media.content_store import ContentStore, open_store
from pipeline.process import WorkerProcess
from pipeline.settings import SettingsInvalid
from pipeline.streaming.clock import SystemClock
from pipeline.streaming.codec import TopicNames
from pipeline.streaming.kafka.acknowledged import AcknowledgedWriter
from pipeline.streaming.kafka.source import KafkaSource
from pipeline.streaming.transport import SourceFailed
from schemas.topics import Topic
from schemas.wire import UnknownMajorVersion
from workers.gateway.app import create_app
from workers.gateway.backpressure import Backpressure
from workers.gateway.intake import Intake
from workers.gateway.limits import OpenUploads, RateLimits
from workers.gateway.measuring import GroupProgress, Measuring
from workers.gateway.news import News
from workers.gateway.parts import Parts
from workers.gateway.projection import Projection
from workers.gateway.reader import Reader
from workers.gateway.registry import Registry
from workers.gateway.sending import Sending
from workers.gateway.tables import make_tables
from workers.gateway.views import Views
from workers.settings import Settings
from workers.web.authentication import Authenticator
from workers.web.database import open_database

log = structlog.get_logger("mediasieve")

NAME = "gateway"
"""Of the worker and of its consumer group."""

_TICK_S = 0.2
_DAY_S = 86_400.0


class ProducerLost(Exception):
    """The producer will never write again; a restart makes a new one."""


@dataclass(frozen=True, slots=True)
class Gateway:
    """All that runs beside the requests."""

    parts: Parts
    reader: Reader
    measuring: Measuring
    writer: AcknowledgedWriter
    engine: Engine


def run_gateway(settings: Settings) -> int:
    """Run until SIGTERM or SIGINT; returns the process's exit code.

    0: drained. 3: the producer is beyond repair. 6: a record of a newer major version. 7: the broker refuses to be
    read. What was answered with 202 before is on the brokers in each case.

    Raises:
        SettingsInvalid: access, database or address cannot be used; nothing was started.
        StoreUnavailable, MasterKeyError: see `open_store`.
    """
    engine = open_database(settings.database)
    authenticator = Authenticator(settings.access)
    try:
        store = open_store(settings.store)
    except ValueError as error:
        raise SettingsInvalid(f"MEDIASIEVE_STORE__URL (in the file: store.url): {error}") from error
    try:
        make_tables(engine, SystemClock().wall_s())
    except SQLAlchemyError as error:
        raise SettingsInvalid(f"MEDIASIEVE_DATABASE__URL (in the file: database.url): {error}") from error
    listening = _listen(settings.gateway.host, settings.gateway.port)
    process = WorkerProcess.start(NAME, settings)
    gateway = _assemble(settings, engine, store, authenticator, process)
    log.info("gateway_listening", host=settings.gateway.host, port=listening.getsockname()[1])
    failure = asyncio.run(_serve(gateway, process, listening))
    return process.drained() if failure is None else process.failed(exit_code(failure), failure)


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


def _assemble(
    settings: Settings, engine: Engine, store: ContentStore, authenticator: Authenticator, process: WorkerProcess
) -> Gateway:
    mine, clock, metrics = settings.gateway, process.clock, process.metrics
    names = TopicNames(settings.kafka.topic_prefix)
    registry = Registry(engine, clock, lease_s=2 * mine.ack_timeout_s + 5.0)
    writer = AcknowledgedWriter(settings.kafka, mine.ack_timeout_s, mine.queue_records)
    backpressure = Backpressure(sorted(mine.lag_stages), limit_s=mine.max_lag_s, window_s=mine.rate_window_s)
    news = News(mine.streams_per_caller)
    sending = Sending(process.tracing, settings.trace.samples, settings.trace.flags)
    parts = Parts(
        settings=mine,
        authenticator=authenticator,
        intake=Intake(registry, writer, names.physical(Topic.INGEST), clock, metrics, sending=sending),
        views=Views(engine),
        store=store,
        backpressure=backpressure,
        rates=RateLimits(mine, clock),
        news=news,
        clock=clock,
        metrics=metrics,
        open_uploads=OpenUploads(mine.uploads_open),
        uploads=asyncio.Semaphore(mine.uploads_at_once),
    )
    reader = Reader(
        KafkaSource(settings.kafka.consumer(NAME), held=True),
        Projection(engine, clock, names, metrics),
        names,
        clock,
        metrics,
        keep_s=mine.keep_days * _DAY_S,
        on_events=news.told,
    )
    measuring = Measuring(
        backpressure=backpressure,
        progress=GroupProgress(settings.kafka),
        registry=registry,
        clock=clock,
        metrics=metrics,
        every_s=mine.lag_every_s,
    )
    return Gateway(parts, reader, measuring, writer, engine)


async def _serve(gateway: Gateway, process: WorkerProcess, listening: socket.socket) -> Exception | None:
    parts = gateway.parts
    parts.news.bind()
    config = uvicorn.Config(
        create_app(parts),
        log_config=None,
        access_log=False,
        server_header=False,
        date_header=True,
        lifespan="off",
        timeout_graceful_shutdown=max(1, round(parts.settings.drain_s)),
        h11_max_incomplete_event_size=32_768,
    )
    server = _Server(config)
    threads = [
        threading.Thread(target=gateway.reader.run, name="projection", daemon=True),
        threading.Thread(target=gateway.measuring.run, name="lag", daemon=True),
    ]
    for thread in threads:
        thread.start()
    watching = asyncio.create_task(_watch(gateway, process, server))
    await server.serve(sockets=[listening])
    failure = await watching
    gateway.reader.stop()
    gateway.measuring.stop()
    left = await asyncio.to_thread(gateway.writer.close, parts.settings.ack_timeout_s)
    if left:
        log.warning("unacknowledged", records=left)
    for thread in threads:
        await asyncio.to_thread(thread.join, parts.settings.drain_s)
    gateway.engine.dispose()
    return failure


async def _watch(gateway: Gateway, process: WorkerProcess, server: uvicorn.Server) -> Exception | None:
    """Beats while the loop and the reader both turn; ends the server when asked to, or when a part has failed."""
    process.watch.warm()
    turns, streams = -1, gateway.parts.news
    while not process.stopping() and not server.should_exit:
        failure = gateway.reader.failure or gateway.measuring.failure
        if failure is None and gateway.writer.fatal is not None:
            failure = ProducerLost(gateway.writer.fatal)
        if failure is not None:
            _end(gateway, server)
            return failure
        if gateway.reader.turns != turns:
            turns = gateway.reader.turns
            process.watch.turn(0.0, len(server.server_state.tasks), gateway.reader.partitions)
        process.metrics.set("mediasieve_gateway_streams", streams.streams)
        await asyncio.sleep(_TICK_S)
    _end(gateway, server)
    return None


def _end(gateway: Gateway, server: uvicorn.Server) -> None:
    gateway.parts.news.close()
    server.should_exit = True


def _listen(host: str, port: int) -> socket.socket:
    try:
        family = socket.AF_INET6 if ":" in host else socket.AF_INET
        listening = socket.create_server((host, port), family=family, backlog=2048)
    except OSError as error:
        raise SettingsInvalid(
            f"MEDIASIEVE_GATEWAY__PORT (in the file: gateway.port): cannot listen on {host}:{port}: {error.strerror}"
        ) from error
    listening.setblocking(False)
    return listening


class _Server(uvicorn.Server):
    """Signals belong to the process, which asks the server to end."""

    @contextmanager
    def capture_signals(self) -> Iterator[None]:
        yield
