"""The queue, what was closed lately, and the search."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Depends, Form, Query
from starlette.responses import RedirectResponse, Response

from workers.console.web.guard import Visit, reviewing, visiting
from workers.console.web.notices import notice
from workers.console.web.templating import page

router = APIRouter()

PageNumber = Annotated[int, Query(ge=1, le=100_000)]


@router.get("/")
def start() -> Response:
    """The queue is what people come for."""
    return RedirectResponse("/queue", 303)


@router.get("/queue")
def queue(
    visit: Annotated[Visit, Depends(visiting)], number: Annotated[PageNumber, Query(alias="page")] = 1, said: str = ""
) -> Response:
    """Open cases, those that come first on top."""
    cases = visit.desk.service.queue(visit.tenants, number)
    return page("queue", visit, cases=cases, notice=notice(said))


@router.post("/claim")
def claim(visit: Annotated[Visit, Depends(reviewing)], case_id: Annotated[str, Form(max_length=64)] = "") -> Response:
    """The case named, or the one that comes first."""
    return claimed(visit, case_id or None)


@router.get("/recent")
def recent(
    visit: Annotated[Visit, Depends(visiting)], number: Annotated[PageNumber, Query(alias="page")] = 1
) -> Response:
    """What people closed, the newest on top."""
    return page("recent", visit, cases=visit.desk.service.recent(visit.tenants, number))


@router.get("/search")
def search(
    visit: Annotated[Visit, Depends(visiting)],
    q: Annotated[str, Query(max_length=512)] = "",
    number: Annotated[PageNumber, Query(alias="page")] = 1,
) -> Response:
    """Cases of any state, also those that no person has seen."""
    text = q.strip()
    cases = visit.desk.service.search(visit.tenants, text, number) if text else None
    return page("search", visit, cases=cases, q=text)


def claimed(visit: Visit, case_id: str | None, said: str = "") -> Response:
    """Claim, remember the token in the session, and go there; back to the queue when nothing is left."""
    claim = visit.desk.service.claim(visit.name, visit.tenants, case_id)
    if claim is None:
        return RedirectResponse(f"/queue?said={said or 'nothing_left'}", 303)
    visit.desk.sessions.hold(visit.session, claim.case_id, claim.token)
    return RedirectResponse(f"/cases/{claim.case_id}{f'?said={said}' if said else ''}", 303)
