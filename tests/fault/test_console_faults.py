"""The console is killed around each step from the database to Kafka: nothing is lost, and what is doubled is equal."""

from __future__ import annotations

import signal
import subprocess
import sys
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import orjson
import pytest
from pydantic import SecretStr
from sqlalchemy import Engine, select, update

from pipeline.streaming.kafka.client import RecordReader
from pipeline.streaming.kafka.config import KafkaSettings
from pipeline.streaming.kafka.embedded import EmbeddedKafka
from pipeline.streaming.transport import RawRecord
from schemas.ocsf import encode_finding, finding_from_decision
from schemas.topics import DECISION_TOPICS, Topic
from schemas.types import StageName
from tests.fault.audit import FAST
from tests.fault.processes import Strike, Worker
from tests.support.fleet import clean_environment
from tests.support.kafka import produce
from tests.support.reviewing import escalated
from tests.support.waiting import wait_until
from workers.console.domain.models import CaseState
from workers.console.domain.publisher import HOOKS
from workers.console.domain.tables import cases, open_tables, outbox, publishers, verdicts
from workers.web.database import DatabaseSettings, open_database, reading

pytestmark = [pytest.mark.fault, pytest.mark.kafka]

KILL_POINTS = ("claimed", "committed", *HOOKS)
"""`read`: committed, not sent. `sent`: acknowledged by Kafka, not marked."""

STRIKES = tuple(Strike(point, 1 + n % 2) for n, point in enumerate(KILL_POINTS))
PER_LIFE = 6
WAIT_S = 120.0
_NOW_S = 1_770_000_000.0


@dataclass
class Consoles:
    """One console after the other on one database."""

    home: Path
    kafka: KafkaSettings
    started: list[Worker] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.url = f"sqlite:////{self.home / 'review.sqlite'}"
        self.engine: Engine = open_database(DatabaseSettings(url=SecretStr(self.url)))
        open_tables(self.engine)

    @property
    def environment(self) -> dict[str, str]:
        return {
            "MEDIASIEVE_KAFKA__BOOTSTRAP": self.kafka.bootstrap,
            "MEDIASIEVE_KAFKA__TOPIC_PREFIX": self.kafka.topic_prefix,
            "MEDIASIEVE_STORE__URL": (self.home / "store").as_uri(),
            "MEDIASIEVE_DATABASE__URL": self.url,
            "MEDIASIEVE_CONSOLE__REVIEW__PUBLISH_BATCH": "5",
            "MEDIASIEVE_CONSOLE__REVIEW__PUBLISH_EVERY_S": "0.05",
            "MEDIASIEVE_HEALTH__PORT": "0",
            **FAST,
        }

    def start(self, strike: Strike | None = None) -> Worker:
        name = f"console-{len(self.started):02d}"
        journal, log_path = self.home / f"{name}.hooks", self.home / f"{name}.log"
        command = [sys.executable, "-m", "tests.fault.console_main", "--journal", str(journal)]
        with log_path.open("ab") as log:
            process = subprocess.Popen(
                [*command, *(strike.arguments if strike else ())],
                env=clean_environment(self.environment),
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,
            )
        worker = Worker(StageName.CLASSIFIER, process, journal, log_path, strike)  # the stage is of no account here
        self.started.append(worker)
        return worker

    def end(self) -> None:
        for worker in self.started:
            if worker.process.poll() is None:
                worker.process.kill()
            worker.process.wait()
        self.engine.dispose()

    def time_passes(self) -> None:
        """The dead one's lead runs out, which in earnest takes 90 s."""
        with self.engine.begin() as connection:
            connection.execute(update(publishers).values(until=0.0))

    def done(self, count: int) -> bool:
        """So many cases are closed, and Kafka has all that there is to tell."""
        with reading(self.engine) as connection:
            states = Counter(connection.scalars(select(cases.c.state)))
            waits = connection.scalar(select(outbox.c.entry_id).where(outbox.c.published_at.is_(None)).limit(1))
        return states == {CaseState.CLOSED.value: count} and waits is None

    def rows(self, statement: Any) -> list[Any]:
        with reading(self.engine) as connection:
            return list(connection.execute(statement))

    @property
    def hooks(self) -> Counter[str]:
        return sum((w.hooks for w in self.started), Counter())


@pytest.fixture
def consoles(kafka: EmbeddedKafka, topics: dict[Topic, str], prefix: str, tmp_path: Path) -> Iterator[Consoles]:
    made = Consoles(tmp_path, KafkaSettings(bootstrap=kafka.bootstrap, topic_prefix=prefix))
    try:
        yield made
    finally:
        made.end()


@pytest.mark.timeout(900)
def test_a_console_that_is_killed_between_database_and_kafka_loses_nothing(
    consoles: Consoles, topics: dict[Topic, str], capsys: pytest.CaptureFixture[str]
) -> None:
    made = 0
    for strike in STRIKES:
        findings = [encode_finding(finding_from_decision(escalated(made + n, _NOW_S))) for n in range(PER_LIFE)]
        produce(consoles.kafka.bootstrap, topics[Topic.ESCALATE], findings)
        made += PER_LIFE
        worker = consoles.start(strike)
        assert worker.process.wait(WAIT_S) == -signal.SIGKILL, worker.tail()
        consoles.time_passes()
    last = consoles.start()
    wait_until(lambda: consoles.done(made), WAIT_S, "all is reviewed and published")
    assert last.terminate() == 0, last.tail()
    killed = {point: consoles.hooks[f"SIGKILL {point}"] for point in KILL_POINTS}
    assert killed == dict.fromkeys(KILL_POINTS, 1)
    told = published(consoles.kafka, topics)
    with capsys.disabled():
        print(f"\n{made} cases, kills {killed}, {sum(map(len, told.values()))} records, {len(told)} different ones")
    check(consoles, told, made)


def check(consoles: Consoles, told: dict[str, list[RawRecord]], made: int) -> None:
    """What is on the topics is what was committed: all of it, nothing else, and alike where it is doubled."""
    entries = {row.event_id: row for row in consoles.rows(select(outbox))}
    assert told.keys() == entries.keys()
    assert any(len(same) > 1 for same in told.values()), "a console that died before the mark sends again"
    for event_id, same in told.items():
        assert {record.value for record in same} == {entries[event_id].value}
        assert {record.headers for record in same} == {same[0].headers}
    findings = [orjson.loads(row.value) for row in entries.values() if row.topic in DECISION_TOPICS.values()]
    uids = {event_id: orjson.loads(same[0].value).get("metadata", {}).get("uid") for event_id, same in told.items()}
    assert all(uid in (None, event_id) for event_id, uid in uids.items())
    assert Counter(f["activity_name"] for f in findings) == {"Update": made, "Close": made}
    assert len({f["finding_info"]["uid"] for f in findings}) == made
    given = consoles.rows(select(verdicts.c.case_id))
    assert len(given) == len({row.case_id for row in given}) == made


def published(kafka: KafkaSettings, topics: dict[Topic, str]) -> dict[str, list[RawRecord]]:
    """By CloudEvents id, in the order of each partition; the decisions that the test made are left out."""
    names = [topics[topic] for topic in (Topic.REVIEWS, Topic.REVIEW_ACTIONS, Topic.PASS, Topic.BLOCK)]
    found: dict[str, list[RawRecord]] = {}
    with RecordReader(kafka, names) as reader:
        for record in reader.to_end():
            found.setdefault((record.header("ce_id") or b"").decode(), []).append(record)
    return found
