"""Who works on what: leases with tokens.

A lease is three columns of its case. It is taken, renewed and ended by one UPDATE that names what it expects, so that
of two processes one succeeds, whatever their clocks say.
"""

from __future__ import annotations

import secrets
from typing import Any
from uuid import UUID, uuid5

from sqlalchemy import ColumnElement, Select, and_, delete, exists, insert, or_, select, update

from schemas.review import ActionKind
from workers.console.domain.errors import AlreadyDecided, NoSuchCase, NotYours, StaleLease
from workers.console.domain.models import CaseState, Claim, Tenants
from workers.console.domain.tables import cases, recusals, verdicts
from workers.console.domain.turn import Case, Turn, moment, over, visible

_OPEN = cases.c.state == CaseState.OPEN.value
_NO_LEASE: dict[str, Any] = {"lease_token": None, "lease_reviewer": None, "lease_until": None}


def held(turn: Turn, reviewer: str, tenants: Tenants) -> Claim | None:
    """What the reviewer works on already, renewed: after a crash of the browser it is at hand again."""
    found = turn.connection.execute(
        select(cases)
        .where(_OPEN, cases.c.lease_reviewer == reviewer, cases.c.lease_until > turn.now, visible(tenants))
        .order_by(cases.c.rank, cases.c.case_id)
        .limit(1)
        .with_for_update()
    ).first()
    return None if found is None else _extend(turn, found)


def next_case(turn: Turn, reviewer: str, tenants: Tenants) -> Claim | None:
    """The first free case that the reviewer may decide."""
    statement = candidates(turn.now, reviewer, tenants, turn.settings.lease_s)
    found = turn.connection.execute(statement).first()
    return None if found is None else take(turn, found, reviewer)


def candidates(now: float, reviewer: str, tenants: Tenants, lease_s: float) -> Select[Any]:
    """The statement that finds it. Postgres passes over rows that another claim has locked; SQLite has none.

    A gold item that the reviewer was given and did not answer comes again, as any other case does.
    """
    theirs = or_(cases.c.gold_of.is_(None), cases.c.gold_for == reviewer)
    recused = exists().where(
        recusals.c.case_id == cases.c.case_id,
        recusals.c.reviewer == reviewer,
        or_(recusals.c.until.is_(None), recusals.c.until > now),
    )
    return (
        select(cases)
        .where(_OPEN, theirs, _free(now, lease_s), visible(tenants), ~recused)
        .order_by(cases.c.rank, cases.c.case_id)
        .limit(1)
        .with_for_update(skip_locked=True, of=cases)
    )


def named_case(turn: Turn, reviewer: str, tenants: Tenants, case_id: str) -> Claim:
    """This case, also one that the reviewer skipped. Raises NoSuchCase, NotYours, AlreadyDecided."""
    found = find(turn, case_id, tenants)
    if found.gold_of is not None and found.gold_for != reviewer:
        raise NoSuchCase(f"no case {case_id}")
    if found.state != CaseState.OPEN:
        raise AlreadyDecided(f"case {case_id} is not open; appeal against its decision to open it again")
    if _recused_for_ever(turn, case_id, reviewer):
        raise NotYours("you have answered or appealed this case; another reviewer decides it")
    free = select(_free(turn.now, turn.settings.lease_s)).where(cases.c.case_id == case_id)
    if not turn.connection.scalar(free):
        if found.lease_reviewer != reviewer:
            raise NotYours(f"{found.lease_reviewer} works on it until {moment(found.lease_until):%H:%M:%S} UTC")
        return _extend(turn, found)
    return take(turn, found, reviewer)


def take(turn: Turn, case: Case, reviewer: str) -> Claim:
    """A free case, for this reviewer, with a new token. Raises NotYours: another process was faster."""
    token, until = secrets.token_urlsafe(24), turn.now + turn.settings.lease_s
    done = turn.connection.execute(
        update(cases)
        .where(cases.c.case_id == case.case_id, _OPEN, _free(turn.now, turn.settings.lease_s))
        .values(lease_token=token, lease_reviewer=reviewer, lease_until=until)
    )
    if done.rowcount != 1:
        raise NotYours(f"case {case.case_id} was taken by somebody else just now; ask for the next one")
    if case.lease_reviewer is not None:
        turn.record(case, ActionKind.EXPIRED, case.lease_reviewer)
    turn.record(case, ActionKind.CLAIMED, reviewer)
    return Claim(case_id=case.case_id, token=token, reviewer=reviewer, until=moment(until))


