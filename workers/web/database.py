"""The database of gateway and console: SQLite on one host, PostgreSQL for several."""

from __future__ import annotations

import math
import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from sqlalchemy import URL, Connection, Engine, MetaData, create_engine, event, func, select
from sqlalchemy.engine import make_url
from sqlalchemy.exc import ArgumentError, InterfaceError, NoSuchModuleError, OperationalError
from sqlalchemy.exc import TimeoutError as NoFreeConnection

from pipeline.settings import SettingsInvalid
from workers.web.settings import DatabaseSettings
from workers.web.write_queue import WriteQueue, write_queue

__all__ = ["DATABASE_AWAY", "DatabaseSettings", "create_missing", "open_database", "reading", "why_away"]

DATABASE_AWAY = (OperationalError, InterfaceError, NoFreeConnection)
"""What SQLAlchemy raises while a database does not answer, is locked, or has no connection left: try again later."""

_VARIABLE = "MEDIASIEVE_DATABASE__URL (in the file: database.url)"
_READING = "mediasieve_reading"
_TURN = "mediasieve_turn"
_MAKING_TABLES = 0x6D656469617369  # any number that is ours alone: "mediasi"


def open_database(settings: DatabaseSettings) -> Engine:
    """An engine; each part of the program makes its own tables in it, see `create_missing`.

    SQLite runs with a write-ahead log, waits `busy_timeout_s` for the write lock, checks foreign keys and makes each
    commit durable. `engine.begin()` there takes the write lock at once, so that no transaction fails half-way for want
    of it: keep it short, and read with `reading(engine)`, which takes no lock. Writers of one process get the lock in
    the order in which they came, see write_queue.py; a thread that writes in two transactions at once waits for itself.

    Raises:
        SettingsInvalid: the URL cannot be read, its driver is not installed, or the file's folder cannot be made.
    """
    try:
        url = make_url(settings.resolved)
        if url.get_backend_name() == "sqlite":
            return _sqlite(url, settings)
        return create_engine(
            url,
            pool_size=settings.pool_size,
            pool_timeout=settings.busy_timeout_s,
            pool_pre_ping=True,
            connect_args=_patience(url, settings),
        )
    except ArgumentError as error:
        raise SettingsInvalid(f"{_VARIABLE}: not a URL of SQLAlchemy") from error
    except (NoSuchModuleError, ModuleNotFoundError) as error:
        raise SettingsInvalid(f"{_VARIABLE}: {error}; pip install 'mediasieve[postgres]'") from error


def create_missing(engine: Engine, metadata: MetaData) -> None:
    """Make the tables that are missing; processes that do so at once wait for each other."""
    with engine.begin() as connection:
        if connection.dialect.name == "postgresql":
            connection.execute(select(func.pg_advisory_xact_lock(_MAKING_TABLES)))
        metadata.create_all(connection)


def _patience(url: URL, settings: DatabaseSettings) -> dict[str, Any]:
    """How long libpq waits for a server that takes no connection or acknowledges no packet; the URL's own goes first.

    By itself it waits as long as the kernel does, a quarter of an hour.
    """
    wait_s = max(2, math.ceil(settings.busy_timeout_s))  # libpq: 1 means 2
    patience = {"connect_timeout": wait_s, "tcp_user_timeout": 1000 * wait_s, "keepalives_idle": wait_s}
    return {name: value for name, value in patience.items() if name not in url.query}


def why_away(error: Exception) -> str:
    """What the driver said, for a log: without the statement, whose parameters are people's data."""
    return str(getattr(error, "orig", None) or error)


@contextmanager
def reading(engine: Engine) -> Iterator[Connection]:
    """A connection that only reads, from one snapshot."""
    options: dict[str, Any] = {_READING: True}
    if engine.dialect.name == "postgresql":  # its default is a new snapshot for each statement
        options |= {"isolation_level": "REPEATABLE READ", "postgresql_readonly": True}
    with engine.connect() as connection:
        yield connection.execution_options(**options)


def _sqlite(url: URL, settings: DatabaseSettings) -> Engine:
    path = Path(url.database or "")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise SettingsInvalid(f"{_VARIABLE}: cannot make {path.parent}: {error.strerror}; name another file") from error
    # Who waits to write holds a connection: readers must not want for one, and there are no more than threads.
    engine = create_engine(url, connect_args={"timeout": settings.busy_timeout_s}, max_overflow=-1)
    event.listen(engine, "connect", _on_connect)
    _queue_writers(engine, write_queue(path), settings.busy_timeout_s)
    return engine


def _on_connect(connection: Any, _record: Any) -> None:
    connection.isolation_level = None  # the driver would begin transactions by itself, and too late
    for pragma in ("journal_mode=WAL", "synchronous=FULL", "foreign_keys=ON"):
        connection.execute(f"PRAGMA {pragma}").close()


def _queue_writers(engine: Engine, queue: WriteQueue, timeout_s: float) -> None:
    """The turn is taken before a write transaction begins, and ends when its connection goes back to the pool."""

    def on_begin(connection: Connection) -> None:
        if connection.get_execution_options().get(_READING, False):
            connection.exec_driver_sql("BEGIN")
            return
        if _TURN not in connection.info:
            if not queue.enter(timeout_s):
                busy = sqlite3.OperationalError(f"database is locked: {len(queue)} writers of this process wait")
                raise OperationalError("BEGIN IMMEDIATE", None, busy)
            connection.info[_TURN] = True
        connection.exec_driver_sql("BEGIN IMMEDIATE")

    def on_checkin(_connection: Any, record: Any) -> None:
        if record.info.pop(_TURN, False):
            queue.leave()

    event.listen(engine, "begin", on_begin)
    event.listen(engine, "checkin", on_checkin)
