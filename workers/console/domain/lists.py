"""What the pages list and show. Reads alone."""

from __future__ import annotations

from typing import Any
from uuid import UUID

from sqlalchemy import ColumnElement, Connection, Select, and_, func, or_, select

from schemas.decision import Outcome, Risk
from schemas.review import ActionKind, Label
from schemas.types import StageName
from workers.console.domain.errors import NoSuchCase
from workers.console.domain.models import Action, CasePage, CaseRow, CaseState, CaseView, Lease, Review, Tenants
from workers.console.domain.outcomes import most_needed
from workers.console.domain.priority import priority
from workers.console.domain.settings import ReviewSettings
from workers.console.domain.tables import actions, cases, verdicts
from workers.console.domain.turn import Case, decision_of, moment, visible

_REAL = cases.c.gold_of.is_(None)


class Lists:
    """Over one connection, as of one moment."""

    def __init__(self, connection: Connection, now: float, settings: ReviewSettings) -> None:
        """`now` in seconds since the epoch."""
        self._connection = connection
        self._now = now
        self._settings = settings

    def queue(self, tenants: Tenants, page: int) -> CasePage:
        """See ReviewService."""
        found = select(cases).where(_REAL, cases.c.state == CaseState.OPEN.value, visible(tenants))
        return self._page(found.order_by(cases.c.rank, cases.c.case_id), page)

    def recent(self, tenants: Tenants, page: int) -> CasePage:
        """See ReviewService."""
        found = select(cases).where(_REAL, cases.c.state == CaseState.CLOSED.value, visible(tenants))
        return self._page(found.order_by(cases.c.closed_at.desc(), cases.c.case_id), page)

    def search(self, tenants: Tenants, text: str, page: int) -> CasePage:
        """See ReviewService."""
        found = select(cases).where(_REAL, visible(tenants), _matches(text))
        return self._page(found.order_by(cases.c.decided_at.desc(), cases.c.case_id), page)

    def similar(self, case_id: str, tenants: Tenants, limit: int) -> tuple[CaseRow, ...]:
        """See ReviewService."""
        case = self._find(case_id, tenants)
        scores = (cases.c.classifier_score, cases.c.spectral_score, cases.c.mllm_score)
        away: ColumnElement[Any] = func.coalesce(func.abs(scores[0] - case.classifier_score), 1.0)
        for column, own in zip(scores[1:], (case.spectral_score, case.mllm_score), strict=True):
            away = away + func.coalesce(func.abs(column - own), 1.0)
        other = or_(cases.c.content_sha256 != case.content_sha256, cases.c.content_sha256.is_(None))
        if case.content_sha256 is None:
            other = cases.c.case_id.is_not(None)
        found = (
            select(cases)
            .where(_REAL, cases.c.state == CaseState.CLOSED.value, visible(tenants))
            .where(cases.c.case_id != case.case_id, cases.c.decision_uid != case.decision_uid)
            .order_by(other, away, cases.c.case_id)
            .limit(limit)
        )
        return tuple(self._row(row) for row in self._connection.execute(found))

    def case(self, case_id: str, tenants: Tenants) -> CaseView:
        """See ReviewService."""
        case = self._find(case_id, tenants)
        told = case.round if case.state == CaseState.OPEN else case.round + 1
        given = self._connection.execute(
            select(verdicts)
            .where(verdicts.c.case_id == case_id, verdicts.c.round < told)
            .order_by(verdicts.c.round, verdicts.c.sequence)
        )
        done = self._connection.execute(
            select(actions).where(actions.c.case_id == case_id).order_by(actions.c.action_id)
        )
        return CaseView(
            row=self._row(case),
            decision=decision_of(case),
            reviews=tuple(_review(row) for row in given),
            history=tuple(_action(row, told=row.round < told) for row in done),
            needed=most_needed(case.appealed, self._settings),
        )

    def _find(self, case_id: str, tenants: Tenants) -> Case:
        found = self._connection.execute(select(cases).where(cases.c.case_id == case_id, visible(tenants))).first()
        if found is None:
            raise NoSuchCase(f"no case {case_id}")
        return found

    def _page(self, found: Select[Any], page: int) -> CasePage:
        if page < 1:
            raise ValueError(f"page: {page}; pages count from 1")
        size = self._settings.page_rows
        rows = self._connection.execute(found.limit(size + 1).offset((page - 1) * size)).all()
        return CasePage(rows=tuple(self._row(row) for row in rows[:size]), number=page, more=len(rows) > size)

    def _row(self, case: Case) -> CaseRow:
        until = self._now if case.closed_at is None else case.closed_at
        leased = case.lease_until is not None and case.lease_until > self._now
        return CaseRow(
            case_id=case.case_id,
            decision_uid=UUID(case.decision_uid),
            tenant=case.tenant,
            media_id=case.media_id,
            source=case.source,
            uri=case.uri,
            state=CaseState(case.state),
            outcome=Outcome(case.outcome),
            risk=Risk(case.risk) if case.risk else None,
            stage_exited=StageName(case.stage_exited),
            score=case.score,
            reason=case.reason,
            detail=case.detail,
            decided_at=moment(case.decided_at),
            opened_at=moment(case.opened_at),
            age_s=max(0.0, until - case.opened_at),
            urgency=case.urgency,
            priority=priority(case.opened_at, case.urgency, until, self._settings.priority),
            lease=Lease(reviewer=case.lease_reviewer, until=moment(case.lease_until)) if leased else None,
            votes=case.votes,
            skips=case.skips,
            appealed=case.appealed,
            label=Label(case.label) if case.label else None,
            closed_at=None if case.closed_at is None else moment(case.closed_at),
        )


def _matches(text: str) -> ColumnElement[bool]:
    asked = text.strip().casefold()
    words = and_(*(cases.c.words.contains(word, autoescape=True) for word in asked.split()[:16]), _REAL)
    return or_(words, cases.c.case_id == asked, cases.c.content_sha256 == asked)


def _review(row: Any) -> Review:
    return Review(
        review_id=UUID(row.review_id),
        reviewer=row.reviewer,
        label=Label(row.label),
        family=row.family,
        rationale=row.rationale,
        reviewed_at=moment(row.reviewed_at),
        round=row.round,
    )


def _action(row: Any, *, told: bool) -> Action:
    """What a reviewer said of an open round stays unsaid."""
    kind = ActionKind(row.kind)
    said = told or kind is not ActionKind.REVIEWED
    return Action(
        kind=kind,
        actor=row.actor,
        at=moment(row.at),
        detail=row.detail if said else "",
        label=Label(row.label) if row.label and said else None,
    )
