"""Cases of known label, given to reviewers among the others to measure them."""

from __future__ import annotations

from uuid import UUID

from sqlalchemy import Connection, delete, exists, func, insert, select, update
from sqlalchemy import case as sql_case

from schemas.review import Label
from workers.console.domain.claims import find, gold_case_id, take
from workers.console.domain.errors import NotAppealable
from workers.console.domain.models import CaseState, Claim, GoldAnswers, GoldItem, Tenants
from workers.console.domain.priority import rank
from workers.console.domain.tables import cases, gold, recusals, verdicts
from workers.console.domain.turn import Case, Turn, moment, visible


def add_gold(turn: Turn, decision_uid: UUID, label: Label, actor: str) -> None:
    """See ReviewService."""
    case = find(turn, str(decision_uid), None)
    if case.state == CaseState.OPEN:
        raise NotAppealable(f"case {case.case_id} is open: its label is not certain yet")
    turn.connection.execute(delete(gold).where(gold.c.decision_uid == case.case_id))
    turn.connection.execute(
        insert(gold).values(
            decision_uid=case.case_id, tenant=case.tenant, label=label.value, added_by=actor, added_at=turn.now
        )
    )
    given = select(cases.c.case_id).where(cases.c.gold_of == case.case_id)
    turn.connection.execute(
        update(verdicts)
        .where(verdicts.c.case_id.in_(given))
        .values(gold_correct=sql_case((verdicts.c.label == label.value, 1), else_=0))
    )


def gold_items(connection: Connection, tenants: Tenants) -> tuple[GoldItem, ...]:
    """See ReviewService."""
    copies, answers = cases.alias(), verdicts
    found = connection.execute(
        select(
            gold,
            cases.c.media_id,
            func.count(answers.c.review_id).label("answers"),
            func.coalesce(func.sum(answers.c.gold_correct), 0).label("correct"),
        )
        .join(cases, cases.c.case_id == gold.c.decision_uid)
        .outerjoin(copies, copies.c.gold_of == gold.c.decision_uid)
        .outerjoin(answers, answers.c.case_id == copies.c.case_id)
        .where(visible(tenants))
        .group_by(*gold.c, cases.c.media_id)
        .order_by(gold.c.added_at, gold.c.decision_uid)
    )
    return tuple(
        GoldItem(
            decision_uid=UUID(row.decision_uid),
            tenant=row.tenant,
            media_id=row.media_id,
            label=Label(row.label),
            added_by=row.added_by,
            added_at=moment(row.added_at),
            answers=row.answers,
            correct=row.correct,
        )
        for row in found
    )


def gold_answers(connection: Connection, tenants: Tenants) -> tuple[GoldAnswers, ...]:
    """See ReviewService."""
    found = connection.execute(
        select(verdicts.c.reviewer, gold.c.label, verdicts.c.label, func.count())
        .join(cases, cases.c.case_id == verdicts.c.case_id)
        .join(gold, gold.c.decision_uid == cases.c.gold_of)
        .where(visible(tenants))
        .group_by(verdicts.c.reviewer, gold.c.label, verdicts.c.label)
        .order_by(verdicts.c.reviewer, gold.c.label, verdicts.c.label)
    )
    return tuple(
        GoldAnswers(reviewer=reviewer, truth=Label(truth), said=Label(said), count=count)
        for reviewer, truth, said, count in found
    )


def next_gold(turn: Turn, reviewer: str, tenants: Tenants) -> Claim | None:
    """An item that the reviewer was never given, as a case of its own; None when there is none."""
    known = exists().where(recusals.c.case_id == gold.c.decision_uid, recusals.c.reviewer == reviewer)
    originals = turn.connection.execute(
        select(cases)
        .join(gold, gold.c.decision_uid == cases.c.case_id)
        .where(visible(tenants), cases.c.state != CaseState.OPEN.value, ~known)
    ).all()
    by_place = {gold_case_id(case.case_id, reviewer): case for case in originals}
    given = set(
        turn.connection.scalars(
            select(cases.c.case_id).where(cases.c.gold_for == reviewer, cases.c.gold_of.is_not(None))
        )
    )
    left = sorted(by_place.keys() - given)  # an order of its own for each reviewer
    return take(turn, _disguised(turn, by_place[left[0]], left[0], reviewer), reviewer) if left else None


def _disguised(turn: Turn, original: Case, case_id: str, reviewer: str) -> Case:
    """A copy that waits as any other case does."""
    values = dict(original._mapping)
    values |= {
        "case_id": case_id,
        "gold_of": original.case_id,
        "gold_for": reviewer,
        "state": CaseState.OPEN.value,
        "outcome": "escalate",
        "opened_at": turn.now,
        "rank": rank(turn.now, original.urgency, turn.settings.priority),
        "round": 0,
        "votes": 0,
        "skips": 0,
        "appealed": False,
        "label": None,
        "closed_at": None,
        "lease_token": None,
        "lease_reviewer": None,
        "lease_until": None,
    }
    turn.connection.execute(insert(cases).values(values))
    return find(turn, case_id, None)
