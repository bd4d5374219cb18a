"""Sessions of logged-in people. The browser holds a random token, the database its digest."""

from __future__ import annotations

import hashlib
import hmac
import secrets
from dataclasses import dataclass

from sqlalchemy import ColumnElement, Engine, and_, delete, insert, or_, select, update

from pipeline.streaming.clock import Clock
from workers.console.web.tables import HELD, SESSIONS
from workers.web.database import reading

_TOUCH_EVERY_S = 30.0
"""A session is marked as used at most so often: a write for each picture would be too many."""


@dataclass(frozen=True, slots=True)
class Session:
    """`id` is the digest of the token; `csrf` is what its forms must bring along."""

    id: str
    account: str
    csrf: str


class Sessions:
    """`lifetime_s` counts from the login, `idle_s` from the last request."""

    def __init__(self, engine: Engine, lifetime_s: float, idle_s: float, clock: Clock) -> None:
        self._engine = engine
        self._lifetime_s = lifetime_s
        self._idle_s = idle_s
        self._clock = clock

    def begin(self, account: str) -> str:
        """The token of a new session. Old ones of anybody are removed on the way."""
        token, now = secrets.token_urlsafe(32), self._clock.wall_s()
        with self._engine.begin() as connection:
            old = select(SESSIONS.c.token_sha256).where(self._is_over(now))
            connection.execute(delete(HELD).where(HELD.c.session.in_(old)))
            connection.execute(delete(SESSIONS).where(self._is_over(now)))
            row = {"token_sha256": _digest(token), "account": account, "created_at": now, "seen_at": now}
            connection.execute(insert(SESSIONS).values(**row))
        return token

    def find(self, token: str) -> Session | None:
        """The session of a token, marked as used; None: there is none, or it is over."""
        now = self._clock.wall_s()
        this = SESSIONS.c.token_sha256 == _digest(token)
        with reading(self._engine) as connection:
            row = connection.execute(select(SESSIONS).where(this, ~self._is_over(now))).one_or_none()
        if row is None:
            return None
        if now - row.seen_at > _TOUCH_EVERY_S:
            with self._engine.begin() as connection:
                connection.execute(update(SESSIONS).where(this).values(seen_at=now))
        return Session(row.token_sha256, row.account, csrf_of(token))

    def end(self, session: Session) -> None:
        """Log out."""
        with self._engine.begin() as connection:
            connection.execute(delete(HELD).where(HELD.c.session == session.id))
            connection.execute(delete(SESSIONS).where(SESSIONS.c.token_sha256 == session.id))

    def hold(self, session: Session, case_id: str, token: str) -> None:
        """Remember the token of a claim that this session made."""
        with self._engine.begin() as connection:
            connection.execute(delete(HELD).where(_held(session, case_id)))
            connection.execute(insert(HELD).values(session=session.id, case_id=case_id, token=token))

    def held(self, session: Session, case_id: str) -> str | None:
        """The token of this session's claim on a case; None: it made none. It may be stale."""
        with reading(self._engine) as connection:
            return connection.execute(select(HELD.c.token).where(_held(session, case_id))).scalar_one_or_none()

    def case_of(self, session: Session, token: str) -> str | None:
        """The case that this session claimed with a token; None: it is none of its own, or was dropped."""
        with reading(self._engine) as connection:
            found = select(HELD.c.case_id).where(HELD.c.session == session.id, HELD.c.token == token)
            return connection.execute(found).scalar_one_or_none()

    def drop(self, session: Session, case_id: str) -> None:
        """Forget it."""
        with self._engine.begin() as connection:
            connection.execute(delete(HELD).where(_held(session, case_id)))

    def _is_over(self, now: float) -> ColumnElement[bool]:
        return or_(SESSIONS.c.created_at < now - self._lifetime_s, SESSIONS.c.seen_at < now - self._idle_s)


def csrf_of(token: str) -> str:
    """What a form of this session must bring: nobody without the token can make it."""
    return hmac.new(token.encode(), b"mediasieve console form", hashlib.sha256).hexdigest()


def _digest(token: str) -> str:
    return hashlib.sha256(token.encode()).hexdigest()


def _held(session: Session, case_id: str) -> ColumnElement[bool]:
    return and_(HELD.c.session == session.id, HELD.c.case_id == case_id)
