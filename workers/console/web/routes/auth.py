"""Log in and out."""

from __future__ import annotations

import math
import secrets
from typing import Annotated

from fastapi import APIRouter, Depends, Form, Query, Request
from starlette.responses import RedirectResponse, Response

from workers.console.web.desk import Desk
from workers.console.web.guard import (
    Visit,
    delete_cookie,
    desk_of,
    local_path,
    login_cookie,
    session_cookie,
    set_cookie,
    visiting,
)
from workers.console.web.sessions import csrf_of
from workers.console.web.templating import page

router = APIRouter()

_FORM_S = 3600


@router.get("/login")
def ask(request: Request, after: Annotated[str, Query(alias="next", max_length=2048)] = "/queue") -> Response:
    """The form. Its token lies in a cookie of its own: there is no session yet."""
    return _form(request, local_path(after), "")


@router.post("/login")
def log_in(
    request: Request,
    desk: Annotated[Desk, Depends(desk_of)],
    name: Annotated[str, Form(max_length=256)] = "",
    password: Annotated[str, Form(max_length=1024)] = "",
    after: Annotated[str, Form(alias="next", max_length=2048)] = "/queue",
) -> Response:
    """A session, or the form again. It does not say which of the two was wrong."""
    address = request.client.host if request.client else "unknown"
    wait_s = desk.limit.attempt(name, address)
    if wait_s > 0.0:
        said = f"Too many attempts. Try again in {math.ceil(wait_s)} s."
        return _form(request, local_path(after), said, 429, {"Retry-After": str(math.ceil(wait_s))})
    principal = desk.accounts.check(name, password)
    if principal is None:
        return _form(request, local_path(after), "Name or password is wrong.", 401)
    desk.limit.succeeded(name, address)
    before = desk.sessions.find(request.cookies.get(session_cookie(request, desk), ""))
    if before is not None:
        desk.sessions.end(before)
    response = RedirectResponse(local_path(after), 303)
    token = desk.sessions.begin(principal.name)
    set_cookie(response, request, session_cookie(request, desk), token, round(desk.settings.session_s))
    delete_cookie(response, request, login_cookie(request, desk))
    return response


@router.post("/logout")
def log_out(request: Request, visit: Annotated[Visit, Depends(visiting)]) -> Response:
    """The session ends here, not in the browser alone."""
    visit.desk.sessions.end(visit.session)
    response = RedirectResponse("/login", 303)
    delete_cookie(response, request, session_cookie(request, visit.desk))
    return response


def _form(
    request: Request, after: str, said: str, status: int = 200, headers: dict[str, str] | None = None
) -> Response:
    cookie = login_cookie(request, desk_of(request))
    token = request.cookies.get(cookie) or secrets.token_urlsafe(32)
    response = page("login", None, status, csrf=csrf_of(token), after=after, said=said)
    response.headers.update(headers or {})
    set_cookie(response, request, cookie, token, _FORM_S)
    return response
