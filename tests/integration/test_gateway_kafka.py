"""The gateway as a process on a real broker: 202 means that Kafka has it, decisions come back, nothing is forgotten."""

from __future__ import annotations

import hashlib
import os
import signal
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path

import orjson
import pytest

from mediasieve.client import Client, GatewayProblem, MediaReference, MediaState, Retry
from pipeline.media.content_store import ContentStore
from pipeline.settings import PREFIX
from pipeline.streaming.codec import TopicNames
from pipeline.streaming.kafka.acknowledged import AcknowledgedWriter
from pipeline.streaming.kafka.config import KafkaSettings
from pipeline.streaming.kafka.embedded import EmbeddedKafka
from pipeline.streaming.transport import NotAcknowledged, OutRecord
from schemas.media import DEFAULT_TENANT
from schemas.ocsf import encode_finding, finding_from_decision
from schemas.topics import Topic
from schemas.types import StageName
from schemas.wire import decode
from tests.support.gateway import PNG, tenant_decision
from tests.support.kafka import PARTITIONS, TIMEOUT_S, produce, read_all
from tests.support.waiting import wait_until
from workers.fleet import Fleet
from workers.gateway.measuring import GroupProgress
from workers.names import WorkerName
from workers.web.api_keys import ApiKeys
from workers.web.principal import Role

URI = "https://example.org/a.png"
PATIENT = Retry(attempts=1)


@contextmanager
def running(home: Path, environment: dict[str, str], monkeypatch: pytest.MonkeyPatch) -> Iterator[tuple[str, Fleet]]:
    """A gateway process and its URL, which is in the log."""
    for name in [n for n in os.environ if n.startswith(PREFIX)]:
        monkeypatch.delenv(name)
    logs = home / f"logs-{len(list(home.glob('logs-*')))}"
    with Fleet({WorkerName.GATEWAY: 1}, environment, logs) as fleet:
        fleet.wait_ready()
        lines = [orjson.loads(line) for line in (logs / "gateway-0.log").read_bytes().splitlines()]
        (port,) = [line["port"] for line in lines if line["event"] == "gateway_listening"]
        yield f"http://127.0.0.1:{port}", fleet


@pytest.fixture
def environment(kafka: EmbeddedKafka, prefix: str, tmp_path: Path) -> dict[str, str]:
    return {
        "MEDIASIEVE_KAFKA__BOOTSTRAP": kafka.bootstrap,
        "MEDIASIEVE_KAFKA__TOPIC_PREFIX": prefix,
        "MEDIASIEVE_STORE__URL": (tmp_path / "store").as_uri(),
        "MEDIASIEVE_DATABASE__URL": f"sqlite:///{tmp_path}/web.sqlite",
        "MEDIASIEVE_ACCESS__API_KEYS": str(tmp_path / "keys.json"),
    }


