"""Names of generators that reviewers gave before, so that one generator keeps one name."""

from __future__ import annotations

from sqlalchemy import Engine, func, select

from pipeline.streaming.clock import Clock
from workers.console.domain.models import CaseState, Tenants
from workers.console.domain.tables import cases, verdicts
from workers.console.domain.turn import visible
from workers.web.database import reading

_DAYS = 180
_SHOWN = 50


class Families:
    """Of closed cases alone: what is said of an open one shall not reach the second reviewer by this way."""

    def __init__(self, engine: Engine, clock: Clock) -> None:
        self._engine = engine
        self._clock = clock

    def known(self, tenants: Tenants) -> tuple[str, ...]:
        """Those of the last half year in these tenants, the most frequent first."""
        found = (
            select(verdicts.c.family)
            .join(cases, cases.c.case_id == verdicts.c.case_id)
            .where(verdicts.c.reviewed_at > self._clock.wall_s() - _DAYS * 86_400.0, verdicts.c.family.is_not(None))
            .where(cases.c.state == CaseState.CLOSED.value, cases.c.gold_of.is_(None), visible(tenants))
            .group_by(verdicts.c.family)
            .order_by(func.count().desc(), verdicts.c.family)
            .limit(_SHOWN)
        )
        with reading(self._engine) as connection:
            return tuple(connection.scalars(found))
