"""Faults over HTTP as RFC 9457 says: `application/problem+json`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import structlog
from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from starlette.exceptions import HTTPException
from starlette.responses import Response

from schemas.api import FieldProblem, Problem

log = structlog.get_logger(__name__)

MEDIA_TYPE = "application/problem+json"
TYPE_BASE = "https://mediasieve.dev/problems/"


class ProblemError(Exception):
    """Ends a request with this answer. `slug` names the kind of problem and is part of the interface."""

    def __init__(
        self,
        status: int,
        slug: str,
        title: str,
        detail: str,
        *,
        errors: Sequence[FieldProblem] = (),
        headers: Mapping[str, str] | None = None,
    ) -> None:
        super().__init__(slug, detail)
        self.problem = Problem(
            type=f"{TYPE_BASE}{slug}", title=title, status=status, detail=detail[:1024], errors=tuple(errors)
        )
        self.headers = dict(headers or {})


def install_problems(app: FastAPI) -> None:
    """Every fault of the app, also those of the framework, becomes a problem."""
    app.add_exception_handler(ProblemError, _of_ours)
    app.add_exception_handler(RequestValidationError, _of_validation)
    app.add_exception_handler(HTTPException, _of_http)
    app.add_exception_handler(Exception, _of_a_bug)


def problem_response(error: ProblemError) -> Response:
    """The answer itself, for code outside of the app's handlers."""
    body = error.problem.model_dump_json(exclude_none=True).encode()
    return Response(body, error.problem.status, error.headers, MEDIA_TYPE)


def responses(*statuses: int) -> dict[int | str, dict[str, Any]]:
    """For the OpenAPI document: these statuses answer with a problem."""
    schema = {"$ref": "#/components/schemas/Problem"}
    return {
        status: {"description": _DESCRIPTIONS[status], "content": {MEDIA_TYPE: {"schema": schema}}}
        | ({"headers": _RETRY_AFTER} if status in _RETRYABLE else {})
        for status in statuses
    }


def field_problems(error: RequestValidationError) -> list[FieldProblem]:
    """Each fault with the place of its field."""
    return [
        FieldProblem(field=".".join(map(str, e["loc"]))[:256] or "request", detail=str(e["msg"])[:512])
        for e in list(error.errors())[:16]
    ]


_RETRYABLE = frozenset({409, 429, 503})
_RETRY_AFTER = {"Retry-After": {"description": "seconds to wait", "schema": {"type": "integer", "minimum": 1}}}
_DESCRIPTIONS = {
    400: "The body, a parameter or a header cannot be read.",
    401: "No credentials, or none that are valid.",
    403: "The caller lacks the role, or the tenant is not one of its own.",
    404: "There is nothing of that name for this caller.",
    408: "The body was not sent in time.",
    409: "It contradicts what was submitted before, or the same request is being worked on.",
    410: "It was there and is kept no longer.",
    413: "The body is larger than this key may send.",
    415: "The content type is not taken.",
    422: "A field is not what it should be, or the idempotency key was used for another body.",
    429: "The key's rate is exceeded, or the fleet is too far behind.",
    503: "Broker, store or database have no answer now.",
}


async def _of_ours(_request: Request, error: Exception) -> Response:
    assert isinstance(error, ProblemError)  # noqa: S101 - registered for nothing else
    return problem_response(error)


async def _of_validation(_request: Request, error: Exception) -> Response:
    assert isinstance(error, RequestValidationError)  # noqa: S101 - as above
    found = field_problems(error)
    return problem_response(ProblemError(422, "invalid", "The request is invalid", _summary(found), errors=found))


async def _of_http(_request: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException)  # noqa: S101 - as above
    title = error.detail if isinstance(error.detail, str) else "The request failed"
    slug = title.lower().replace(" ", "-")
    return problem_response(ProblemError(error.status_code, slug, title, title, headers=error.headers))


async def _of_a_bug(request: Request, error: Exception) -> Response:
    log.error("request_failed", path=request.url.path, cause=type(error).__name__, exc_info=error)
    detail = "an error of ours; it is in the log"
    return problem_response(ProblemError(500, "internal", "Internal error", detail))


def _summary(found: Sequence[FieldProblem]) -> str:
    return "; ".join(f"{fault.field}: {fault.detail}" for fault in found[:4]) or "the request is invalid"
