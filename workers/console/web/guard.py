"""Who is visiting, and whether a form is one of ours."""

from __future__ import annotations

import hmac
from dataclasses import dataclass
from typing import Annotated
from urllib.parse import quote

from fastapi import Depends, Request
from starlette.concurrency import run_in_threadpool
from starlette.responses import Response

from workers.console.web.desk import Desk
from workers.console.web.sessions import Session, csrf_of
from workers.web.principal import Principal, Role

FORM_FIELD = "csrf"
_LOGIN_COOKIE = "mediasieve-login"
_SESSION_COOKIE = "mediasieve-console"


class LoginNeeded(Exception):
    """Nobody is logged in."""


class FormRefused(Exception):
    """A form that did not come from one of our pages."""


class RoleMissing(Exception):
    """The account may not do this; the text names the role."""


@dataclass(frozen=True, slots=True)
class Visit:
    """One request of somebody who is logged in."""

    desk: Desk
    session: Session
    principal: Principal

    @property
    def name(self) -> str:
        """The reviewer's name in verdicts."""
        return self.principal.name

    @property
    def tenants(self) -> frozenset[str] | None:
        """Whose cases they see; None: all."""
        return self.principal.tenants

    @property
    def may_review(self) -> bool:
        """May they claim, decide and appeal."""
        return self.principal.may(Role.REVIEW)


def desk_of(request: Request) -> Desk:
    """What the app was made with."""
    desk = request.app.state.desk
    assert isinstance(desk, Desk)  # noqa: S101 - create_app puts it there
    return desk


def visiting(request: Request, desk: Annotated[Desk, Depends(desk_of)]) -> Visit:
    """Somebody who may read. Raises LoginNeeded, RoleMissing."""
    token = request.cookies.get(session_cookie(request, desk))
    session = desk.sessions.find(token) if token else None
    principal = desk.accounts.principal(session.account) if session else None
    if session is None or principal is None:
        raise LoginNeeded
    if not (principal.may(Role.READ) or principal.may(Role.REVIEW)):
        raise RoleMissing("read or review")
    return Visit(desk, session, principal)


def reviewing(visit: Annotated[Visit, Depends(visiting)]) -> Visit:
    """Somebody who may decide. Raises LoginNeeded, RoleMissing."""
    if not visit.may_review:
        raise RoleMissing(Role.REVIEW.value)
    return visit


async def own_form(request: Request) -> None:
    """For every POST: it comes from a page of ours, and of this session.

    Raises:
        LoginNeeded: the session is over.
        FormRefused: it does not.
    """
    if request.method in ("GET", "HEAD"):
        return
    if request.headers.get("sec-fetch-site", "same-origin") not in ("same-origin", "none"):
        raise FormRefused
    desk = desk_of(request)
    is_login = request.url.path == "/login"
    token = request.cookies.get((login_cookie if is_login else session_cookie)(request, desk), "")
    if not is_login and (not token or await run_in_threadpool(desk.sessions.find, token) is None):
        raise LoginNeeded
    given = (await request.form()).get(FORM_FIELD, "")
    if not token or not isinstance(given, str) or not hmac.compare_digest(given.encode(), csrf_of(token).encode()):
        raise FormRefused


def session_cookie(request: Request, desk: Desk) -> str:
    """Over TLS its name keeps other hosts and plain HTTP from setting it."""
    return f"__Host-{_SESSION_COOKIE}" if is_secure(request, desk) else _SESSION_COOKIE


def login_cookie(request: Request, desk: Desk) -> str:
    """Of the login's form, likewise: who could set it could log somebody in as themselves."""
    return f"__Host-{_LOGIN_COOKIE}" if is_secure(request, desk) else _LOGIN_COOKIE


def is_secure(request: Request, desk: Desk) -> bool:
    """Did the browser ask over TLS, as far as can be known behind a proxy."""
    return desk.https or request.url.scheme == "https"


def set_cookie(response: Response, request: Request, name: str, value: str, max_age_s: int) -> None:
    """Never for scripts, never for requests that another site began."""
    secure = is_secure(request, desk_of(request))
    response.set_cookie(name, value, max_age=max_age_s, path="/", secure=secure, httponly=True, samesite="strict")


def delete_cookie(response: Response, request: Request, name: str) -> None:
    """With the attributes it was set with: browsers refuse a `__Host-` cookie without `Secure`, also to end it."""
    secure = is_secure(request, desk_of(request))
    response.delete_cookie(name, path="/", secure=secure, httponly=True, samesite="strict")


def login_url(request: Request) -> str:
    """Where to log in and come back from; a form that was sent is not sent again."""
    if request.method != "GET":
        return "/login"
    query = f"?{request.url.query}" if request.url.query else ""
    return f"/login?next={quote(request.url.path + query, safe='')}"


def local_path(path: str) -> str:
    """The path if it leads to a page of ours, else the start page."""
    is_local = path.startswith("/") and not path.startswith(("//", "/\\")) and path.isprintable() and "\\" not in path
    return path if is_local else "/queue"
