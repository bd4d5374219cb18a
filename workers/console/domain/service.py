"""The review queue as the pages and the command line see it: one method an action, each one database transaction."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from datetime import datetime
from uuid import UUID

from sqlalchemy import Engine

from pipeline.streaming.clock import Clock
from schemas.review import Label
from workers.console.domain.appeals import appeal
from workers.console.domain.claims import held, named_case, next_case, release, renew, skip
from workers.console.domain.goldset import add_gold, gold_answers, gold_items, next_gold
from workers.console.domain.lists import Lists
from workers.console.domain.models import (
    Backlog,
    CasePage,
    CaseRow,
    CaseView,
    Claim,
    FlowStats,
    GoldAnswers,
    GoldItem,
    QueueStats,
    Tenants,
    Verdict,
)
from workers.console.domain.rulings import Answer, decide
from workers.console.domain.settings import ReviewSettings
from workers.console.domain.stats import backlog, flow_stats, queue_stats
from workers.console.domain.tables import open_tables
from workers.console.domain.turn import Turn, checked_actor, checked_reason, checked_text, storable, turn
from workers.web.database import reading

_CHANCE = random.SystemRandom().random


class ReviewService:
    """Safe to share between threads; several processes may work on one database.

    A method that is given `tenants` sees nothing of others: what is not theirs does not exist (NoSuchCase).
    """

    def __init__(
        self,
        engine: Engine,
        clock: Clock,
        settings: ReviewSettings | None = None,
        draw: Callable[[], float] = _CHANCE,
    ) -> None:
        """Makes missing tables. `draw` gives numbers in [0, 1): when a gold item is due."""
        self._engine = engine
        self._clock = clock
        self._settings = settings or ReviewSettings()
        self._draw = draw
        open_tables(engine)

    def claim(self, reviewer: str, tenants: Tenants, case_id: str | None = None) -> Claim | None:
        """The case of highest priority, or the one named; the case that the reviewer holds already is given again.

        None: nothing is left for this reviewer.

        Raises:
            NoSuchCase: of that id, in these tenants.
            NotYours: another reviewer holds the named case, or this one has answered or appealed it.
            AlreadyDecided: the named case is not open.
        """
        checked_actor(reviewer)
        with self._turn() as now:
            now.alone(reviewer)
            if case_id is not None:
                return named_case(now, reviewer, tenants, storable(case_id))
            found = held(now, reviewer, tenants)
            if found is None and self._draw() < self._settings.gold_share:
                found = next_gold(now, reviewer, tenants)
            return found or next_case(now, reviewer, tenants)

    def renew(self, token: str, *, reviewer: str) -> Claim:
        """The lease from now on again. Raises StaleLease, NotYours, AlreadyDecided."""
        with self._turn() as now:
            return renew(now, storable(token), reviewer)

    def decide(self, token: str, label: Label, rationale: str, *, reviewer: str, family: str | None = None) -> Verdict:
        """One reviewer's answer; with enough of them that agree the case is closed.

        `family` names the generator, where the reviewer can.

        Raises:
            StaleLease, NotYours, AlreadyDecided: nothing was changed.
            ValueError: rationale (at most 1,024 characters) or family is malformed; the text names which.
        """
        told = checked_text("rationale", rationale.strip())
        answer = Answer(storable(token), label, told, checked_actor(reviewer), family or None)
        with self._turn() as now:
            return decide(now, answer)

    def skip(self, token: str, reason: str, *, reviewer: str) -> None:
        """Give the case to somebody else. Raises StaleLease, NotYours, AlreadyDecided; ValueError without a reason."""
        told = checked_reason(reason)
        with self._turn() as now:
            skip(now, storable(token), told, reviewer)

    def release(self, token: str, *, reviewer: str) -> None:
        """Give the case back, with nothing said of it. Raises StaleLease, NotYours, AlreadyDecided."""
        with self._turn() as now:
            release(now, storable(token), reviewer)

    def appeal(self, decision_uid: UUID, tenants: Tenants, actor: str, reason: str) -> str:
        """Open a pass or block again, the machine's or people's; returns the case's id.

        Who appeals, and who decided before, does not decide the appeal.

        Raises:
            NoSuchCase: no such decision in these tenants, or it is older than the history that is kept.
            NotAppealable: its case is open.
            ValueError: no reason, or more than 1,024 characters.
        """
        told = checked_reason(reason)
        checked_actor(actor)
        with self._turn() as now:
            return appeal(now, decision_uid, tenants, actor, told)

    def queue(self, tenants: Tenants, page: int = 1) -> CasePage:
        """Open cases, those that come first on top, leased ones among them."""
        with self._lists() as lists:
            return lists.queue(tenants, page)

    def recent(self, tenants: Tenants, page: int = 1) -> CasePage:
        """Cases that people closed, the newest on top."""
        with self._lists() as lists:
            return lists.recent(tenants, page)

    def search(self, tenants: Tenants, text: str, page: int = 1) -> CasePage:
        """Cases of any state by exact case id, decision uid or sha256, or by words in media id, source, URI and labels.

        The newest decision on top; every word must occur, in any case of letters.
        """
        with self._lists() as lists:
            return lists.search(tenants, storable(text), page)

    def case(self, case_id: str, tenants: Tenants) -> CaseView:
        """One case. Raises NoSuchCase."""
        with self._lists() as lists:
            return lists.case(storable(case_id), tenants)

    def similar(self, case_id: str, tenants: Tenants, limit: int = 6) -> tuple[CaseRow, ...]:
        """Closed cases: those of the same bytes first, then by the distance of the tiers' scores."""
        with self._lists() as lists:
            return lists.similar(storable(case_id), tenants, limit)

    def backlog(self) -> Backlog:
        """Of all tenants."""
        with reading(self._engine) as connection:
            return backlog(connection, self._clock.wall_s())

    def stats(self, tenants: Tenants) -> QueueStats:
        """The queue and its reviewers."""
        with reading(self._engine) as connection:
            return queue_stats(connection, self._clock.wall_s(), tenants)

    def flow(self, tenants: Tenants, since: datetime) -> FlowStats:
        """What the machine decided since then, as far as the history is kept."""
        with reading(self._engine) as connection:
            return flow_stats(connection, since, tenants)

    def add_gold(self, decision_uid: UUID, label: Label, actor: str) -> None:
        """Let reviewers be measured with this case, whose label is certain; their answers are never decisions.

        Adding one again replaces its label, and what was answered before is measured by the new one.

        Raises:
            NoSuchCase: no such decision.
            NotAppealable: its case is open.
        """
        checked_actor(actor)
        with self._turn() as now:
            add_gold(now, decision_uid, label, actor)

    def gold_items(self, tenants: Tenants) -> tuple[GoldItem, ...]:
        """The oldest first."""
        with reading(self._engine) as connection:
            return gold_items(connection, tenants)

    def gold_answers(self, tenants: Tenants) -> tuple[GoldAnswers, ...]:
        """Every reviewer's answers to gold items, by reviewer, truth and answer."""
        with reading(self._engine) as connection:
            return gold_answers(connection, tenants)

    def _turn(self) -> AbstractContextManager[Turn]:
        return turn(self._engine, self._clock, self._settings)

    @contextmanager
    def _lists(self) -> Iterator[Lists]:
        with reading(self._engine) as connection:
            yield Lists(connection, self._clock.wall_s(), self._settings)
