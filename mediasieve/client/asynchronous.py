"""The asynchronous client; see `Client` for what each call does."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import AbstractAsyncContextManager
from pathlib import Path
from types import TracebackType
from typing import Any, Self, TypeVar

import httpx
from pydantic import BaseModel

from mediasieve.client.common import (
    Call,
    Events,
    GatewayProblem,
    GatewayUnavailable,
    Retry,
    StreamEvent,
    batch_call,
    raise_problem,
    read_answer,
    status_call,
    stream_call,
    submit_call,
    upload_call,
)
from schemas.api import Accepted, BatchAnswer, MediaStatus
from schemas.media import MediaReference

M = TypeVar("M", bound=BaseModel)


class AsyncClient:
    """Submits media to a gateway and reads what became of it.

    Every call raises GatewayProblem where the gateway refuses, and GatewayUnavailable where it cannot be reached.
    """

    def __init__(
        self,
        url: str,
        token: str,
        *,
        timeout_s: float = 30.0,
        silence_s: float = 60.0,
        retry: Retry | None = None,
        transport: httpx.AsyncBaseTransport | None = None,
    ) -> None:
        """`token`: an API key, or a token of the OpenID provider.

        `timeout_s`: of one request, more than the gateway waits for the brokers. `silence_s`: a stream that says
        nothing for so long is lost; more than the gateway's `stream_ping_s`.
        """
        self._stream_timeout = httpx.Timeout(timeout_s, read=silence_s)
        self._retry = retry or Retry()
        self._http = httpx.AsyncClient(
            base_url=url, headers={"Authorization": f"Bearer {token}"}, timeout=timeout_s, transport=transport
        )

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.close()

    async def close(self) -> None:
        """Give the connections back."""
        await self._http.aclose()

    async def submit(self, reference: MediaReference, *, idempotency_key: str | None = None) -> Accepted:
        """Submit a reference; it is on the brokers when this returns. Without a key of yours it gets one."""
        return await self._ask(submit_call(reference, idempotency_key), Accepted)

    async def upload(
        self,
        file: Path | bytes,
        *,
        content_type: str | None = None,
        idempotency_key: str | None = None,
        **fields: Any,
    ) -> Accepted:
        """Submit the file itself. `fields` are those of a reference, such as media_id, tenant and labels."""
        return await self._ask(upload_call(file, content_type, fields, idempotency_key), Accepted)

    async def submit_batch(
        self, references: Sequence[MediaReference], *, idempotency_key: str | None = None
    ) -> BatchAnswer:
        """Submit up to 1,000 references; each has an answer of its own, so look at `refused`."""
        return await self._ask(batch_call(references, idempotency_key), BatchAnswer)

    async def status(self, media_id: str, *, tenant: str | None = None) -> MediaStatus:
        """What became of a media item."""
        return await self._ask(status_call(media_id, tenant), MediaStatus)

    async def decisions(self, *, tenant: str | None = None, after: int | None = None) -> AsyncIterator[StreamEvent]:
        """A tenant's decisions as they come, for ever; a lost connection goes on behind the last event.

        `after`: 0 begins with the oldest that is kept, None with what comes next.
        """
        events = Events(after)
        failures = 0
        while True:
            try:
                events.begin()
                async with self._stream(tenant, events.last) as answer:
                    if not answer.is_success:
                        await answer.aread()
                        raise_problem(answer)
                    async for chunk in answer.aiter_bytes():
                        failures = 0
                        for event in events.feed(chunk):
                            yield event
                error: Exception = GatewayUnavailable("the stream has ended")
            except httpx.TransportError as lost:
                error = GatewayUnavailable(f"{self._http.base_url}: {str(lost) or type(lost).__name__}")
            except (GatewayProblem, GatewayUnavailable) as refused:
                error = refused
            failures += 1
            wait_s = self._retry.wait_s(failures, error)
            if wait_s is None:
                raise error
            await asyncio.sleep(wait_s)

    def _stream(self, tenant: str | None, after: int | None) -> AbstractAsyncContextManager[httpx.Response]:
        call = stream_call(tenant, after)
        return self._http.stream(**_arguments(call), timeout=self._stream_timeout)

    async def _ask(self, call: Call, model: type[M]) -> M:
        attempt = 0
        while True:
            attempt += 1
            try:
                return read_answer(await self._http.request(**_arguments(call)), model)
            except httpx.TransportError as lost:
                error: Exception = GatewayUnavailable(f"{self._http.base_url}: {str(lost) or type(lost).__name__}")
            except (GatewayProblem, GatewayUnavailable) as refused:
                error = refused
            wait_s = self._retry.wait_s(attempt, error)
            if wait_s is None:
                raise error
            await asyncio.sleep(wait_s)


def _arguments(call: Call) -> dict[str, Any]:
    return {"method": call.method, "url": call.path, **call.arguments}
