"""Slows down who guesses passwords: by account and by address, the wait doubles with each failure."""

from __future__ import annotations

from sqlalchemy import Connection, Engine, delete, insert, select, update
from sqlalchemy.exc import IntegrityError

from pipeline.streaming.clock import Clock
from workers.console.web.tables import FAILURES

_FREE = {"account": 5, "address": 20}
"""Failures before the first wait. An address may be that of a whole office."""

_LONGEST_S = 300.0
"""Nobody can lock another one's account for longer than this after the last attempt."""

_FORGOTTEN_S = 3600.0
_TRIES = 5


class LoginLimit:
    """In the database, so that a restart forgets nothing and several processes count together."""

    def __init__(self, engine: Engine, clock: Clock) -> None:
        self._engine = engine
        self._clock = clock

    def attempt(self, account: str, address: str) -> float:
        """How long until an attempt is heard; 0: now, and it is counted as a failure until `succeeded` is told.

        Counted before the password is checked: else as many guesses as there are threads would be heard at once.
        """
        for _ in range(_TRIES):
            try:
                with self._engine.begin() as connection:
                    return _attempt(connection, _names(account, address), self._clock.wall_s())
            except IntegrityError:  # another process counted the first attempt of this name between our two steps
                continue
        return 1.0

    def succeeded(self, account: str, address: str) -> None:
        """A right password clears the account. The address is only given this attempt back.

        Else one's own account would wash it clean.
        """
        this, place = _names(account, address)
        with self._engine.begin() as connection:
            connection.execute(delete(FAILURES).where(FAILURES.c.who == this))
            back = FAILURES.c["count"] - 1
            connection.execute(update(FAILURES).where(FAILURES.c.who == place, back >= 0).values(count=back))


def _attempt(connection: Connection, names: tuple[str, str], now: float) -> float:
    connection.execute(delete(FAILURES).where(FAILURES.c.last_at < now - _FORGOTTEN_S))
    columns = FAILURES.c
    known = select(columns.who, columns["count"], columns.last_at).where(columns.who.in_(names))
    rows = connection.execute(known.order_by(columns.who).with_for_update()).mappings().all()
    wait_s = max((_left(row["who"], row["count"], row["last_at"], now) for row in rows), default=0.0)
    if wait_s == 0.0:
        for who in names:
            _count(connection, who, now)
    return wait_s


def _names(account: str, address: str) -> tuple[str, str]:
    return f"account:{account[:128]}", f"address:{address[:128]}"


def _count(connection: Connection, who: str, now: float) -> None:
    changed = connection.execute(
        update(FAILURES).where(FAILURES.c.who == who).values(count=FAILURES.c["count"] + 1, last_at=now)
    )
    if changed.rowcount == 0:
        connection.execute(insert(FAILURES).values(who=who, count=1, last_at=now))


def _left(who: str, count: int, last_at: float, now: float) -> float:
    over = count - _FREE[who.partition(":")[0]]
    if over < 0:
        return 0.0
    return max(0.0, last_at + min(2.0 ** min(over, 16), _LONGEST_S) - now)
