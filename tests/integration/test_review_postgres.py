"""The review queue on PostgreSQL, where it differs from SQLite."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from schemas.review import Label
from tests.support.postgres import postgres
from tests.support.reviewing import Site, escalated
from workers.console.domain.errors import NoSuchCase

__all__ = ["postgres"]


@pytest.fixture
def site(tmp_path: Path, postgres: str) -> Iterator[Site]:
    made = Site(tmp_path, url=postgres)
    yield made
    made.engine.dispose()


def test_what_postgres_cannot_store_stops_nothing(site: Site) -> None:
    """NUL is a character of JSON, and of any label that a producer sends."""
    (case_id,) = site.add(escalated(0, site.clock.wall_s(), labels={"desk": "a\0b"}))
    assert [row.case_id for row in site.service.search(None, "desk=a\0b").rows] == [case_id]
    with pytest.raises(NoSuchCase):
        site.service.case("\0", None)
    claim = site.service.claim("ann", None)
    assert claim is not None
    with pytest.raises(ValueError, match="rationale: has a NUL"):
        site.service.decide(claim.token, Label.PHOTOGRAPH, "a\0b", reviewer="ann")
    assert site.service.decide(claim.token, Label.PHOTOGRAPH, "ab", reviewer="ann").closed
    site.publish()
    assert site.service.backlog().unpublished == 0


def test_numbers_of_gold_and_queue(site: Site) -> None:
    case_id = site.held(0)
    claim = site.service.claim("ann", None)
    assert claim is not None
    site.service.decide(claim.token, Label.PHOTOGRAPH, "", reviewer="ann")
    site.service.add_gold(escalated(0, 0.0).decision_uid, Label.PHOTOGRAPH, "chief")
    site.draw = 0.0
    gold = site.service.claim("ben", None)
    assert gold is not None
    site.service.decide(gold.token, Label.GENERATED, "", reviewer="ben")
    ((item),) = site.service.gold_items(None)
    assert (str(item.decision_uid), item.answers, item.correct) == (case_id, 1, 0)
    (answer,) = site.service.gold_answers(None)
    assert (answer.reviewer, answer.truth, answer.said, answer.count) == ("ben", Label.PHOTOGRAPH, Label.GENERATED, 1)
    assert site.service.stats(None).agreed is not None


def test_who_claims_twice_at_once_is_given_one_case(site: Site) -> None:
    """As a double click does, of which each goes to another thread or console."""
    for number in range(12):
        site.held(number)
    both = threading.Barrier(2)

    def claim(_: int) -> str:
        both.wait()
        found = site.service.claim("ann", None)
        assert found is not None
        return found.case_id

    with ThreadPoolExecutor(2) as pool:
        for _ in range(10):
            assert len(set(pool.map(claim, range(2)))) == 1
            held = site.service.claim("ann", None)
            assert held is not None
            site.service.decide(held.token, Label.PHOTOGRAPH, "", reviewer="ann")
