"""What both clients share: requests, answers, and when to ask again."""

from __future__ import annotations

import uuid
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar
from urllib.parse import quote

import httpx
import orjson
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from schemas.api import DecisionEvent, Problem, RejectionEvent
from schemas.media import MediaReference

M = TypeVar("M", bound=BaseModel)

StreamEvent = DecisionEvent | RejectionEvent


class GatewayUnavailable(Exception):
    """The gateway cannot be reached, or its answer is none of a gateway's. `again`: asking once more may help."""

    def __init__(self, detail: str, *, again: bool = True) -> None:
        super().__init__(detail)
        self.again = again


class GatewayProblem(Exception):
    """The gateway refuses. `problem.type` names the kind; `retry_after_s` is None where asking again is of no use."""

    def __init__(self, problem: Problem, retry_after_s: float | None) -> None:
        super().__init__(problem.status, problem.detail)
        self.problem = problem
        self.retry_after_s = retry_after_s

    def __str__(self) -> str:
        return f"{self.problem.status} {self.problem.title}: {self.problem.detail}"


class Retry(BaseModel):
    """When a request is made again.

    After 409, 429 and 503 the wait is what the gateway says; after a lost connection, or where a proxy answers in place
    of the gateway (5xx), it doubles. Submissions carry an idempotency key, so that none is sent twice.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    attempts: int = Field(default=5, ge=1, description="in all; 1: never again")
    first_wait_s: float = Field(default=0.5, ge=0, description="after a connection was lost; doubles")
    longest_wait_s: float = Field(default=60.0, ge=0, description="a longer Retry-After is raised, not waited for")

    def wait_s(self, attempt: int, error: Exception) -> float | None:
        """Seconds to wait after the failed attempt, counted from 1; None: give up."""
        if attempt >= self.attempts:
            return None
        if isinstance(error, GatewayProblem):
            wait_s = error.retry_after_s
            return wait_s if wait_s is not None and wait_s <= self.longest_wait_s else None
        if isinstance(error, GatewayUnavailable) and not error.again:
            return None
        return min(self.longest_wait_s, self.first_wait_s * 2.0 ** (attempt - 1))


@dataclass(frozen=True, slots=True)
class Call:
    """One request to the gateway."""

    method: str
    path: str
    arguments: Mapping[str, Any] = field(default_factory=dict)


def submit_call(reference: MediaReference, idempotency_key: str | None) -> Call:
    """POST of a reference."""
    return Call("POST", "/v1/media", {"headers": _headers(idempotency_key), "content": _json(_sent(reference))})


def upload_call(
    file: Path | bytes, content_type: str | None, fields: Mapping[str, Any], idempotency_key: str | None
) -> Call:
    """POST of a file with the other fields of its reference."""
    data, name = (file.read_bytes(), file.name) if isinstance(file, Path) else (file, "media")
    return Call(
        "POST",
        "/v1/media",
        {
            "headers": {"Idempotency-Key": idempotency_key or str(uuid.uuid4())},
            "files": {"file": (name, data, content_type or "application/octet-stream")},
            "data": {"reference": _json(dict(fields)).decode()},
        },
    )


def batch_call(references: Sequence[MediaReference], idempotency_key: str | None) -> Call:
    """POST of many references."""
    body = _json({"items": [_sent(reference) for reference in references]})
    return Call("POST", "/v1/media/batch", {"headers": _headers(idempotency_key), "content": body})


def status_call(media_id: str, tenant: str | None) -> Call:
    """GET of a media item."""
    return Call("GET", f"/v1/media/{quote(media_id, safe='')}", {"params": _params(tenant=tenant)})


def stream_call(tenant: str | None, after: int | None) -> Call:
    """GET of the decisions as they come."""
    return Call("GET", "/v1/decisions/stream", {"params": _params(tenant=tenant, after=after)})


def read_answer(answer: httpx.Response, model: type[M]) -> M:
    """The model, ignoring fields of newer releases. Raises GatewayProblem, GatewayUnavailable."""
    raise_problem(answer)
    try:
        return model.model_validate_json(answer.content, extra="ignore")
    except ValidationError as error:
        raise GatewayUnavailable(f"{answer.url} does not answer as a gateway does: {error}", again=False) from error


def raise_problem(answer: httpx.Response) -> None:
    """Raises GatewayProblem for anything but a success; the body must have been read."""
    if answer.is_success:
        return
    try:
        problem = Problem.model_validate_json(answer.content, extra="ignore")
    except ValidationError as error:
        detail = f"{answer.url} answers {answer.status_code}, which is none of a gateway's"
        raise GatewayUnavailable(detail, again=answer.status_code >= 500) from error
    wait = answer.headers.get("retry-after", "")
    raise GatewayProblem(problem, float(wait) if wait.isascii() and wait.isdigit() else None)


class Events:
    """Server-sent events from the bytes of a stream, in whatever pieces they come."""

    def __init__(self, after: int | None) -> None:
        """`after`: the last event that was seen; None before the first."""
        self.last = after
        self._rest = b""
        self._fields: dict[str, str] = {}

    def begin(self) -> None:
        """A new connection: what the last one left unfinished will come again."""
        self._rest, self._fields = b"", {}

    def feed(self, chunk: bytes) -> Iterator[StreamEvent]:
        """The events that this piece ends. Raises GatewayUnavailable.

        Lines end with a line feed alone: `splitlines` would also break JSON at U+2028, which a URI may hold.
        """
        *lines, self._rest = (self._rest + chunk).split(b"\n")
        for line in lines:
            if line := line.removesuffix(b"\r"):
                name, _, value = line.decode(errors="replace").partition(":")
                self._fields[name] = value.removeprefix(" ")
                continue
            fields, self._fields = self._fields, {}
            yield from _event(fields)
            if "id" in fields and fields["id"].isdigit():  # only once whoever reads has taken the event
                self.last = int(fields["id"])


def _event(fields: Mapping[str, str]) -> Iterator[StreamEvent]:
    """None without data, as in comments that say how far the stream has come."""
    if "data" not in fields:
        return
    model = RejectionEvent if fields.get("event") == "rejection" else DecisionEvent
    try:
        yield model.model_validate_json(fields["data"], extra="ignore")
    except ValidationError as error:
        raise GatewayUnavailable(f"the stream holds what is no event: {error}", again=False) from error


def _sent(reference: MediaReference) -> dict[str, Any]:
    return reference.model_dump(mode="json", exclude_defaults=True)


def _headers(idempotency_key: str | None) -> dict[str, str]:
    return {"Idempotency-Key": idempotency_key or str(uuid.uuid4()), "Content-Type": "application/json"}


def _json(data: Any) -> bytes:
    return orjson.dumps(data)


def _params(**values: Any) -> dict[str, Any]:
    return {name: value for name, value in values.items() if value is not None}
