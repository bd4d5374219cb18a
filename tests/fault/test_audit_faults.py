"""The audit log while its worker dies again and again, and while a frozen writer comes back."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import orjson
import pytest

from pipeline.exit_codes import EXIT_SUPERSEDED
from pipeline.streaming.kafka.embedded import EmbeddedKafka
from schemas.topics import Topic
from tests.fault.audit import FAST, KILL_POINTS, OFTEN, OTHER_EXITS, Auditors, files_of, freeze, kill_and_go_on, thaw
from tests.fault.processes import Strike
from tests.fault.test_storm import seed
from tests.support.audit_kafka import AuditSite
from tests.support.kafka import TIMEOUT_S
from tests.support.waiting import wait_until

pytestmark = [pytest.mark.fault, pytest.mark.kafka]


@pytest.fixture
def site(kafka: EmbeddedKafka, topics: dict[Topic, str], prefix: str, tmp_path: Path) -> Iterator[AuditSite]:
    return AuditSite(kafka.bootstrap, prefix, tmp_path, FAST | {"MEDIASIEVE_AUDIT__BATCH_SIZE": "16"})


def assert_every_leaf_once(
    site: AuditSite, kills: int, decisions: int, points: Sequence[str], capsys: pytest.CaptureFixture[str]
) -> dict[str, Any]:
    report = kill_and_go_on(site, kills, decisions, seed(), points)
    with capsys.disabled():
        print(f"\n{orjson.dumps(report, option=orjson.OPT_INDENT_2 | orjson.OPT_NON_STR_KEYS).decode()}")
    assert report["leaves"] == report["distinct_leaves"] == report["kafka"] == decisions
    assert report["equal_to_kafka"]
    assert (report["complete"], report["compared"], report["pending"]) == (True, decisions, 0)
    assert report["faults"] == []
    # A worker that is killed before its first checkpoint leaves none to keep.
    assert report["kept_checkpoints"] >= 1
    assert sum(report["kills"].values()) == kills
    assert len(report["kills"]) == min(kills, len(points)), "another point with each kill"
    assert report["exits"][-9] == kills
    assert report["other_exits"] <= OTHER_EXITS, "librdkafka crashes now and then under the protocol `classic`"
    assert report["last_exit"] == 0
    return report


@pytest.mark.timeout(600)
def test_every_decision_is_logged_once_though_the_worker_is_killed(
    site: AuditSite, capsys: pytest.CaptureFixture[str]
) -> None:
    assert_every_leaf_once(site, 6, 600, OFTEN, capsys)


@pytest.mark.soak
@pytest.mark.timeout(3600)
def test_soak_fifty_kills_during_20000_decisions(site: AuditSite, capsys: pytest.CaptureFixture[str]) -> None:
    report = assert_every_leaf_once(site, 50, 20_000, KILL_POINTS, capsys)
    assert report["kept_checkpoints"] >= 50


@pytest.mark.parametrize("at", ["before_append", "before checkpoint"])
def test_a_writer_that_was_frozen_while_another_took_over_writes_nothing_and_ends(site: AuditSite, at: str) -> None:
    auditors = Auditors(site)
    producer = site.producer("p")
    try:
        frozen = auditors.start(Strike(at, nth=2, signal="SIGSTOP"))
        site.transact(producer, [f"0-{n}" for n in range(40)])
        freeze(frozen)
        site.transact(producer, [f"1-{n}" for n in range(40)])
        auditors.start()
        wait_until(site.caught_up, 60.0, "the other worker takes over")
        log = site.home / "store" / "audit"
        before, passed = files_of(log), frozen.hooks
        thaw(frozen)
        assert frozen.process.wait(TIMEOUT_S) == EXIT_SUPERSEDED, frozen.tail()
        assert files_of(log) == before, "nothing was written, not even a file that was removed again"
        assert not [hook for hook in frozen.hooks - passed if hook.startswith("after ")], "no step was finished"
        assert '"exit_code":8' in frozen.log
        site.transact(producer, [f"2-{n}" for n in range(40)])
        wait_until(site.caught_up, TIMEOUT_S, "the other worker goes on")
        compared = site.completeness()
        assert (sum(c.compared for c in compared), sum(c.pending for c in compared)) == (120, 0)
        assert all(c.ok for c in compared)
    finally:
        auditors.end()
