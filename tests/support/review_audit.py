"""What must be true after a drill, read from the database and from what was published."""

from __future__ import annotations

from bisect import bisect_left, insort
from collections import Counter, defaultdict, deque
from dataclasses import dataclass, field
from typing import Any

from sqlalchemy import select

from schemas.review import ActionKind
from schemas.topics import DECISION_TOPICS, Topic
from tests.support.review_drill import SETTINGS, Drill
from workers.console.domain.models import CaseState
from workers.console.domain.priority import latest_overtaker
from workers.console.domain.tables import actions, cases, verdicts
from workers.web.database import reading

AT_ONCE_S = 60.0
"""How far the drill's clock may move during one transaction."""


@dataclass
class Replay:
    """Every claim again, in the order of the transactions: was it the first case that the reviewer could have?"""

    rows: dict[str, Any]
    stored_at: dict[str, float]
    given: dict[str, list[tuple[str, str, float]]]
    """Leases as reviewers got them: who claims again what he holds gets it for longer, and no action says so."""
    waiting: list[tuple[float, str]] = field(default_factory=list)
    never: dict[str, set[str]] = field(default_factory=lambda: defaultdict(set))
    skipped: dict[tuple[str, str], float] = field(default_factory=dict)
    leases: dict[str, float] = field(default_factory=dict)

    def run(self, done: list[Any]) -> None:
        self.waiting = sorted((row.rank, case_id) for case_id, row in self.rows.items())
        for one in done:
            match ActionKind(one.kind):
                case ActionKind.CLAIMED:
                    self._claimed(one)
                case ActionKind.REVIEWED:
                    self.never[one.actor].add(one.case_id)
                    self._back(one.case_id)
                case ActionKind.CLOSED:
                    self.waiting.remove((self.rows[one.case_id].rank, one.case_id))
                case ActionKind.SKIPPED:
                    self.skipped[one.case_id, one.actor] = one.at + SETTINGS.skip_hold_s
                    self._back(one.case_id)
                case ActionKind.RELEASED:
                    self._back(one.case_id)
                case _:
                    pass

    def _back(self, case_id: str) -> None:
        self.leases.pop(case_id)
        insort(self.waiting, (self.rows[case_id].rank, case_id))

    def _claimed(self, claim: Any) -> None:
        for case_id in [case_id for case_id, until in self.leases.items() if until <= claim.at]:
            self._back(case_id)
        taken = self.rows[claim.case_id]
        for rank, case_id in self.waiting:
            if case_id == claim.case_id:
                break
            assert not self._offered(case_id, claim), f"{claim.case_id} was claimed before {case_id}, rank {rank}"
        bound = min((rank for rank, i in self.waiting if self._offered(i, claim)), default=taken.rank)
        assert taken.opened_at <= bound + SETTINGS.priority.ageing_s
        del self.waiting[bisect_left(self.waiting, (taken.rank, claim.case_id))]
        self.leases[claim.case_id] = self._until(claim)

    def _until(self, claim: Any) -> float:
        ends: dict[str, list[float]] = defaultdict(list)
        for reviewer, token, until in self.given[claim.case_id]:
            if reviewer == claim.actor:
                ends[token].append(until)
        return next(max(of) for of in ends.values() if abs(min(of) - claim.at - SETTINGS.lease_s) < 1e-3)

    def _offered(self, case_id: str, claim: Any) -> bool:
        return (
            self.stored_at[case_id] < claim.at
            and case_id not in self.never[claim.actor]
            and self.skipped.get((case_id, claim.actor), 0.0) <= claim.at
        )


def check(drill: Drill) -> dict[str, float]:
    """Raises AssertionError for whatever is wrong; returns the figures to report.

    Only SQLite numbers actions in the order of their transactions: there every claim is replayed.
    """
    with reading(drill.site.engine) as connection:
        rows = {row.case_id: row for row in connection.execute(select(cases))}
        done = list(connection.execute(select(actions).order_by(actions.c.action_id)))
        given = list(connection.execute(select(verdicts)))
    assert len(rows) == drill.cases
    assert {row.state for row in rows.values()} == {CaseState.CLOSED.value}
    closed = Counter(one.case_id for one in done if one.kind == ActionKind.CLOSED.value)
    assert closed == Counter(rows.keys())
    _check_published(drill, rows, given)
    if drill.site.engine.dialect.name == "sqlite":
        Replay(rows, drill.stored_at, drill.leases).run(done)
    ages = _check_bound(rows, [one for one in done if one.kind == ActionKind.CLAIMED.value])
    return {
        "cases": len(rows),
        "verdicts": len(given),
        "claims": sum(one.kind == ActionKind.CLAIMED.value for one in done),
        "expired": sum(one.kind == ActionKind.EXPIRED.value for one in done),
        "oldest_at_first_claim_s": max(ages),
        "ageing_s": SETTINGS.priority.ageing_s,
        "records": len(drill.site.kafka.records),
        "records_once": len(set(drill.site.kafka.ids())),
    }


def _check_bound(rows: dict[str, Any], claims: list[Any]) -> list[float]:
    """Nothing that was opened later than the formula allows was claimed before a case that waited; ages in seconds."""
    first: dict[str, float] = {}
    for claim in claims:
        first[claim.case_id] = min(claim.at, first.get(claim.case_id, claim.at))
    newest, before = float("-inf"), deque(sorted((at, case_id) for case_id, at in first.items()))
    for case_id, at in sorted(first.items(), key=lambda one: one[1]):
        while before[0][0] < at - AT_ONCE_S:  # what was claimed at the same time, nobody was overtaken by
            newest = max(newest, rows[before.popleft()[1]].opened_at)
        case = rows[case_id]
        assert newest <= latest_overtaker(case.opened_at, case.urgency, SETTINGS.priority), f"{case_id} was overtaken"
    return [at - rows[case_id].opened_at for case_id, at in first.items()]


def _check_published(drill: Drill, rows: dict[str, Any], given: list[Any]) -> None:
    kafka = drill.site.kafka
    values: dict[str, bytes] = {}
    for event_id, record in zip(kafka.ids(), kafka.records, strict=True):
        assert values.setdefault(event_id, record.value) == record.value, f"event {event_id} was told in two ways"
    assert drill.site.service.stats(None).unpublished == 0
    assert len(values) == len(drill.site.waiting())
    assert Counter(r["review_id"] for r in kafka.told(Topic.REVIEWS)) == Counter(v.review_id for v in given)
    updates: Counter[str] = Counter()
    closes: dict[str, str] = {}
    for outcome, topic in DECISION_TOPICS.items():
        for finding in kafka.told(topic):
            uid = finding["finding_info"]["uid"]
            if finding["activity_name"] == "Update":
                updates[uid] += 1
                continue
            assert uid not in closes, f"case {uid} was closed twice"
            closes[uid] = outcome.value
    assert updates == Counter(v.case_id for v in given)
    assert closes == {case_id: row.outcome for case_id, row in rows.items()}
