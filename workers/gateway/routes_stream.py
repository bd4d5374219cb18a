"""A tenant's decisions as server-sent events, https://html.spec.whatwg.org/multipage/server-sent-events.html."""

from __future__ import annotations

from collections.abc import AsyncIterator
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import partial
from typing import Annotated

import orjson
from fastapi import APIRouter, Header, Query, Request
from fastapi.sse import format_sse_event
from sqlalchemy.exc import SQLAlchemyError
from starlette.concurrency import run_in_threadpool
from starlette.responses import StreamingResponse
from starlette.types import Receive, Scope, Send

from schemas.media import DEFAULT_TENANT
from workers.gateway.openapi import STREAM_ANSWER
from workers.gateway.parts import Parts, PartsOf, Reader
from workers.gateway.routes_media import Tenant
from workers.gateway.views import Numbered
from workers.web.authentication import require, require_tenant
from workers.web.principal import Role
from workers.web.problems import ProblemError, responses

router = APIRouter(prefix="/v1")

_BATCH = 200
_RECONNECT_MS = 2_000
_RECHECK_S = 30.0

EventId = Annotated[int | None, Header(alias="Last-Event-ID", ge=0, le=2**62, description="go on behind this event")]
After = Annotated[int | None, Query(ge=0, le=2**62, description="the same, for clients that cannot set the header")]


@dataclass(frozen=True, slots=True)
class Subscription:
    """One open stream. `authorization` is checked again while it lasts."""

    caller: str
    tenant: str
    after: int
    authorization: str | None
    expires_at: datetime | None


@router.get(
    "/decisions/stream",
    operation_id="streamDecisions",
    summary="A tenant's decisions as they come",
    tags=["decisions"],
    response_class=StreamingResponse,
    responses={**responses(401, 403, 410, 422, 429, 503), **STREAM_ANSWER},
)
async def stream(  # noqa: PLR0917 - FastAPI names them
    request: Request,
    caller: Reader,
    parts: PartsOf,
    tenant: Tenant = None,
    last_event_id: EventId = None,
    after: After = None,
) -> StreamingResponse:
    """Events `decision` and `rejection`; `id` goes into `Last-Event-ID` of the next request.

    Without an id the stream begins with what comes next; 0 begins with the oldest event that is kept. An id behind
    which events were forgotten is answered with 410, never with a gap. Comments carry an `id` too: how far it has come.
    """
    whose = require_tenant(caller, tenant, DEFAULT_TENANT)
    purged, last = await run_in_threadpool(parts.views.bounds)
    start = last_event_id if last_event_id is not None else after
    if start and not purged <= start <= last:
        detail = (
            f"Last-Event-ID: {start} is none of {purged} to {last}, behind which all events are kept; begin with 0, or "
            "ask for single media items"
        )
        raise ProblemError(410, "events-forgotten", "Events were forgotten", detail)
    parts.news.enter(caller.name)
    subscription = Subscription(
        caller.name, whose, last if start is None else start, request.headers.get("authorization"), caller.expires_at
    )
    return _Counted(parts, subscription)


class _Counted(StreamingResponse):
    """Is no longer counted when it is over, however it ends."""

    def __init__(self, parts: Parts, subscription: Subscription) -> None:
        headers = {"X-Accel-Buffering": "no"}
        super().__init__(events(parts, subscription), media_type="text/event-stream", headers=headers)
        self._end = partial(parts.news.leave, subscription.caller)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        try:
            await super().__call__(scope, receive, send)
        finally:
            self._end()


async def events(parts: Parts, subscription: Subscription) -> AsyncIterator[bytes]:
    """The body; ends when the process drains, the credentials end, or the database is away."""
    seq, clock, settings = subscription.after, parts.clock, parts.settings
    pinged_s = checked_s = clock.monotonic_s()
    try:
        yield format_sse_event(comment=f"decisions of {subscription.tenant}", retry=_RECONNECT_MS, id=str(seq))
        while not parts.news.closing:
            page = await run_in_threadpool(parts.views.after, subscription.tenant, seq, _BATCH)
            for each in page.events:
                yield _event(each)
            seq = page.upto
            now_s = clock.monotonic_s()
            if now_s - checked_s >= _RECHECK_S:
                await _check_again(parts, subscription)
                checked_s = now_s
            if page.events:
                pinged_s = now_s
                continue
            if now_s - pinged_s >= settings.stream_ping_s:
                # With its place: of a tenant that is silent for long, what was seen last may have been forgotten.
                yield format_sse_event(comment="nothing new", id=str(seq))
                pinged_s = now_s
            await parts.news.wait(settings.stream_poll_s)
    except (ProblemError, SQLAlchemyError) as error:
        # The status was sent long ago; the client comes back behind the last event and is told why then.
        yield format_sse_event(comment=f"the stream ends: {type(error).__name__}")


async def _check_again(parts: Parts, subscription: Subscription) -> None:
    if subscription.expires_at is not None and subscription.expires_at <= datetime.now(UTC):
        raise ProblemError(401, "unauthenticated", "Expired", "the credentials have expired")
    caller = await run_in_threadpool(parts.authenticator.authenticate, subscription.authorization)
    require_tenant(require(caller, Role.READ), subscription.tenant, DEFAULT_TENANT)


def _event(numbered: Numbered) -> bytes:
    return format_sse_event(
        event=numbered.kind, id=str(numbered.seq), data_str=orjson.dumps(numbered.body).decode("utf-8")
    )
