"""Local accounts of the review console."""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from sqlalchemy import Engine, delete, insert, select, update
from sqlalchemy.exc import IntegrityError

from pipeline.streaming.clock import Clock
from workers.console.web.passwords import hash_password, spend_the_time, verify_password
from workers.console.web.tables import ACCOUNTS, HELD, SESSIONS
from workers.web.database import reading
from workers.web.principal import Principal, Role

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._@-]{0,127}")
"""What a verdict can name as its reviewer. No colon: `key:` and `oidc:` begin the names of other callers."""

_TENANT = re.compile(r"[A-Za-z0-9][A-Za-z0-9._:@-]{0,127}")
_LETTERS = "at most 128 letters, digits and . _ @ -, a letter or digit first"


class AccountRefused(Exception):
    """An account cannot be made or changed as asked; the text says why and what to do."""


@dataclass(frozen=True, slots=True)
class Account:
    """For lists. `tenants` None: all of them."""

    name: str
    tenants: frozenset[str] | None
    roles: frozenset[Role]
    is_disabled: bool


class Accounts:
    """In the console's database."""

    def __init__(self, engine: Engine, clock: Clock) -> None:
        self._engine = engine
        self._clock = clock

    def add(self, name: str, password: str, tenants: Iterable[str] | None, roles: Iterable[Role]) -> None:
        """A new account.

        Raises:
            AccountRefused: the name is taken, or name, tenant or roles cannot be used.
            PasswordRefused: see `hash_password`.
        """
        if not _NAME.fullmatch(name):
            raise AccountRefused(f"name {name!r}: {_LETTERS}")
        access = _access(name, tenants, roles)
        row = {"name": name, "password": hash_password(password), **access}
        try:
            with self._engine.begin() as connection:
                connection.execute(insert(ACCOUNTS).values(**row, is_disabled=False, created_at=self._clock.wall_s()))
        except IntegrityError as error:
            raise AccountRefused(
                f"account {name!r} exists; `mediasieve console user password` changes its password"
            ) from error

    def set_password(self, name: str, password: str) -> None:
        """Change it and end the account's sessions. Raises as `add`."""
        self._change(name, {"password": hash_password(password)})

    def set_access(self, name: str, tenants: Iterable[str] | None, roles: Iterable[Role]) -> None:
        """Other tenants and roles instead of those it has; its sessions end. Raises AccountRefused."""
        self._change(name, _access(name, tenants, roles))

    def disable(self, name: str) -> None:
        """No login from now on, and no session. Raises AccountRefused for an unknown name."""
        self._change(name, {"is_disabled": True})

    def enable(self, name: str) -> None:
        """Take `disable` back. Raises AccountRefused for an unknown name."""
        self._change(name, {"is_disabled": False})

    def all(self) -> tuple[Account, ...]:
        """By name."""
        with reading(self._engine) as connection:
            rows = connection.execute(select(ACCOUNTS).order_by(ACCOUNTS.c.name)).all()
        return tuple(_account(row) for row in rows)

    def check(self, name: str, password: str) -> Principal | None:
        """Who logs in with this password; None: nobody. Takes as long for a name that does not exist."""
        row = self._row(name)
        if row is None:
            spend_the_time(password)
            return None
        is_right = verify_password(password, row.password)
        return _principal(row) if is_right and not row.is_disabled else None

    def principal(self, name: str) -> Principal | None:
        """What the account may do now; None: it is gone or disabled."""
        row = self._row(name)
        return None if row is None or row.is_disabled else _principal(row)

    def _row(self, name: str) -> Any | None:
        with reading(self._engine) as connection:
            return connection.execute(select(ACCOUNTS).where(ACCOUNTS.c.name == name)).one_or_none()

    def _change(self, name: str, values: dict[str, Any]) -> None:
        sessions = select(SESSIONS.c.token_sha256).where(SESSIONS.c.account == name)
        with self._engine.begin() as connection:
            changed = connection.execute(update(ACCOUNTS).where(ACCOUNTS.c.name == name).values(**values))
            if changed.rowcount == 0:
                raise AccountRefused(f"there is no account {name!r}; `mediasieve console user list` shows all")
            connection.execute(delete(HELD).where(HELD.c.session.in_(sessions)))
            connection.execute(delete(SESSIONS).where(SESSIONS.c.account == name))


def _access(name: str, tenants: Iterable[str] | None, roles: Iterable[Role]) -> dict[str, Any]:
    kept = None if tenants is None else sorted(set(tenants))
    given = sorted(set(roles))
    if wrong := next((tenant for tenant in kept or () if not _TENANT.fullmatch(tenant)), None):
        raise AccountRefused(f"tenant {wrong!r}: {_LETTERS}, or a colon")
    if not given or kept == []:
        raise AccountRefused(f"account {name!r}: give at least one role, and a tenant or all of them")
    if not {Role.READ, Role.REVIEW, Role.ADMIN} & set(given):
        raise AccountRefused(f"account {name!r}: no page is for the role {given[0]} alone; add read, review or admin")
    return {"tenants": kept, "roles": [role.value for role in given]}


def _account(row: Any) -> Account:
    return Account(row.name, _tenants(row), _roles(row), row.is_disabled)


def _principal(row: Any) -> Principal:
    return Principal(name=row.name, tenants=_tenants(row), roles=_roles(row))


def _tenants(row: Any) -> frozenset[str] | None:
    return None if row.tenants is None else frozenset(row.tenants)


def _roles(row: Any) -> frozenset[Role]:
    return frozenset(Role(role) for role in row.roles)
