"""One database transaction at one moment: what every action on the queue works in."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, TypeAlias
from uuid import UUID

from pydantic import TypeAdapter, ValidationError
from sqlalchemy import Column, ColumnElement, Connection, Engine, Row, func, insert, or_, select, true

from pipeline.streaming.clock import Clock
from schemas.decision import Decision
from schemas.review import ActionKind, Label
from schemas.types import Identifier
from schemas.wire import decode, describe
from workers.console.domain.events import Event, action_event
from workers.console.domain.models import Tenants
from workers.console.domain.outbox import post
from workers.console.domain.settings import ReviewSettings
from workers.console.domain.tables import actions, cases

Case: TypeAlias = Row[Any]
"""A row of the table of cases."""

NUL = "\0"
_ACTORS = 0x6D73  # a seed, so that these locks are no other program's

_IDENTIFIER: TypeAdapter[str] = TypeAdapter(Identifier)


@dataclass(frozen=True, slots=True)
class Turn:
    """`now` in seconds since the epoch: one moment for everything that the transaction writes."""

    connection: Connection
    now: float
    settings: ReviewSettings

    def record(self, case: Case, kind: ActionKind, actor: str, detail: str = "", label: Label | None = None) -> None:
        """Write down what was done, here and for the audit log."""
        self.connection.execute(
            insert(actions).values(
                case_id=case.case_id,
                round=case.round,
                kind=kind.value,
                actor=actor,
                at=self.now,
                detail=detail,
                label=label.value if label else None,
            )
        )
        self.post(
            case,
            action_event(
                case_id=UUID(case.case_id),
                decision=decision_of(case),
                kind=kind,
                actor=actor,
                at=moment(self.now),
                rest={"round": case.round, "detail": detail, "label": label, "gold": case.gold_of is not None},
            ),
        )

    def alone(self, actor: str) -> None:
        """One transaction of this actor at a time goes on from here. On SQLite there is but one at all."""
        if self.connection.dialect.name == "postgresql":
            self.connection.execute(select(func.pg_advisory_xact_lock(func.hashtextextended(actor, _ACTORS))))

    def post(self, case: Case, event: Event) -> None:
        """Have the event published once this transaction is committed."""
        post(self.connection, event, f"{case.tenant}/{case.media_id}", case.traceparent, self.now)


@contextmanager
def turn(engine: Engine, clock: Clock, settings: ReviewSettings) -> Iterator[Turn]:
    """A write transaction: all of it or nothing.

    SQLite runs one at a time; Postgres locks the rows that are changed, and so every action first changes its case.
    """
    with engine.begin() as connection:
        yield Turn(connection, clock.wall_s(), settings)


def visible(tenants: Tenants) -> ColumnElement[bool]:
    """The condition that a case is one of these tenants'."""
    return true() if tenants is None else cases.c.tenant.in_(sorted(tenants))


def over(until: Column[Any], now: float, length_s: float) -> ColumnElement[bool]:
    """The condition that a lease of that length, or another, has ended.

    One that ends later than two lengths from now was taken before the clock was set back. Two, not one, because the
    clocks of several consoles differ a little.
    """
    return or_(until <= now, until > now + 2 * length_s)


def decision_of(case: Case) -> Decision:
    """The decision that the case is about, as the machine published it."""
    return decode(Decision, case.decision)


def moment(seconds: float) -> datetime:
    """A time of the database as a date in UTC."""
    return datetime.fromtimestamp(seconds, UTC)


def checked_actor(name: str) -> str:
    """Names go into records.

    Raises:
        ValueError: the name has characters that records do not take.
    """
    try:
        return _IDENTIFIER.validate_python(name)
    except ValidationError as error:
        raise ValueError(f"reviewer {name!r}: {describe(error)}") from error


def checked_reason(reason: str) -> str:
    """What people must say before something is done.

    Raises:
        ValueError: nothing, or more than 1,024 characters.
    """
    told = reason.strip()
    if not told:
        raise ValueError("reason: empty; say why in a few words")
    return checked_text("reason", told)


def checked_text(field: str, text: str) -> str:
    """Raises ValueError for more characters than a record takes, and for NUL."""
    if len(text) > 1024:
        raise ValueError(f"{field}: {len(text)} characters; 1,024 at most")
    if NUL in text:
        raise ValueError(f"{field}: has a NUL character; leave it out")
    return text


def storable(text: str) -> str:
    """What a producer or a model wrote, without the one character that PostgreSQL does not take."""
    return text.replace(NUL, "\N{REPLACEMENT CHARACTER}")
