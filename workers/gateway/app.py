"""The gateway's ASGI application."""

from __future__ import annotations

from importlib.metadata import version

import structlog
from fastapi import FastAPI, Request
from starlette.responses import Response

from workers.gateway.openapi import install_openapi
from workers.gateway.parts import Parts
from workers.gateway.routes_media import router as media
from workers.gateway.routes_stream import router as decisions
from workers.web.database import DATABASE_AWAY
from workers.web.headers import SecurityHeaders
from workers.web.problems import ProblemError, install_problems, problem_response

log = structlog.get_logger("mediasieve")


def create_app(parts: Parts) -> FastAPI:
    """Everything but the server and what runs beside it."""
    public_url = parts.settings.public_url
    app = FastAPI(
        title="mediasieve ingest gateway",
        docs_url=None,  # the page would load scripts from elsewhere
        redoc_url=None,
        redirect_slashes=False,
    )
    app.state.parts = parts
    install_problems(app)
    for kind in DATABASE_AWAY:
        app.add_exception_handler(kind, _database_away)
    app.include_router(media)
    app.include_router(decisions)
    install_openapi(app, version("mediasieve"), parts.settings)
    app.add_middleware(SecurityHeaders, https=(public_url or "").startswith("https://"))
    return app


async def _database_away(_request: Request, error: Exception) -> Response:
    log.warning("database_unavailable", cause=type(error).__name__, detail=str(error)[:500])
    detail = "the database has no answer now; repeat the request with the same Idempotency-Key"
    return problem_response(
        ProblemError(503, "database-unavailable", "The database is down", detail, headers={"Retry-After": "5"})
    )
