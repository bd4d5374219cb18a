"""A pass or a block is looked at again."""

from __future__ import annotations

from uuid import UUID

from sqlalchemy import update

from schemas.review import ActionKind
from workers.console.domain.claims import find, recuse
from workers.console.domain.errors import NoSuchCase, NotAppealable
from workers.console.domain.intake import opened
from workers.console.domain.models import CaseState, Tenants
from workers.console.domain.tables import cases
from workers.console.domain.turn import Turn, decision_of


def appeal(turn: Turn, decision_uid: UUID, tenants: Tenants, actor: str, reason: str) -> str:
    """See ReviewService. The outcome stays in force until the appeal is decided."""
    case = find(turn, str(decision_uid), tenants)
    if case.gold_of is not None:
        raise NoSuchCase(f"no case {case.case_id}")
    if case.state == CaseState.OPEN:
        raise NotAppealable(f"case {case.case_id} is open: it will be decided without an appeal")
    turn.connection.execute(
        update(cases)
        .where(cases.c.case_id == case.case_id)
        .values(
            state=CaseState.OPEN.value,
            appealed=True,
            round=case.round + 1,
            votes=0,
            label=None,
            closed_at=None,
            **opened(decision_of(case), turn.now, turn.settings, appealed=True),
        )
    )
    recuse(turn, case.case_id, actor, None)
    turn.record(find(turn, case.case_id, tenants), ActionKind.APPEALED, actor, reason)
    return str(case.case_id)
