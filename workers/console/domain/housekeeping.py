"""What the queue forgets."""

from __future__ import annotations

from sqlalchemy import delete, select

from workers.console.domain.models import CaseState
from workers.console.domain.outbox import forget_published
from workers.console.domain.tables import cases, gold
from workers.console.domain.turn import Turn

_DAY_S = 86_400.0
_CHUNK = 1000


def forget(turn: Turn) -> int:
    """A thousand of the machine's passes and blocks that are older than the history, and published records likewise.

    Returns how many rows went: ask again in another transaction until it is 0. What people decided stays, and gold.
    """
    before = turn.now - turn.settings.history_days * _DAY_S
    published = forget_published(turn.connection, before, _CHUNK)
    old = (
        select(cases.c.case_id)
        .where(cases.c.state == CaseState.MACHINE.value, cases.c.decided_at < before)
        .where(cases.c.case_id.not_in(select(gold.c.decision_uid)))
        .limit(_CHUNK)
    )
    return published + turn.connection.execute(delete(cases).where(cases.c.case_id.in_(old))).rowcount