def renew(turn: Turn, token: str, reviewer: str) -> Claim:
    """See ReviewService."""
    until = turn.now + turn.settings.lease_s
    done = turn.connection.execute(
        update(cases).where(_holds(turn, token, reviewer)).values(lease_until=until).returning(cases.c.case_id)
    ).first()
    if done is None:
        raise _why_not(turn, token, reviewer)
    return Claim(case_id=done.case_id, token=token, reviewer=reviewer, until=moment(until))


def surrender(turn: Turn, token: str, reviewer: str) -> Case:
    """End the lease and lock the case until the transaction ends. Raises StaleLease, NotYours, AlreadyDecided."""
    done = turn.connection.execute(
        update(cases).where(_holds(turn, token, reviewer)).values(**_NO_LEASE).returning(*cases.c)
    ).first()
    if done is None:
        raise _why_not(turn, token, reviewer)
    return done


def skip(turn: Turn, token: str, reason: str, reviewer: str) -> None:
    """See ReviewService."""
    case = surrender(turn, token, reviewer)
    turn.connection.execute(update(cases).where(cases.c.case_id == case.case_id).values(skips=case.skips + 1))
    recuse(turn, case.case_id, reviewer, turn.now + turn.settings.skip_hold_s)
    turn.record(case, ActionKind.SKIPPED, reviewer, reason)


def release(turn: Turn, token: str, reviewer: str) -> None:
    """See ReviewService."""
    turn.record(surrender(turn, token, reviewer), ActionKind.RELEASED, reviewer)


def recuse(turn: Turn, case_id: str, reviewer: str, until: float | None) -> None:
    """Do not offer the case to the reviewer until then; None: never again."""
    key = and_(recusals.c.case_id == case_id, recusals.c.reviewer == reviewer)
    turn.connection.execute(delete(recusals).where(key))
    turn.connection.execute(insert(recusals).values(case_id=case_id, reviewer=reviewer, until=until))


def find(turn: Turn, case_id: str, tenants: Tenants) -> Case:
    """The case, locked. Raises NoSuchCase."""
    found = turn.connection.execute(
        select(cases).where(cases.c.case_id == case_id, visible(tenants)).with_for_update()
    ).first()
    if found is None:
        raise NoSuchCase(f"no case {case_id}")
    return found


def gold_case_id(decision_uid: str, reviewer: str) -> str:
    """The case as which this reviewer is given that gold item."""
    return str(uuid5(UUID(decision_uid), f"gold/{reviewer}"))


def _extend(turn: Turn, case: Case) -> Claim:
    return renew(turn, case.lease_token, case.lease_reviewer)


def _free(now: float, lease_s: float) -> ColumnElement[bool]:
    return or_(cases.c.lease_until.is_(None), over(cases.c.lease_until, now, lease_s))


def _holds(turn: Turn, token: str, reviewer: str) -> ColumnElement[bool]:
    return and_(cases.c.lease_token == token, cases.c.lease_reviewer == reviewer, cases.c.lease_until > turn.now, _OPEN)


def _recused_for_ever(turn: Turn, case_id: str, reviewer: str) -> bool:
    key = and_(recusals.c.case_id == case_id, recusals.c.reviewer == reviewer, recusals.c.until.is_(None))
    return turn.connection.execute(select(recusals.c.case_id).where(key)).first() is not None


def _why_not(turn: Turn, token: str, reviewer: str) -> Exception:
    answered = turn.connection.execute(
        select(verdicts.c.label, verdicts.c.case_id).where(verdicts.c.token == token, verdicts.c.reviewer == reviewer)
    ).first()
    if answered is not None:
        return AlreadyDecided(f"you have answered case {answered.case_id} already: {answered.label}")
    case = turn.connection.execute(select(cases).where(cases.c.lease_token == token)).first()
    if case is not None and case.lease_reviewer != reviewer:
        return NotYours("the claim is another reviewer's")
    return StaleLease("the claim ran out or was given back; claim the case again")
