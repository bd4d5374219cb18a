"""Which submissions there are, so that a repetition is known as one, also after a restart.

A submission is registered before it is sent: from then on its media id stands for its content. A request that waits
for the broker holds a lease on it; when the process dies meanwhile the lease runs out, and whoever repeats the request
sends it again under the same media id.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from enum import Enum, auto

from sqlalchemy import ColumnElement, Connection, Engine, and_, func, or_, select, update

from pipeline.streaming.clock import Clock
from workers.gateway.tables import REQUESTS, SUBMISSIONS, insert_new, lock_in_order
from workers.web.database import reading

Key = tuple[str, str]
"""Tenant and media id."""

_CHUNK = 300
"""Rows of one statement: SQLite takes 32,766 variables, PostgreSQL 65,535."""


class Claim(Enum):
    """What a request may do with a submission."""

    SEND = auto()
    """It is this request's: send it, then `accept` or `release` it."""
    REPEATED = auto()
    """The broker has it already: give the same answer."""
    BUSY = auto()
    """Another request is sending it now."""
    DIFFERENT = auto()
    """The media id stands for something else."""


@dataclass(frozen=True, slots=True)
class Submission:
    """What is to be registered."""

    tenant: str
    media_id: str
    fingerprint: str

    @property
    def key(self) -> Key:
        """See Key."""
        return self.tenant, self.media_id


@dataclass(frozen=True, slots=True)
class Registered:
    """A submission as the database has it. `busy_for_s`: what is left of another request's lease, at most."""

    claim: Claim
    submitted_at: datetime
    busy_for_s: float = 0.0


class Registry:
    """Thread-safe; every method is one transaction. Raises what SQLAlchemy does when the database is away."""

    def __init__(self, engine: Engine, clock: Clock, lease_s: float) -> None:
        """`lease_s`: longer than a request may wait for the broker."""
        self._engine = engine
        self._clock = clock
        self._lease_s = lease_s

    def same_request(self, caller: str, idempotency_key: str, fingerprint: str) -> bool:
        """True for a new key, and for one that was used for the same body."""
        row = {
            "caller": caller,
            "idempotency_key": idempotency_key,
            "fingerprint": fingerprint,
            "created_at": self._clock.wall_s(),
        }
        with self._engine.begin() as connection:
            connection.execute(insert_new(connection, REQUESTS).values(row))
            known = select(REQUESTS.c.fingerprint).where(
                REQUESTS.c.caller == caller, REQUESTS.c.idempotency_key == idempotency_key
            )
            return bool(connection.execute(known).scalar_one() == fingerprint)

    def claim(self, submissions: Sequence[Submission]) -> dict[Key, Registered]:
        """Register those that are new, and say of each what may be done; no key may occur twice."""
        now_s = self._clock.wall_s()
        found: dict[Key, Registered] = {}
        in_order = sorted(submissions, key=lambda s: s.key)  # see tables.py
        with self._engine.begin() as connection:
            chunks = [in_order[start : start + _CHUNK] for start in range(0, len(in_order), _CHUNK)]
            for chunk in chunks:
                lock_in_order(connection, _any([s.key for s in chunk]))
            for chunk in chunks:
                found |= self._claim(connection, chunk, now_s)
        return found

    def accept(self, keys: Sequence[Key]) -> None:
        """The broker has them."""
        self._set(keys, {"accepted_at": self._clock.wall_s()})

    def release(self, keys: Sequence[Key]) -> None:
        """They were not acknowledged: the next request may send them again."""
        self._set(keys, {"lease_until": 0.0})

    def oldest_open_s(self) -> float | None:
        """Age of the oldest submission that the broker has and nobody has decided."""
        oldest = select(func.min(SUBMISSIONS.c.accepted_at)).where(SUBMISSIONS.c.settled_at.is_(None))
        with reading(self._engine) as connection:
            since_s = connection.execute(oldest).scalar_one()
        return None if since_s is None else max(0.0, self._clock.wall_s() - since_s)

    def _claim(self, connection: Connection, some: Sequence[Submission], now_s: float) -> dict[Key, Registered]:
        new_lease = now_s + self._lease_s
        rows = [
            {
                "tenant": s.tenant,
                "media_id": s.media_id,
                "fingerprint": s.fingerprint,
                "submitted_at": now_s,
                "lease_until": new_lease,
            }
            for s in some
        ]
        added = insert_new(connection, SUBMISSIONS).values(rows).returning(SUBMISSIONS.c.tenant, SUBMISSIONS.c.media_id)
        mine = {(tenant, media_id) for tenant, media_id in connection.execute(added)}
        known = self._known(connection, [s.key for s in some])
        return {s.key: self._decide(connection, s, known[s.key], s.key in mine, now_s) for s in some}

    def _decide(
        self, connection: Connection, wanted: Submission, row: Mapping[str, object], mine: bool, now_s: float
    ) -> Registered:
        submitted_at = datetime.fromtimestamp(float(str(row["submitted_at"])), UTC)
        if mine:
            return Registered(Claim.SEND, submitted_at)
        if row["fingerprint"] != wanted.fingerprint:
            return Registered(Claim.DIFFERENT, submitted_at)
        if row["accepted_at"] is not None:
            return Registered(Claim.REPEATED, submitted_at)
        taken = (
            update(SUBMISSIONS)
            .where(_is(wanted.key), SUBMISSIONS.c.accepted_at.is_(None), SUBMISSIONS.c.lease_until <= now_s)
            .values(lease_until=now_s + self._lease_s)
        )
        won = connection.execute(taken).rowcount == 1
        if won:
            return Registered(Claim.SEND, submitted_at)
        return Registered(Claim.BUSY, submitted_at, max(0.0, float(str(row["lease_until"])) - now_s))

    def _known(self, connection: Connection, keys: Sequence[Key]) -> dict[Key, Mapping[str, object]]:
        rows = connection.execute(select(SUBMISSIONS).where(_any(keys))).mappings()
        return {(row["tenant"], row["media_id"]): dict(row) for row in rows}

    def _set(self, keys: Sequence[Key], values: Mapping[str, float]) -> None:
        if not keys:
            return
        in_order = sorted(keys)
        with self._engine.begin() as connection:
            for start in range(0, len(in_order), _CHUNK):
                some = and_(_any(in_order[start : start + _CHUNK]), SUBMISSIONS.c.accepted_at.is_(None))
                lock_in_order(connection, some)
                connection.execute(update(SUBMISSIONS).where(some).values(**values))


def _is(key: Key) -> ColumnElement[bool]:
    return and_(SUBMISSIONS.c.tenant == key[0], SUBMISSIONS.c.media_id == key[1])


def _any(keys: Sequence[Key]) -> ColumnElement[bool]:
    by_tenant: dict[str, list[str]] = {}
    for tenant, media_id in keys:
        by_tenant.setdefault(tenant, []).append(media_id)
    return or_(
        *(
            and_(SUBMISSIONS.c.tenant == tenant, SUBMISSIONS.c.media_id.in_(media_ids))
            for tenant, media_ids in by_tenant.items()
        )
    )
