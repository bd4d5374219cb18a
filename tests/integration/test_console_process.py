"""The console as a process on a real Kafka: a decision comes in, a person answers on the page, the Update goes out."""

from __future__ import annotations

import os
import re
import signal
from pathlib import Path

import httpx
import orjson
import pytest
from pydantic import SecretStr

from pipeline.settings import PREFIX
from pipeline.streaming.clock import SystemClock
from pipeline.streaming.kafka.embedded import EmbeddedKafka
from schemas.topics import Topic
from tests.support.consoles import PASSWORD
from tests.support.explaining import TENANT, Case, finding
from tests.support.kafka import TIMEOUT_S, produce, read_all
from tests.support.pages import form
from tests.support.waiting import wait_until
from workers.console.web.accounts import Accounts
from workers.console.web.tables import create_tables
from workers.fleet import Fleet
from workers.names import WorkerName
from workers.web.database import DatabaseSettings, open_database
from workers.web.principal import Role

pytestmark = pytest.mark.kafka


def test_from_escalation_to_update(
    kafka: EmbeddedKafka, topics: dict[Topic, str], prefix: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in [n for n in os.environ if n.startswith(PREFIX)]:
        monkeypatch.delenv(name)
    database = f"sqlite:///{tmp_path}/web.sqlite"
    environment = {
        "MEDIASIEVE_KAFKA__BOOTSTRAP": kafka.bootstrap,
        "MEDIASIEVE_KAFKA__TOPIC_PREFIX": prefix,
        "MEDIASIEVE_STORE__URL": (tmp_path / "store").as_uri(),
        "MEDIASIEVE_DATABASE__URL": database,
    }
    engine = open_database(DatabaseSettings(url=SecretStr(database)))
    create_tables(engine)
    Accounts(engine, SystemClock()).add("ana", PASSWORD, [TENANT], [Role.REVIEW])
    engine.dispose()
    decision = Case().escalated()
    produce(kafka.bootstrap, topics[Topic.ESCALATE], [finding(decision)], 0)
    with Fleet({WorkerName.CONSOLE: 1}, environment, tmp_path / "logs") as fleet:
        fleet.wait_ready()
        (member,) = fleet.members
        with httpx.Client(base_url=address(member.log_path), timeout=TIMEOUT_S) as browser:
            page = browser.get("/login").text
            login = form(page, "/login") | {"name": "ana", "password": PASSWORD}
            assert browser.post("/login", data=login).headers["location"] == "/queue"
            wait_until(lambda: "img-1" in browser.get("/queue").text, TIMEOUT_S, "the case is in the queue")
            queue = browser.get("/queue").text
            claimed = browser.post("/claim", data=form(queue, "/claim"), follow_redirects=True)
            case = f"/cases/{decision.decision_uid}"
            answer = form(claimed.text, f"{case}/verdict") | {"label": "photograph", "rationale": "grain fits"}
            assert browser.post(f"{case}/verdict", data=answer).headers["location"] == f"{case}?said=closed_pass"
            (update,) = read_all(kafka.bootstrap, [topics[Topic.PASS]], 1)
            wait_until(lambda: "records waiting" in browser.get("/dashboard").text, TIMEOUT_S, "the lag is shown")
            wait_until(lambda: "FNR of stage 1" in browser.get("/dashboard").text, TIMEOUT_S, "the misses are shown")
        told = orjson.loads(update.value() or b"")
        assert told["activity_name"] == "Update"
        assert told["unmapped"]["review"]["reviewer"] == "ana"
        member.process.send_signal(signal.SIGTERM)
        assert member.process.wait(TIMEOUT_S) == 0
    assert b"worker_drained" in member.log_path.read_bytes()


def address(log: Path) -> str:
    """The console says where it listens once it does."""

    def said() -> re.Match[bytes] | None:
        lines = [line for line in log.read_bytes().splitlines() if b"console_listening" in line]
        return re.search(rb'"port": ?(\d+)', lines[0]) if lines else None

    found = wait_until(said, TIMEOUT_S, "the console listens")
    assert found is not None
    return f"http://127.0.0.1:{int(found[1])}"
