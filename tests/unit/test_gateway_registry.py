"""Submissions under contention, and the SQL that PostgreSQL gets."""

from __future__ import annotations

import threading
from collections import Counter
from pathlib import Path
from types import SimpleNamespace

import pytest
from sqlalchemy.dialects import mysql, postgresql

from tests.support.streaming import FakeClock
from workers.gateway.registry import Claim, Registry, Submission
from workers.gateway.tables import POSITIONS, SUBMISSIONS, insert_new, make_tables
from workers.web.database import DatabaseSettings, open_database

ITEMS = [Submission("acme", f"m-{n}", "f" * 64) for n in range(50)]


def test_of_many_gateways_one_sends_each_submission(tmp_path: Path) -> None:
    """Each thread has an engine of its own, as a process would."""
    settings = DatabaseSettings(url=f"sqlite:///{tmp_path}/web.sqlite")
    engines = [open_database(settings) for _ in range(6)]
    make_tables(engines[0], 0.0)
    clock, claims, started = FakeClock(), [], threading.Barrier(len(engines))

    def claim(registry: Registry) -> None:
        started.wait()
        claims.append(registry.claim(ITEMS))

    threads = [threading.Thread(target=claim, args=(Registry(e, clock, lease_s=25.0),)) for e in engines]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for item in ITEMS:
        said = Counter(answer[item.key].claim for answer in claims)
        assert said == {Claim.SEND: 1, Claim.BUSY: len(engines) - 1}
    for engine in engines:
        engine.dispose()


def test_a_lease_that_ran_out_is_taken_over_once(tmp_path: Path) -> None:
    engine = open_database(DatabaseSettings(url=f"sqlite:///{tmp_path}/web.sqlite"))
    make_tables(engine, 0.0)
    clock = FakeClock()
    registry = Registry(engine, clock, lease_s=25.0)
    (first, *_) = ITEMS
    assert registry.claim([first])[first.key].claim is Claim.SEND
    clock.advance(25.0)
    assert [registry.claim([first])[first.key].claim for _ in range(2)] == [Claim.SEND, Claim.BUSY]
    registry.accept([first.key])
    clock.advance(1000.0)
    assert registry.claim([first])[first.key].claim is Claim.REPEATED
    other = Submission(*first.key, "0" * 64)
    assert registry.claim([other])[first.key].claim is Claim.DIFFERENT
    engine.dispose()


def test_postgresql_gets_its_own_insert() -> None:
    dialect = postgresql.dialect()
    statement = insert_new(SimpleNamespace(dialect=dialect), SUBMISSIONS)  # type: ignore[arg-type]
    assert "ON CONFLICT DO NOTHING" in str(statement.compile(dialect=dialect))
    with pytest.raises(ValueError, match="mysql is not supported"):
        insert_new(SimpleNamespace(dialect=mysql.dialect()), POSITIONS)  # type: ignore[arg-type]
