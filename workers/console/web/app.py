"""The console as an ASGI application."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from html import escape

import structlog
from fastapi import Depends, FastAPI, Request
from fastapi.exceptions import RequestValidationError
from starlette.exceptions import HTTPException
from starlette.responses import HTMLResponse, JSONResponse, PlainTextResponse, RedirectResponse, Response

from workers.console.domain.errors import NoSuchCase, ReviewError
from workers.console.web.bodies import BodyLimit
from workers.console.web.bugs import BugPages
from workers.console.web.desk import Desk
from workers.console.web.guard import FormRefused, LoginNeeded, RoleMissing, local_path, login_url, own_form
from workers.console.web.routes import auth, cases, dashboard, lists, pictures
from workers.console.web.templating import page, static_files
from workers.web.headers import SecurityHeaders

log = structlog.get_logger(__name__)

POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; connect-src 'self'; form-action 'self'; "
    "frame-ancestors 'none'; base-uri 'none'; require-trusted-types-for 'script'; trusted-types 'none'"
)
"""No script and no style but our files, no address but our own, and no text that a script could turn into markup."""


def create_app(desk: Desk) -> FastAPI:
    """All pages. Decoders start with the app and end with it."""
    app = FastAPI(openapi_url=None, docs_url=None, redoc_url=None, lifespan=_lifespan, dependencies=[Depends(own_form)])
    app.state.desk = desk
    for routes in (auth, lists, cases, pictures, dashboard):
        app.include_router(routes.router)
    app.add_api_route("/static/{name}", _static, methods=["GET"], include_in_schema=False)
    _install_faults(app)
    app.add_middleware(BugPages, answer=_of_a_bug)
    app.add_middleware(BodyLimit, max_bytes=desk.settings.max_form_bytes)
    app.add_middleware(SecurityHeaders, policy=POLICY, https=desk.https)
    return app


@asynccontextmanager
async def _lifespan(app: FastAPI) -> AsyncIterator[None]:
    desk: Desk = app.state.desk
    desk.images.open()
    desk.fingerprints.start()
    try:
        yield
    finally:
        desk.fingerprints.stop()
        desk.images.close()
        desk.files.close()


def _static(name: str) -> Response:
    found = static_files().get(name)
    if found is None:
        return PlainTextResponse("There is no such file.\n", 404)
    headers = {"Cache-Control": "public, max-age=31536000, immutable"}
    return Response(found.data, media_type=found.media_type, headers=headers)


def _install_faults(app: FastAPI) -> None:
    app.add_exception_handler(LoginNeeded, _login_needed)
    app.add_exception_handler(FormRefused, _form_refused)
    app.add_exception_handler(RoleMissing, _role_missing)
    app.add_exception_handler(ReviewError, _not_done)
    app.add_exception_handler(cases.AnswerRefused, _not_done)
    app.add_exception_handler(RequestValidationError, _unreadable)
    app.add_exception_handler(HTTPException, _of_http)


async def _login_needed(request: Request, _error: Exception) -> Response:
    if _wants_json(request):
        return JSONResponse({"said": "You are logged out."}, 401)
    if request.method == "GET" and request.headers.get("sec-fetch-site") == "cross-site":
        return _again(request)
    return RedirectResponse(login_url(request), 303)


def _again(request: Request) -> Response:
    """A link on another site: the browser kept the cookie back, and sends it when one of our pages asks."""
    path = local_path(request.url.path + (f"?{request.url.query}" if request.url.query else ""))
    target = escape(path, quote=True)
    return HTMLResponse(
        f'<!doctype html><html lang="en"><meta charset="utf-8"><meta http-equiv="refresh" content="0;url={target}">'
        f'<title>mediasieve</title><p><a href="{target}">Go on</a>'
    )


async def _form_refused(request: Request, _error: Exception) -> Response:
    said = "The form did not come from a page of this session. Load the page again and send it from there."
    return _fault(request, 403, "Not accepted", said)


async def _role_missing(request: Request, error: Exception) -> Response:
    said = f"Your account needs the role {error} for this; whoever runs the console can give it."
    return _fault(request, 403, "Not allowed", said)


async def _not_done(request: Request, error: Exception) -> Response:
    refused = error if isinstance(error, cases.AnswerRefused) else None
    why, kept = (refused.why, refused.kept) if refused else (error, "")
    status = 404 if isinstance(why, NoSuchCase) else 409 if isinstance(why, ReviewError) else 422
    title = {404: "Not found", 409: "Nothing was changed", 422: "Not taken as it is"}[status]
    return _fault(request, status, title, str(why), kept=kept)


async def _unreadable(request: Request, error: Exception) -> Response:
    assert isinstance(error, RequestValidationError)  # noqa: S101 - registered for nothing else
    fields = ", ".join(".".join(map(str, fault["loc"])) for fault in error.errors()[:4])
    return _fault(request, 422, "Not understood", f"This cannot be read: {fields}.")


async def _of_http(request: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException)  # noqa: S101 - as above
    return _fault(request, error.status_code, "Not found" if error.status_code == 404 else "Failed", str(error.detail))


async def _of_a_bug(request: Request, error: Exception) -> Response:
    log.error("request_failed", path=request.url.path, cause=type(error).__name__, exc_info=error)
    return _fault(request, 500, "Failed", "An error of ours; it is in the log. Nothing is known to have changed.")


def _fault(request: Request, status: int, title: str, said: str, *, kept: str = "") -> Response:
    if _wants_json(request):
        return JSONResponse({"said": said}, status)
    back = None if status == 404 else request.path_params.get("case_id")
    return page("fault", None, status, title=title, said=said, case_id=back, kept=kept)


def _wants_json(request: Request) -> bool:
    return request.headers.get("accept", "").startswith("application/json")
