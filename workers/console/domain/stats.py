"""Numbers of the queue, its reviewers, and the flow through the tiers."""

from __future__ import annotations

from datetime import datetime
from typing import Any

from sqlalchemy import ColumnElement, Connection, Integer, cast, func, select

from schemas.decision import Outcome
from schemas.review import ActionKind, Label
from schemas.types import StageName
from workers.console.domain.intake import SCORE_BINS
from workers.console.domain.models import (
    Backlog,
    CaseState,
    FlowCell,
    FlowHour,
    FlowStats,
    QueueStats,
    ReviewerStats,
    ScoreBin,
    Tenants,
)
from workers.console.domain.outbox import count_waiting
from workers.console.domain.tables import actions, cases, verdicts
from workers.console.domain.turn import moment, visible

_DAY_S = 86_400.0
_REAL = cases.c.gold_of.is_(None)


def backlog(connection: Connection, now: float) -> Backlog:
    """For the metrics: cheap enough to be asked for all the time."""
    waiting, oldest = connection.execute(
        select(func.count(), func.min(cases.c.opened_at)).where(_REAL, cases.c.state == CaseState.OPEN.value)
    ).one()
    return Backlog(
        waiting=waiting,
        oldest_age_s=0.0 if oldest is None else max(0.0, now - oldest),
        unpublished=count_waiting(connection),
    )


def queue_stats(connection: Connection, now: float, tenants: Tenants) -> QueueStats:
    """See ReviewService."""
    mine = (_REAL, visible(tenants))
    open_ = (*mine, cases.c.state == CaseState.OPEN.value)
    closed = (*mine, cases.c.state == CaseState.CLOSED.value)

    def count(*conditions: ColumnElement[bool]) -> int:
        return connection.scalar(select(func.count()).select_from(cases).where(*conditions)) or 0

    waiting = count(*open_)
    by_age = select(cases.c.opened_at).where(*open_).order_by(cases.c.opened_at)
    oldest = connection.scalar(by_age.limit(1))
    middle = connection.scalar(by_age.offset(waiting // 2).limit(1))
    labels = connection.execute(
        select(verdicts.c.label, func.count())
        .join(cases, cases.c.case_id == verdicts.c.case_id)
        .where(*mine, verdicts.c.reviewed_at > now - _DAY_S)
        .group_by(verdicts.c.label)
    )
    return QueueStats(
        waiting=waiting,
        leased=count(*open_, cases.c.lease_until > now),
        appeals=count(*open_, cases.c.appealed.is_(True)),
        oldest_age_s=0.0 if oldest is None else max(0.0, now - oldest),
        median_age_s=0.0 if middle is None else max(0.0, now - middle),
        opened_last_day=sum(count(*of, cases.c.opened_at > now - _DAY_S) for of in (open_, closed)),
        closed_last_day=count(*closed, cases.c.closed_at > now - _DAY_S),
        agreed=_share(connection.scalar(_agreement(tenants))),
        labels_last_day={Label(label): number for label, number in labels},
        reviewers=_reviewers(connection, tenants),
        unpublished=count_waiting(connection),
    )


def flow_stats(connection: Connection, since: datetime, tenants: Tenants) -> FlowStats:
    """See ReviewService."""
    told = (_REAL, visible(tenants), cases.c.decided_at >= since.timestamp())

    def counts(*by: ColumnElement[Any]) -> list[Any]:
        found = select(*by, func.count().label("number")).select_from(cases).where(*told)
        return list(connection.execute(found.group_by(*by).order_by(*by)))

    outcome = cases.c.machine_outcome
    scores = counts(cases.c.score_bin, outcome)
    return FlowStats(
        since=since,
        cells=tuple(
            FlowCell(stage=StageName(stage), outcome=Outcome(out), count=number)
            for stage, out, number in counts(cases.c.stage_exited, outcome)
        ),
        hours=tuple(
            FlowHour(at=moment(3600.0 * hour), outcome=Outcome(out), count=number)
            for hour, out, number in counts(cases.c.decided_hour, outcome)
        ),
        scores=tuple(
            ScoreBin(low=place / SCORE_BINS, outcome=Outcome(out), count=number)
            for place, out, number in scores
            if place is not None
        ),
        unscored=sum(number for place, _, number in scores if place is None),
    )


def _agreement(tenants: Tenants) -> Any:
    return (
        select(func.avg(cast(verdicts.c.agreed, Integer)))
        .join(cases, cases.c.case_id == verdicts.c.case_id)
        .where(visible(tenants))
    )


def _reviewers(connection: Connection, tenants: Tenants) -> tuple[ReviewerStats, ...]:
    answers = connection.execute(
        select(
            verdicts.c.reviewer,
            func.count(),
            func.avg(verdicts.c.agreed),
            func.count(verdicts.c.gold_correct),
            func.avg(verdicts.c.gold_correct),
        )
        .join(cases, cases.c.case_id == verdicts.c.case_id)
        .where(visible(tenants))
        .group_by(verdicts.c.reviewer)
    ).all()
    skipped = connection.execute(
        select(actions.c.actor, func.count())
        .join(cases, cases.c.case_id == actions.c.case_id)
        .where(visible(tenants), actions.c.kind == ActionKind.SKIPPED.value)
        .group_by(actions.c.actor)
    )
    skips: dict[str, int] = {row[0]: row[1] for row in skipped}
    found = {
        name: ReviewerStats(
            reviewer=name,
            reviews=number - golden,
            skips=skips.pop(name, 0),
            agreed=_share(agreed),
            gold_answers=golden,
            gold_correct=_share(correct),
        )
        for name, number, agreed, golden, correct in answers
    }
    for name, number in skips.items():
        found[name] = ReviewerStats(
            reviewer=name, reviews=0, skips=number, agreed=None, gold_answers=0, gold_correct=None
        )
    return tuple(found[name] for name in sorted(found))


def _share(average: Any) -> float | None:
    """Postgres gives averages as decimals."""
    return None if average is None else float(average)
