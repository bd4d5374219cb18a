"""Decisions become cases: held media waits for people, passes and blocks can be found and appealed.

Decisions are delivered at least once and in any order; storing one again changes nothing. Of several decisions under
one uid the strictest counts: block, escalate, pass.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from sqlalchemy import Engine, insert, select, update
from sqlalchemy.exc import IntegrityError

from pipeline.streaming.clock import Clock
from schemas.decision import Decision, Outcome, Risk
from schemas.media import StageScore
from schemas.types import StageName
from schemas.wire import encode
from workers.console.domain.models import CaseState
from workers.console.domain.priority import rank, urgency_of
from workers.console.domain.settings import ReviewSettings
from workers.console.domain.tables import cases
from workers.console.domain.turn import Case, Turn, storable, turn

SCORE_BINS = 20

_STRICTNESS = {Outcome.PASS: 0, Outcome.ESCALATE: 1, Outcome.BLOCK: 2}
_CHUNK = 500
_TRIES = 5


@dataclass(frozen=True, slots=True)
class Decided:
    """A decision as it came from Kafka, with the trace of its record."""

    decision: Decision
    traceparent: str


class Intake:
    """Stores decisions; several may run on one database."""

    def __init__(self, engine: Engine, clock: Clock, settings: ReviewSettings) -> None:
        """The tables exist, see `open_tables`."""
        self._engine = engine
        self._clock = clock
        self._settings = settings

    def store(self, decided: Sequence[Decided]) -> int:
        """All of them, in transactions of at most 500; returns how many were new."""
        found = list(_strictest(one for one in decided if self._kept(one.decision)).values())
        return sum(self._store(found[i : i + _CHUNK]) for i in range(0, len(found), _CHUNK))

    def _kept(self, decision: Decision) -> bool:
        return self._settings.keep_released or decision.risk is not Risk.RELEASED

    def _store(self, chunk: Sequence[Decided]) -> int:
        for attempt in range(_TRIES):
            try:
                with turn(self._engine, self._clock, self._settings) as now:
                    return _write(now, chunk)
            except IntegrityError:  # another process stored one of them after we looked: now it is seen
                if attempt + 1 == _TRIES:
                    raise
        raise AssertionError("the last attempt returns or raises")


def case_values(decision: Decision, traceparent: str, now: float, settings: ReviewSettings) -> dict[str, Any]:
    """The row of a new case, open when the decision holds the media."""
    admission, scores = decision.admission, {s.stage: s for s in decision.scores}
    decided_at = decision.decided_at.timestamp()
    score = decision.final_score
    return {
        "case_id": str(decision.decision_uid),
        "decision_uid": str(decision.decision_uid),
        "tenant": admission.tenant,
        "media_id": admission.media_id,
        "source": admission.source,
        "uri": admission.uri,
        "content_sha256": decision.facts.sha256 if decision.facts else None,
        "state": (CaseState.OPEN if decision.outcome is Outcome.ESCALATE else CaseState.MACHINE).value,
        "outcome": decision.outcome.value,
        "machine_outcome": decision.outcome.value,
        "risk": decision.risk.value if decision.risk else None,
        "stage_exited": decision.stage_exited.value,
        "score": score,
        "score_bin": None if score is None else min(SCORE_BINS - 1, int(score * SCORE_BINS)),
        "classifier_score": _score(scores.get(StageName.CLASSIFIER)),
        "spectral_score": _score(scores.get(StageName.SPECTRAL)),
        "mllm_score": _score(scores.get(StageName.MLLM)),
        "reason": decision.reasons[0].code.value,
        "detail": storable(decision.reasons[0].detail),
        "words": _words(decision),
        "decided_at": decided_at,
        "decided_hour": int(decided_at // 3600),
        "round": 0,
        "sequence": decision.sequence,
        "votes": 0,
        "skips": 0,
        "appealed": False,
        "traceparent": traceparent,
        "decision": encode(decision),
        **opened(decision, min(decided_at, now), settings, appealed=False),
    }


def opened(decision: Decision, at: float, settings: ReviewSettings, *, appealed: bool) -> dict[str, float]:
    """Since when a case waits, and what that makes of its place in the queue."""
    urgency = urgency_of(decision, settings.priority, appealed=appealed)
    return {"opened_at": at, "urgency": urgency, "rank": rank(at, urgency, settings.priority)}


def _strictest(decided: Iterable[Decided]) -> dict[str, Decided]:
    found: dict[str, Decided] = {}
    for one in decided:
        uid = str(one.decision.decision_uid)
        if uid not in found or _stricter(one.decision.outcome, found[uid].decision.outcome):
            found[uid] = one
    return found


def _write(now: Turn, chunk: Sequence[Decided]) -> int:
    uids = [str(one.decision.decision_uid) for one in chunk]
    known = {
        row.case_id: row
        for row in now.connection.execute(select(cases).where(cases.c.case_id.in_(uids)).with_for_update())
    }
    new = [
        case_values(one.decision, one.traceparent, now.now, now.settings)
        for one in chunk
        if str(one.decision.decision_uid) not in known
    ]
    if new:
        now.connection.execute(insert(cases), new)
    for one in chunk:
        if (case := known.get(str(one.decision.decision_uid))) is not None:
            _again(now, case, one)
    return len(new)


def _again(now: Turn, case: Case, one: Decided) -> None:
    """A second decision under one uid. What people have closed, or opened again, stays as it is."""
    decision = one.decision
    untouched = case.state != CaseState.CLOSED and not case.appealed
    if not (untouched and _stricter(decision.outcome, Outcome(case.machine_outcome))):
        return
    values = case_values(decision, one.traceparent, now.now, now.settings)
    for kept in ("votes", "skips", "round"):
        del values[kept]
    values["sequence"] = max(case.sequence, decision.sequence)
    if case.state == CaseState.OPEN:  # people look at it already: they go on
        values["state"] = case.state
    now.connection.execute(update(cases).where(cases.c.case_id == case.case_id).values(values))


def _stricter(one: Outcome, other: Outcome) -> bool:
    return _STRICTNESS[one] > _STRICTNESS[other]


def _score(score: StageScore | None) -> float | None:
    return None if score is None else score.score


def _words(decision: Decision) -> str:
    """What a search looks through."""
    admission = decision.admission
    labels = (f"{name}={value}" for name, value in sorted(admission.labels.items()))
    return storable("\n".join((admission.media_id, admission.source or "", admission.uri, *labels)).casefold())
