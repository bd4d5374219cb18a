"""The gateway's tables. Times are seconds since the epoch.

Whoever changes several submissions in one transaction does so in the order of tenant and media id, so that no two
transactions wait for each other.
"""

from __future__ import annotations

from sqlalchemy import (
    JSON,
    BigInteger,
    Column,
    ColumnElement,
    Connection,
    Engine,
    Float,
    Index,
    Integer,
    MetaData,
    String,
    Table,
    select,
)
from sqlalchemy.dialects.postgresql import insert as insert_postgresql
from sqlalchemy.dialects.sqlite import insert as insert_sqlite
from sqlalchemy.sql.dml import Insert

from workers.web.database import create_missing

metadata = MetaData()

REQUESTS = Table(
    "gateway_requests",
    metadata,
    Column("caller", String(512), primary_key=True),
    Column("idempotency_key", String(255), primary_key=True),
    Column("fingerprint", String(64), nullable=False),
    Column("created_at", Float, nullable=False, index=True),
)
"""What an idempotency key was first used for."""

SUBMISSIONS = Table(
    "gateway_submissions",
    metadata,
    Column("tenant", String(128), primary_key=True),
    Column("media_id", String(128), primary_key=True),
    Column("fingerprint", String(64), nullable=False),
    Column("submitted_at", Float, nullable=False, index=True),
    Column("lease_until", Float, nullable=False),
    Column("accepted_at", Float),
    Column("settled_at", Float),
)
"""`accepted_at`: the broker has it. `settled_at`: it was decided, or is a dead letter. Until `lease_until` some request
waits for the broker."""

Index(
    "gateway_submissions_open",
    SUBMISSIONS.c.accepted_at,
    sqlite_where=SUBMISSIONS.c.settled_at.is_(None),
    postgresql_where=SUBMISSIONS.c.settled_at.is_(None),
)

EVENTS = Table(
    "gateway_events",
    metadata,
    Column("seq", BigInteger().with_variant(Integer, "sqlite"), primary_key=True, autoincrement=False),
    Column("event_uid", String(36), nullable=False, unique=True),
    Column("kind", String(16), nullable=False),
    Column("tenant", String(128), nullable=False),
    Column("media_id", String(128), nullable=False),
    Column("read_at", Float, nullable=False, index=True),
    Column("body", JSON, nullable=False),
    Column("evidence", JSON, nullable=False),
)
"""Decisions and dead letters in the order in which they were read; `seq` has no gap that is filled later."""

Index("gateway_events_of_media", EVENTS.c.tenant, EVENTS.c.media_id)
Index("gateway_events_of_tenant", EVENTS.c.tenant, EVENTS.c.seq)

POSITIONS = Table(
    "gateway_positions",
    metadata,
    Column("topic", String(249), primary_key=True),
    Column("partition", Integer, primary_key=True),
    Column("next_offset", BigInteger, nullable=False),
)
"""How far each partition was read, changed together with what was read."""

COUNTERS = Table(
    "gateway_counters",
    metadata,
    Column("name", String(32), primary_key=True),
    Column("value", BigInteger, nullable=False),
)
LAST_SEQ, PURGED_SEQ = "last_seq", "purged_seq"


def make_tables(engine: Engine, now_s: float) -> None:
    """Those that are missing. A new database numbers its events from the time on, in microseconds.

    So its numbers are beyond those of the database that it takes the place of, unless that had a million events a
    second: a stream that comes back with one of those is told that it missed something.
    """
    create_missing(engine, metadata)
    with engine.begin() as connection:
        for name in (LAST_SEQ, PURGED_SEQ):
            connection.execute(insert_new(connection, COUNTERS).values(name=name, value=int(now_s * 1e6)))


def insert_new(connection: Connection, table: Table) -> Insert:
    """An INSERT that leaves rows alone that are there already, by whatever key."""
    match connection.dialect.name:
        case "sqlite":
            return insert_sqlite(table).on_conflict_do_nothing()
        case "postgresql":
            return insert_postgresql(table).on_conflict_do_nothing()
        case other:
            raise ValueError(f"database.url: {other} is not supported; use sqlite or postgresql")


def counter(connection: Connection, name: str) -> int:
    """A counter's value."""
    return int(connection.execute(select(COUNTERS.c.value).where(COUNTERS.c.name == name)).scalar_one())


def lock_in_order(connection: Connection, some: ColumnElement[bool]) -> None:
    """These submissions, for this transaction; SQLite has but one writer."""
    if connection.dialect.name == "postgresql":
        keys = select(SUBMISSIONS.c.tenant, SUBMISSIONS.c.media_id).where(some)
        by_code_points = (SUBMISSIONS.c.tenant.collate("C"), SUBMISSIONS.c.media_id.collate("C"))
        connection.execute(keys.order_by(*by_code_points).with_for_update())
