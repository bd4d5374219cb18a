"""Many reviewers at once, with crashes: nothing is decided twice, nothing is lost, nothing starves."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.support.postgres import postgres
from tests.support.review_audit import check
from tests.support.review_drill import Drill

__all__ = ["postgres"]


def run(home: Path, cases: int, reviewers: int, url: str | None = None) -> None:
    drill = Drill(home, cases, reviewers, seed=7, url=url)
    try:
        drill.run()
        print({**check(drill), **drill.tally.counts})
    finally:
        drill.site.engine.dispose()
    for mishap in ("walked away", "died", "skipped", "released", "answered twice: AlreadyDecided"):
        assert drill.tally.counts[mishap] > 0
    assert "answered twice" not in drill.tally.counts


def test_five_reviewers_and_three_hundred_cases(tmp_path: Path) -> None:
    run(tmp_path, cases=300, reviewers=5)


def test_five_reviewers_and_three_hundred_cases_on_postgres(tmp_path: Path, postgres: str) -> None:
    run(tmp_path, cases=300, reviewers=5, url=postgres)


@pytest.mark.soak
@pytest.mark.timeout(3600)
def test_twenty_reviewers_and_ten_thousand_cases(tmp_path: Path) -> None:
    run(tmp_path, cases=10_000, reviewers=20)


@pytest.mark.soak
@pytest.mark.timeout(3600)
def test_twenty_reviewers_and_ten_thousand_cases_on_postgres(tmp_path: Path, postgres: str) -> None:
    run(tmp_path, cases=10_000, reviewers=20, url=postgres)
