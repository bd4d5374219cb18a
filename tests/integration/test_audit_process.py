"""The audit worker as a process: ready, drained, and every way in which it refuses to go on."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from pipeline.exit_codes import EXIT_LOG_CORRUPT, EXIT_LOG_GAP, EXIT_SETTINGS
from pipeline.streaming.kafka.embedded import EmbeddedKafka
from schemas.topics import Topic
from tests.support.audit_kafka import AuditSite
from tests.support.fleet import clean_environment, command_line
from tests.support.kafka import TIMEOUT_S, produce
from tests.support.waiting import wait_until
from workers.fleet import Fleet
from workers.names import WorkerName

END_S = 60.0


@pytest.fixture
def site(kafka: EmbeddedKafka, topics: dict[Topic, str], prefix: str, tmp_path: Path) -> AuditSite:
    return AuditSite(kafka.bootstrap, prefix, tmp_path)


@contextmanager
def running(site: AuditSite, log: Path) -> Iterator[subprocess.Popen[bytes]]:
    with log.open("ab") as out:
        process = subprocess.Popen(
            [sys.executable, "-m", "workers.audit"], env=clean_environment(site.environment), stdout=out, stderr=out
        )
        try:
            yield process
        finally:
            process.kill()
            process.wait()


def test_a_fleet_member_that_archives_what_it_logged_and_drains(
    site: AuditSite, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    for name, value in site.environment.items():
        monkeypatch.setenv(name, value)
    site.transact(site.producer("p"), [f"m-{n}" for n in range(30)], Topic.ESCALATE)
    with Fleet({WorkerName.AUDIT: 1}, {}, tmp_path / "logs") as fleet:
        fleet.wait_ready()
        wait_until(site.caught_up, TIMEOUT_S * 2, "all is logged")
        (member,) = fleet.members
    assert member.process.returncode == 0
    assert '"event":"worker_drained"' in member.log_path.read_text()
    assert (sum(c.compared for c in site.completeness()), sum(c.pending for c in site.completeness())) == (30, 0)
    archived = list((tmp_path / "store" / "archive" / "by-decision").rglob("*.json"))
    assert len(archived) == 30, "retention has each of them"


def test_a_log_that_was_tampered_with_ends_it_with_tree_and_index(site: AuditSite, tmp_path: Path) -> None:
    producer = site.producer("p")
    site.transact(producer, [f"m-{n}" for n in range(40)], partition=1)
    loop = site.loop()
    site.turn_until(site.caught_up, loop)
    loop.run(lambda: True)
    bundles = (site.home / "store/audit/tests.example/audit/decisions.block/1/tile/entries/000.p").iterdir()
    bundle = max(bundles, key=lambda path: int(path.name))  # a slow machine may have made more than one
    data = bytearray(bundle.read_bytes())
    data[-20] ^= 1  # in the last entry, number 39
    bundle.chmod(0o644)
    bundle.write_bytes(data)
    with running(site, tmp_path / "out") as process:
        assert process.wait(END_S) == EXIT_LOG_CORRUPT, (tmp_path / "out").read_text()
    said = (tmp_path / "out").read_text()
    assert "tests.example/audit/decisions.block/1, first bad index 39" in said
    assert "Traceback" not in said


def test_records_that_retention_removed_end_it_and_the_setting_lets_it_go_on(site: AuditSite, tmp_path: Path) -> None:
    name = f"{site.prefix}.{Topic.REVIEWS}"
    produce(site.bootstrap, name, [b"%d" % n for n in range(3)])
    loop = site.loop()
    site.turn_until(site.caught_up, loop)
    loop.run(lambda: True)
    produce(site.bootstrap, name, [b"%d" % n for n in range(3, 9)])
    site.delete_records(Topic.REVIEWS, 0, 6)
    with running(site, tmp_path / "stops") as process:
        assert process.wait(END_S) == EXIT_LOG_GAP, (tmp_path / "stops").read_text()
    assert "accept-gap reviews.verdicts 0 --until 6" in (tmp_path / "stops").read_text()
    site.overrides = {"MEDIASIEVE_AUDIT__GAP": "record"}
    with running(site, tmp_path / "goes-on") as process:
        wait_until(site.caught_up, END_S, "the rest is logged")
        process.terminate()
        assert process.wait(END_S) == 0
    (row,) = [row for row in site.cli_json("status") if row["tree"] == "reviews.verdicts/0"]
    assert (row["leaves"], row["last_offset"]) == (3 + 1 + 3, 8)


@pytest.mark.parametrize("missing", ["PRIVATE_KEY", "PUBLIC_KEYS"])
def test_without_keys_it_does_not_start_and_says_how_to_make_them(missing: str, tmp_path: Path) -> None:
    site = AuditSite("127.0.0.1:1", "x", tmp_path)
    environment = {k: v for k, v in site.environment.items() if not k.endswith(missing)}
    done = (
        command_line("worker", "audit", environment=environment)
        if missing == "PRIVATE_KEY"
        else subprocess.run(
            [sys.executable, "-m", "workers.audit"],
            env=clean_environment(environment),
            capture_output=True,
            text=True,
            check=False,
            timeout=90,
        )
    )
    assert done.returncode == EXIT_SETTINGS
    assert f"MEDIASIEVE_AUDIT__{missing}" in done.stderr
    assert "mediasieve audit keygen" in done.stderr
    assert "Traceback" not in done.stderr
