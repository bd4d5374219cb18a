"""What the gateway's requests work with."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field
from typing import Annotated

from fastapi import Depends, Request
from starlette.concurrency import run_in_threadpool

from pipeline.media.content_store import ContentStore
from pipeline.observability.metrics import Metrics
from pipeline.streaming.clock import Clock
from workers.gateway.backpressure import Backpressure
from workers.gateway.intake import Intake
from workers.gateway.limits import OpenUploads, RateLimits
from workers.gateway.news import News
from workers.gateway.settings import GatewaySettings
from workers.gateway.views import Views
from workers.web.authentication import Authenticator, require
from workers.web.principal import Principal, Role


@dataclass(frozen=True, slots=True)
class Parts:
    """One of each for the process; `app.state.parts`."""

    settings: GatewaySettings
    authenticator: Authenticator
    intake: Intake
    views: Views
    store: ContentStore
    backpressure: Backpressure
    rates: RateLimits
    news: News
    clock: Clock
    metrics: Metrics
    open_uploads: OpenUploads
    uploads: asyncio.Semaphore = field(default_factory=lambda: asyncio.Semaphore(4))


def parts_of(request: Request) -> Parts:
    """The parts of the app that serves this request."""
    found: Parts = request.app.state.parts
    return found


async def _caller(request: Request) -> Principal:
    authenticator = parts_of(request).authenticator
    return await run_in_threadpool(authenticator.authenticate, request.headers.get("authorization"))


async def _submitter(caller: Annotated[Principal, Depends(_caller)]) -> Principal:
    return require(caller, Role.SUBMIT)


async def _reader(caller: Annotated[Principal, Depends(_caller)]) -> Principal:
    return require(caller, Role.READ)


Submitter = Annotated[Principal, Depends(_submitter)]
Reader = Annotated[Principal, Depends(_reader)]
PartsOf = Annotated[Parts, Depends(parts_of)]
