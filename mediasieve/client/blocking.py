"""The blocking client."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager
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


class Client:
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
        transport: httpx.BaseTransport | None = None,
    ) -> None:
        """`token`: an API key, or a token of the OpenID provider.

        `timeout_s`: of one request, more than the gateway waits for the brokers. `silence_s`: a stream that says
        nothing for so long is lost; more than the gateway's `stream_ping_s`.
        """
        self._stream_timeout = httpx.Timeout(timeout_s, read=silence_s)
        self._retry = retry or Retry()
        self._http = httpx.Client(
            base_url=url, headers={"Authorization": f"Bearer {token}"}, timeout=timeout_s, transport=transport
        )

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Give the connections back."""
        self._http.close()

    def submit(self, reference: MediaReference, *, idempotency_key: str | None = None) -> Accepted:
        """Submit a reference; it is on the brokers when this returns. Without a key of yours it gets one."""
        return self._ask(submit_call(reference, idempotency_key), Accepted)

    def upload(
        self,
        file: Path | bytes,
        *,
        content_type: str | None = None,
        idempotency_key: str | None = None,
        **fields: Any,
    ) -> Accepted:
        """Submit the file itself. `fields` are those of a reference, such as media_id, tenant and labels."""
        return self._ask(upload_call(file, content_type, fields, idempotency_key), Accepted)

    def submit_batch(self, references: Sequence[MediaReference], *, idempotency_key: str | None = None) -> BatchAnswer:
        """Submit up to 1,000 references; each has an answer of its own, so look at `refused`."""
        return self._ask(batch_call(references, idempotency_key), BatchAnswer)

    def status(self, media_id: str, *, tenant: str | None = None) -> MediaStatus:
        """What became of a media item."""
        return self._ask(status_call(media_id, tenant), MediaStatus)

    def decisions(self, *, tenant: str | None = None, after: int | None = None) -> Iterator[StreamEvent]:
        """A tenant's decisions as they come, for ever; a lost connection goes on behind the last event.

        `after`: 0 begins with the oldest that is kept, None with what comes next.
        """
        events = Events(after)
        failures = 0
        while True:
            try:
                events.begin()
                with self._stream(tenant, events.last) as answer:
                    if not answer.is_success:
                        answer.read()
                        raise_problem(answer)
                    for chunk in answer.iter_bytes():
                        failures = 0
                        yield from events.feed(chunk)
                error: Exception = GatewayUnavailable("the stream has ended")
            except httpx.TransportError as lost:
                error = GatewayUnavailable(f"{self._http.base_url}: {str(lost) or type(lost).__name__}")
            except (GatewayProblem, GatewayUnavailable) as refused:
                error = refused
            failures += 1
            wait_s = self._retry.wait_s(failures, error)
            if wait_s is None:
                raise error
            time.sleep(wait_s)

    def _stream(self, tenant: str | None, after: int | None) -> AbstractContextManager[httpx.Response]:
        call = stream_call(tenant, after)
        return self._http.stream(**_arguments(call), timeout=self._stream_timeout)

    def _ask(self, call: Call, model: type[M]) -> M:
        attempt = 0
        while True:
            attempt += 1
            try:
                return read_answer(self._http.request(**_arguments(call)), model)
            except httpx.TransportError as lost:
                error: Exception = GatewayUnavailable(f"{self._http.base_url}: {str(lost) or type(lost).__name__}")
            except (GatewayProblem, GatewayUnavailable) as refused:
                error = refused
            wait_s = self._retry.wait_s(attempt, error)
            if wait_s is None:
                raise error
            time.sleep(wait_s)


def _arguments(call: Call) -> dict[str, Any]:
    return {"method": call.method, "url": call.path, **call.arguments}
