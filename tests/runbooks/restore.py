"""Restoring from zero: consumer groups, the console's database, the cluster."""

from __future__ import annotations

import subprocess
import sys
from collections import Counter
from pathlib import Path

from pipeline.exit_codes import EXIT_LOG_CORRUPT
from pipeline.streaming.kafka.embedded import EmbeddedKafka
from tests.runbooks.count import Count
from tests.runbooks.site import PARTITIONS, ROOT, STAGES, Site, Worker, say, site
from tests.support.waiting import wait_until
from workers.demo_audit import audit_environment

_GROUPS = " ".join(STAGES)
_AT_END = f"python -m tests.runbooks.admin wait-lag {_GROUPS}"
_CASES = "select state, count(*) from review_cases group by state"
_SHOW_CASES = f"python -c \"import sqlite3; print(sqlite3.connect('people.sqlite').execute('{_CASES}').fetchall())\""


def empty_groups(home: Path) -> None:
    """The groups of the three stages are gone: first with a start at the beginning, then with one at the end."""
    with site(home) as place:
        workers = place.start(*STAGES)
        with place.load(10.0) as producer:
            producer.reaches(80)
        before = place.exact()
        _stop(workers)
        place.sh(f"python -m tests.runbooks.admin delete-group {_GROUPS}")
        workers = place.start(*STAGES)
        place.sh(_AT_END)
        again = Count.read(place.kafka)
        say(f"# {again.line(place.published)}")
        say(f"# answers by media id: {dict(Counter(again.by_media.values()))}")
        assert set(again.by_uid) == set(before.by_uid), "the same decisions"
        _stop(workers)
        place.sh(f"python -m tests.runbooks.admin delete-group {_GROUPS}")
        place.sh(f"python -m tests.runbooks.admin to-end {_GROUPS}")
        place.start(*STAGES)
        with place.load(10.0, "after") as producer:
            producer.reaches(60)
        place.sh(_AT_END)
        after = place.settle()
        new = Counter({m: n for m, n in after.by_media.items() if m.startswith("after")})
        say(f"# of {len(producer.published)} new ones {len(new)} answered, {new.total() - len(new)} twice")
        assert new == Counter(producer.published)
        assert after.by_media.total() == again.by_media.total() + new.total()


def _stop(workers: list[Worker]) -> None:
    for worker in workers:
        assert worker.stop() == 0


def lost_database(home: Path) -> None:
    """The console's database is gone after people have decided all cases."""
    people = {
        "MEDIASIEVE_DATABASE__URL": f"sqlite:///{home / 'people.sqlite'}",
        "MEDIASIEVE_CONSOLE__REVIEW__FOUR_EYES_LABELS": "[]",
    }
    with site(home, people) as place:
        place.start(*STAGES)
        with place.load(10.0) as producer:
            producer.reaches(60)
        held = place.exact().by_topic["decisions.escalate"]
        say(f"# {held} wait for people")
        _people_decide(place, held)
        place.sh("rm people.sqlite*")
        say("# the database is lost")
        (console,) = place.start("console")
        place.sh("python -m tests.runbooks.admin wait-lag console")
        place.sh(_SHOW_CASES)
        assert console.stop() == 0
        place.sh("python -m tests.runbooks.admin delete-group console")
        place.start("console")
        place.sh("python -m tests.runbooks.admin wait-lag console")
        said = place.sh(_SHOW_CASES)
        assert f"('open', {held})" in said


def _people_decide(place: Site, held: int) -> None:
    """A script answers every case; what it says is on the topics when it ends."""
    journal = place.home / "reviewer.hooks"
    say("# reviewers answer all of them")
    with (place.home / "reviewer.log").open("wb") as log:
        process = subprocess.Popen(
            [sys.executable, "-m", "tests.fault.console_main", "--journal", str(journal)],
            env=place.shell_environment,
            cwd=ROOT,
            stdout=log,
            stderr=log,
        )
        try:
            wait_until(lambda: f"('closed', {held})" in _cases(place), 120.0, "all cases are closed")
            place.sh(_SHOW_CASES)
        finally:
            process.terminate()
            process.wait(90.0)


def _cases(place: Site) -> str:
    done = subprocess.run(
        ["/bin/bash", "-c", _SHOW_CASES], env=place.shell_environment, capture_output=True, text=True, check=False
    )
    return done.stdout


def new_cluster(home: Path) -> None:
    """The brokers are gone with all topics; store, archive and audit log are there."""
    with site(home, audit_environment(home)) as place:
        workers = place.start(*STAGES, "audit")
        with place.load(10.0) as producer:
            producer.reaches(60)
        found = place.exact()
        place.sh("python -m tests.runbooks.admin wait-lag audit")
        held, released = _one(place, '.outcome == "escalate"'), _one(place, '.risk == "released"')
        _stop(workers)
        with place.load(10.0, "open") as producer:
            producer.reaches(20)
        place.broker.stop()
        say(f"# the cluster is lost, with {len(producer.published)} references that nobody has decided")
        with EmbeddedKafka(data_dir=home / "new-kafka") as fresh:
            place.move(fresh)
            _restored(place, held, released)
            _send_again(place, len(producer.published), found)
            place.stop_workers()


def _one(place: Site, condition: str) -> str:
    """The decision_uid of a decision."""
    chosen = f"select({condition}) | .decision_uid"
    return place.sh(f"mediasieve decisions --json | jq -r '.unmapped.mediasieve | {chosen}' | sort | tail -1")


def _restored(place: Site, held: str, released: str) -> None:
    apply = f"mediasieve topics apply --partitions {PARTITIONS} --replication-factor 1"
    place.sh(f"{apply} --json | jq -r .state | uniq -c")
    place.sh("mediasieve audit verify --all", lines=3)
    place.sh(f"mediasieve explain {held}", lines=5)
    place.sh(f"mediasieve explain {released}", lines=3, expect=3)
    old_log = place.begin("audit")
    code = old_log.ended(90.0)
    say(f"# {old_log.label}: exit {code}")
    assert code == EXIT_LOG_CORRUPT
    place.sh("grep worker_stopped logs/audit-2/audit-0.log | jq -r .detail")


def _send_again(place: Site, undecided: int, found: Count) -> None:
    place.sh("mediasieve audit keygen keys/audit-2 --name mediasieve-2", lines=3)
    new_log = {
        "MEDIASIEVE_AUDIT__LOG_NAME": "mediasieve-2",
        "MEDIASIEVE_AUDIT__PRIVATE_KEY": "keys/audit-2/audit-private.pem",
        "MEDIASIEVE_AUDIT__PUBLIC_KEYS": "keys/audit-2/audit-public-keys.json",
    }
    place.environment |= new_log
    place.start(*STAGES, "audit")
    say("# producers send again what they have no answer to, and by mistake some that they have")
    with place.load(10.0, "open") as producer:
        producer.reaches(undecided)
    with place.load(10.0) as producer:
        producer.reaches(15)
    now = place.exact()
    known = set(now.by_uid) & set(found.by_uid)
    say(f"# {len(known)} have a decision_uid that the old cluster had as well")
    assert len(known) == len(producer.published)
    place.sh("python -m tests.runbooks.admin wait-lag audit")
    place.sh("mediasieve audit verify --all --kafka", lines=3)
