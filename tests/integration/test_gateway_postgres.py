"""The gateway's database on PostgreSQL: several processes begin at once, and none waits for another for ever."""

from __future__ import annotations

import random
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor

import pytest
from sqlalchemy import Engine

from pipeline.observability.metrics import Metrics
from pipeline.streaming.codec import TopicNames
from tests.support.gateway import decision_record, tenant_decision
from tests.support.postgres import postgres
from tests.support.streaming import FakeClock
from workers.gateway.projection import Projection
from workers.gateway.registry import Registry, Submission
from workers.gateway.tables import make_tables
from workers.gateway.views import Views
from workers.web.database import DatabaseSettings, open_database

__all__ = ["postgres"]

MEMBERS = 8
TURNS = 20
NAMES = ("A-1", "a-1", "a.2", "B-1", "b_3", "Z-1", "z-9", "z:1")
"""A language sorts them in another order than their bytes."""


@pytest.fixture
def engines(postgres: str) -> Iterator[list[Engine]]:
    made = [open_database(DatabaseSettings(url=postgres)) for _ in range(MEMBERS)]
    yield made
    for engine in made:
        engine.dispose()


def at_once(work: Callable[[int], None], started: threading.Barrier | None = None) -> None:
    """By every member in a thread of its own; raises what the first of them raised."""
    started = started or threading.Barrier(MEMBERS)

    def member(index: int) -> None:
        started.wait()
        try:
            work(index)
        except BaseException:
            started.abort()  # nobody waits for it in the next turn
            raise

    with ThreadPoolExecutor(MEMBERS) as pool:
        list(pool.map(member, range(MEMBERS)))


def test_gateways_that_begin_at_once_share_one_database(engines: list[Engine]) -> None:
    at_once(lambda index: make_tables(engines[index], float(index)))
    purged, last = Views(engines[0]).bounds()
    assert purged == last, "both numbers are of one process"


def test_nobody_waits_for_who_waits_for_it(engines: list[Engine]) -> None:
    """The same items in any order, registered, acknowledged and decided at once: PostgreSQL would end a circle."""
    make_tables(engines[0], 0.0)
    clock, next_turn = FakeClock(), threading.Barrier(MEMBERS)

    def member(index: int) -> None:
        chance, engine = random.Random(index), engines[index]
        registry = Registry(engine, clock, lease_s=0.0)
        projection = Projection(engine, clock, TopicNames(), Metrics())
        for turn in range(TURNS):
            mixed = [Submission("acme", f"{name}.{turn}", "f" * 64) for name in chance.sample(NAMES, len(NAMES))]
            next_turn.wait()
            registry.claim(mixed)
            if index % 2:
                registry.accept([s.key for s in mixed])
            else:
                projection.apply([decision_record(tenant_decision(s.media_id, "block", "acme"), turn) for s in mixed])

    at_once(member, next_turn)
    page = Views(engines[0]).after("acme", 0, 10_000)
    assert sorted(e.body["media_id"] for e in page.events) == sorted(f"{n}.{t}" for n in NAMES for t in range(TURNS))
    assert [e.seq for e in page.events] == sorted(e.seq for e in page.events)