def test_from_submission_to_decision_over_a_restart(
    kafka: EmbeddedKafka,
    topics: dict[Topic, str],
    environment: dict[str, str],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    _, key = ApiKeys(tmp_path / "keys.json").create(
        tenants=frozenset({"acme"}), roles=frozenset({Role.SUBMIT, Role.READ}), now=datetime.now(UTC)
    )
    with running(tmp_path, environment, monkeypatch) as (url, fleet), Client(url, key, retry=PATIENT) as gateway:
        first = gateway.submit(MediaReference(uri=URI), idempotency_key="k")
        uploaded = gateway.upload(PNG, media_id="up")
        batch = gateway.submit_batch([MediaReference(uri=f"https://example.org/{i}.png") for i in range(20)])
        assert batch.accepted == 20
        records = read_all(kafka.bootstrap, [topics[Topic.INGEST]], 22)
        references = {r.media_id: r for r in (decode(MediaReference, m.value() or b"") for m in records)}
        assert len(references) == 22
        sha256 = hashlib.sha256(PNG).hexdigest()
        assert references[uploaded.media_id].uri == f"content:{sha256}"
        assert ContentStore(environment["MEDIASIEVE_STORE__URL"]).get("acme", sha256) == PNG

        decisions = gateway.decisions(after=0)
        for partition, media_id in enumerate((first.media_id, "up")):
            finding = encode_finding(finding_from_decision(tenant_decision(media_id, "block", "acme")))
            produce(kafka.bootstrap, topics[Topic.BLOCK], [finding], partition)
        assert {next(decisions).media_id for _ in range(2)} == {first.media_id, "up"}
        assert gateway.status(first.media_id).state is MediaState.DECIDED
        decisions.close()

        (member,) = fleet.members
        member.process.send_signal(signal.SIGTERM)
        assert member.process.wait(TIMEOUT_S) == 0
        assert b"worker_drained" in member.log_path.read_bytes()

    with running(tmp_path, environment, monkeypatch) as (url, _), Client(url, key, retry=PATIENT) as gateway:
        assert gateway.submit(MediaReference(uri=URI), idempotency_key="k") == first
        with pytest.raises(GatewayProblem) as caught:
            gateway.submit(MediaReference(uri="https://example.org/other.png"), idempotency_key="k")
        assert caught.value.problem.status == 422
        assert gateway.status(first.media_id).state is MediaState.DECIDED
        gateway.submit(MediaReference(uri=URI, media_id="last"))
    every = read_all(kafka.bootstrap, [topics[Topic.INGEST]], 23)
    media_ids = [decode(MediaReference, m.value() or b"").media_id for m in every]
    assert len(set(media_ids)) == 23, "the repetition was not sent again"


def test_an_open_stream_does_not_hold_up_the_drain(
    topics: dict[Topic, str], environment: dict[str, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    _, key = ApiKeys(tmp_path / "keys.json").create(tenants=None, roles=frozenset({Role.READ}), now=datetime.now(UTC))
    environment = environment | {"MEDIASIEVE_GATEWAY__DRAIN_S": "3600"}
    with running(tmp_path, environment, monkeypatch) as (url, fleet), Client(url, key, retry=PATIENT) as gateway:
        with gateway._http.stream("GET", f"/v1/decisions/stream?tenant={DEFAULT_TENANT}", timeout=TIMEOUT_S) as answer:
            lines = answer.iter_lines()
            assert next(lines).startswith(": decisions of")
            (member,) = fleet.members
            member.process.send_signal(signal.SIGTERM)
            assert [line for line in lines if line.startswith("event")] == []
        assert member.process.wait(TIMEOUT_S) == 0


def test_a_writer_without_a_broker_says_so(topics: dict[Topic, str]) -> None:
    writer = AcknowledgedWriter(KafkaSettings(bootstrap="127.0.0.1:1"), ack_timeout_s=0.2, queue_records=10)
    with pytest.raises(NotAcknowledged):
        writer.send(OutRecord("media.ingest", None, b"{}")).result(TIMEOUT_S)
    assert writer.close(TIMEOUT_S) == 0


def test_the_progress_of_a_group_is_asked_of_the_broker(
    kafka: EmbeddedKafka, topics: dict[Topic, str], prefix: str
) -> None:
    settings = KafkaSettings(bootstrap=kafka.bootstrap, topic_prefix=prefix)
    progress = GroupProgress(settings)
    assert progress(StageName.CLASSIFIER).unread == 0
    writer = AcknowledgedWriter(settings, ack_timeout_s=TIMEOUT_S, queue_records=100)
    topic = TopicNames(prefix).physical(Topic.INGEST)
    futures = [writer.send(OutRecord(topic, str(i).encode(), b"{}")) for i in range(3 * PARTITIONS)]
    places = {future.result(TIMEOUT_S) for future in futures}
    assert len(places) == 3 * PARTITIONS, "every record has a place of its own"
    assert writer.close(TIMEOUT_S) == 0
    wait_until(lambda: progress(StageName.CLASSIFIER).unread == 3 * PARTITIONS, TIMEOUT_S, "the ends")
    assert progress(StageName.CLASSIFIER).read == 0


def test_a_fleet_that_stands_still_is_told_as_behind(
    topics: dict[Topic, str], environment: dict[str, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    _, key = ApiKeys(tmp_path / "keys.json").create(
        tenants=frozenset({"acme"}), roles=frozenset({Role.SUBMIT}), now=datetime.now(UTC)
    )
    environment = environment | {"MEDIASIEVE_GATEWAY__LAG_EVERY_S": "0.2", "MEDIASIEVE_GATEWAY__MAX_LAG_S": "0.5"}
    with running(tmp_path, environment, monkeypatch) as (url, _), Client(url, key, retry=PATIENT) as gateway:

        def refused() -> GatewayProblem | None:
            try:
                gateway.submit(MediaReference(uri=URI))
            except GatewayProblem as problem:
                return problem
            return None

        problem = wait_until(refused, TIMEOUT_S, "nobody reads, so it is refused")
        assert problem.problem.type.endswith("/behind"), problem
        assert "classifier" in problem.problem.detail
        assert problem.retry_after_s is not None
        assert problem.retry_after_s >= 1
