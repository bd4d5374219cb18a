"""One case: the page, and what a reviewer does on it."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Depends, Form, Path
from pydantic import BaseModel, Field
from starlette.responses import JSONResponse, RedirectResponse, Response

from schemas.decision import Decision
from schemas.review import Label
from workers.console.domain.errors import ReviewError, StaleLease
from workers.console.domain.models import CaseState, CaseView, Claim, Lease
from workers.console.web.guard import Visit, reviewing, visiting
from workers.console.web.images import WINDOW_PX
from workers.console.web.notices import notice
from workers.console.web.routes.lists import claimed
from workers.console.web.templating import page
from workers.explain.pictures import MAX_SIDE_PX

router = APIRouter(prefix="/cases/{case_id}")

CaseId = Annotated[str, Path(max_length=64)]
Token = Annotated[str, Form(max_length=256)]
SKIP_REASONS = ("I know the source", "not my field", "distressing", "I cannot tell", "the page shows too little")
GENERATED_BY = (Label.GENERATED, Label.AI_PROCESSED)
"""Labels with which a generator may be named."""


class Answer(BaseModel):
    """The form of a verdict."""

    label: Label
    token: str = Field(default="", max_length=256)
    rationale: str = Field(default="", max_length=4096)
    family: str = Field(default="", max_length=256)
    go_on: str = Field(default="", max_length=8)


class AnswerRefused(Exception):
    """A form that changed nothing, for the reason `why`; `kept` is what was typed, so that it is not lost."""

    def __init__(self, why: Exception, kept: str) -> None:
        super().__init__(str(why))
        self.why = why
        self.kept = kept


@router.get("")
def show(case_id: CaseId, visit: Annotated[Visit, Depends(visiting)], said: str = "") -> Response:
    """Everything about the case; the forms only for whom they would work."""
    service = visit.desk.service
    case = service.case(case_id, visit.tenants)
    token = _own_token(visit, case)
    alike = visit.desk.similar.of(case, visit.tenants)
    shown_above = {one.row.case_id for one in alike.found}
    return page(
        "case",
        visit,
        case=case,
        row=case.row,
        file=visit.desk.files.of(case.decision),
        alike=alike,
        like_scores=[row for row in service.similar(case_id, visit.tenants) if row.case_id not in shown_above],
        families=visit.desk.families.known(visit.tenants) if token else (),
        shown=_shown_size(case.decision),
        window_px=WINDOW_PX,
        token=token,
        left_s=_left_s(visit, case.row.lease) if token and case.row.lease else 0.0,
        is_mine=_is_mine(visit, case),
        is_open=case.row.state is CaseState.OPEN,
        skip_reasons=SKIP_REASONS,
        notice=notice(said),
    )


@router.post("/verdict")
def decide(
    case_id: CaseId,
    visit: Annotated[Visit, Depends(reviewing)],
    answer: Annotated[Answer, Form()],
) -> Response:
    """One reviewer's answer; then the next case, if they asked for it."""
    _check(visit, case_id, answer.token)
    family = answer.family.strip()
    try:
        if family and answer.label not in GENERATED_BY:
            raise ValueError("family: only what is generated or AI-processed has a generator; leave it empty")
        verdict = visit.desk.service.decide(
            answer.token, answer.label, answer.rationale, reviewer=visit.name, family=family
        )
    except (ReviewError, ValueError) as error:
        raise AnswerRefused(error, "\n".join(filter(None, (answer.rationale, family)))) from error
    visit.desk.sessions.drop(visit.session, case_id)
    said = f"closed_{verdict.outcome.value}" if verdict.closed and verdict.outcome else "waits"
    return claimed(visit, None, said) if answer.go_on else RedirectResponse(f"/cases/{case_id}?said={said}", 303)


@router.post("/skip")
def skip(
    case_id: CaseId,
    visit: Annotated[Visit, Depends(reviewing)],
    token: Token = "",
    reason: Annotated[str, Form(max_length=1024)] = "",
) -> Response:
    """Leave it to somebody else, with a reason."""
    _check(visit, case_id, token)
    try:
        visit.desk.service.skip(token, reason.strip(), reviewer=visit.name)
    except (ReviewError, ValueError) as error:
        raise AnswerRefused(error, reason) from error
    visit.desk.sessions.drop(visit.session, case_id)
    return RedirectResponse("/queue?said=skipped", 303)


@router.post("/release")
def release(case_id: CaseId, visit: Annotated[Visit, Depends(reviewing)], token: Token = "") -> Response:
    """Give it back unanswered."""
    _check(visit, case_id, token)
    visit.desk.service.release(token, reviewer=visit.name)
    visit.desk.sessions.drop(visit.session, case_id)
    return RedirectResponse("/queue?said=released", 303)


@router.post("/renew")
def renew(case_id: CaseId, visit: Annotated[Visit, Depends(reviewing)], token: Token = "") -> Response:
    """For the script of the page: the lease from now on again."""
    _check(visit, case_id, token)
    claim = visit.desk.service.renew(token, reviewer=visit.name)
    return JSONResponse({"left_s": _left_s(visit, claim)})


@router.post("/appeal")
def appeal(
    case_id: CaseId, visit: Annotated[Visit, Depends(reviewing)], reason: Annotated[str, Form(max_length=4096)] = ""
) -> Response:
    """Open a pass or block again, for others to look at."""
    row = visit.desk.service.case(case_id, visit.tenants).row
    try:
        opened = visit.desk.service.appeal(row.decision_uid, visit.tenants, visit.name, reason.strip())
    except (ReviewError, ValueError) as error:
        raise AnswerRefused(error, reason) from error
    return RedirectResponse(f"/cases/{opened}?said=appealed", 303)


def _shown_size(decision: Decision) -> tuple[int, int] | None:
    """Of the preview, which is the size at which the model saw the image too."""
    if decision.facts is None:
        return None
    width, height = decision.facts.width, decision.facts.height
    scale = min(1.0, MAX_SIDE_PX / max(width, height))
    return max(1, round(width * scale)), max(1, round(height * scale))


def _check(visit: Visit, case_id: str, token: str) -> None:
    """A token alone is not enough: it may be of another case, of a tenant that the account sees no longer."""
    visit.desk.service.case(case_id, visit.tenants)
    if visit.desk.sessions.case_of(visit.session, token) not in (case_id, None):
        raise StaleLease("the claim is of another case; claim this one")


def _is_mine(visit: Visit, case: CaseView) -> bool:
    return case.row.lease is not None and case.row.lease.reviewer == visit.name


def _left_s(visit: Visit, lease: Claim | Lease) -> float:
    """Seconds, not a time of day: the browser's clock may be wrong."""
    return max(0.0, lease.until.timestamp() - visit.desk.clock.wall_s())


def _own_token(visit: Visit, case: CaseView) -> str | None:
    """Of this session's claim; the same person on another device claims again."""
    if not _is_mine(visit, case) or not visit.may_review:
        return None
    return visit.desk.sessions.held(visit.session, case.row.case_id)
