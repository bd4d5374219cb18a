"""The pages on their port, beside what else the console does."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import structlog
import uvicorn
from fastapi import FastAPI

from pipeline.media.content_store import open_store
from pipeline.settings import SettingsInvalid
from workers.console.web.app import create_app
from workers.console.web.casefile import CaseFiles
from workers.console.web.desk import NoMisses, open_desk
from workers.console.web.images import Images
from workers.console.web.lag import FleetLag
from workers.console.web.misses import ReportProcess, StageOneMisses
from workers.console.web.settings import PageSettings
from workers.console.worker import Console, Serve
from workers.explain.evidence import EvidenceReader
from workers.explain.opening import policy_of
from workers.gateway.measuring import GroupProgress
from workers.settings import Settings

log = structlog.get_logger("mediasieve")


class PagesDown(Exception):
    """The server did not start; it has logged the cause."""


_TICK_S = 0.2


def pages(settings: Settings) -> Serve:
    """What `run_console` calls to answer requests. Its port listens already.

    Raises:
        SettingsInvalid: address or store cannot be used.
        StoreUnavailable, MasterKeyError: see `open_store`.
    """
    try:
        store = open_store(settings.store)
    except ValueError as error:
        raise SettingsInvalid(f"MEDIASIEVE_STORE__URL (in the file: store.url): {error}") from error
    reader, policy = EvidenceReader(store), policy_of(settings)
    listening = _listen(settings.console.host, settings.console.port)

    def serve(console: Console) -> None:
        clock = console.process.clock
        lag = FleetLag(GroupProgress(settings.kafka), clock)
        misses = _misses(settings.console.page)
        desk = open_desk(
            engine=console.engine,
            clock=clock,
            service=console.service,
            files=CaseFiles(reader, policy),
            images=Images(settings.classifier.decode, settings.classifier.sandbox),
            settings=settings.console.page,
            lag=lag,
            misses=misses or NoMisses(),
            https=(settings.console.public_url or "").startswith("https://"),
        )
        measuring: list[FleetLag | StageOneMisses] = [lag, misses] if misses else [lag]
        for one in measuring:
            one.start()
        try:
            log.info("console_listening", host=settings.console.host, port=listening.getsockname()[1])
            asyncio.run(_serve(create_app(desk), listening, lambda: console.ending, settings.console.drain_s))
        finally:
            for one in measuring:
                one.stop()

    return serve


def _misses(page: PageSettings) -> StageOneMisses | None:
    if not page.misses_days:
        return None
    report = ReportProcess(page.misses_days)
    return StageOneMisses(report, page.misses_every_s, report.end)


async def _serve(app: FastAPI, listening: socket.socket, ending: Callable[[], bool], drain_s: float) -> None:
    config = uvicorn.Config(
        app,
        log_config=None,
        access_log=False,
        server_header=False,
        lifespan="on",
        timeout_graceful_shutdown=max(1, round(drain_s)),
        h11_max_incomplete_event_size=32_768,
    )
    server = _Server(config)
    watching = asyncio.create_task(_watch(server, ending))
    try:
        await server.serve(sockets=[listening])
    finally:
        watching.cancel()
    if not server.started and not ending():
        raise PagesDown("the pages could not be started; the error is in the log above")


async def _watch(server: uvicorn.Server, ending: Callable[[], bool]) -> None:
    while not ending():
        await asyncio.sleep(_TICK_S)
    server.should_exit = True


def _listen(host: str, port: int) -> socket.socket:
    try:
        family = socket.AF_INET6 if ":" in host else socket.AF_INET
        listening = socket.create_server((host, port), family=family, backlog=512)
    except OSError as error:
        raise SettingsInvalid(
            f"MEDIASIEVE_CONSOLE__PORT (in the file: console.port): cannot listen on {host}:{port}: {error.strerror}"
        ) from error
    listening.setblocking(False)
    return listening


class _Server(uvicorn.Server):
    """Signals belong to the process, which asks the server to end."""

    @contextmanager
    def capture_signals(self) -> Iterator[None]:
        yield
