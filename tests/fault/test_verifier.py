"""The verifier says which transaction it waited for in vain, and the autopsy who wrote it."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import orjson
import pytest
from confluent_kafka import Producer, TopicPartition

from pipeline.streaming.kafka.config import KafkaSettings
from pipeline.streaming.kafka.embedded import EmbeddedKafka
from schemas.topics import Topic
from schemas.types import StageName
from tests.fault import verifier
from tests.fault.autopsy import autopsy
from tests.fault.processes import Worker

pytestmark = [pytest.mark.fault, pytest.mark.kafka]

DECIDED = '{"event":"decision","media_id":"media-1"}'
ABORTED = '{"event":"commit_failed","aborts":1}'
SKIPPED = "INFO Couldn't find leader endpoint for partitions Set(p-2), hence can be skipped"


def open_one(kafka: EmbeddedKafka, prefix: str, topic: str) -> Producer:
    """A record in partition 2 that nobody commits."""
    settings = KafkaSettings(bootstrap=kafka.bootstrap, topic_prefix=prefix)
    producer = Producer(settings.transactional_producer(prefix))
    producer.init_transactions(60.0)
    producer.begin_transaction()
    producer.produce(topic, b"{}", b"media-1", partition=2, headers={"ce_source": b"/mediasieve/classifier"})
    assert producer.flush(30.0) == 0
    return producer


def test_an_open_transaction_is_named(
    kafka: EmbeddedKafka,
    prefix: str,
    topics: dict[Topic, str],
    monkeypatch: pytest.MonkeyPatch,
    capsysbinary: pytest.CaptureFixture[bytes],
) -> None:
    topic = topics[Topic.PASS]
    producer = open_one(kafka, prefix, topic)
    monkeypatch.setattr(verifier, "OPEN_TRANSACTION_TIMEOUT_S", 0.5)
    partitions = [TopicPartition(topic, p) for p in range(4)]
    with pytest.raises(SystemExit, match="a transaction stayed open"):
        verifier.settled_ends(kafka.bootstrap, partitions)
    (found,) = orjson.loads(capsysbinary.readouterr().out)["open"]
    (record,) = found.pop("records")
    assert found == {"topic": topic, "partition": 2, "stable_end": 0, "end": 1}
    assert record["key"] == "media-1"
    assert record["headers"] == {"ce_source": "/mediasieve/classifier"}
    producer.abort_transaction(30.0)


def test_the_autopsy_names_the_worker_and_what_the_coordinator_said(tmp_path: Path) -> None:
    for name, lines in {"00-mllm": [], "01-classifier": [DECIDED, ABORTED]}.items():
        (tmp_path / f"{name}.log").write_text("\n".join(["{}", *lines]))
    (tmp_path / "01-classifier.hooks").write_text("produced\noffsets_sent\n")
    (tmp_path / "server.log").write_text(f"a line\n{SKIPPED}\n")
    ended = subprocess.Popen([sys.executable, "-c", ""])
    ended.wait()
    workers = [
        Worker(StageName.MLLM, ended, tmp_path / "00-mllm.hooks", tmp_path / "00-mllm.log", None),
        Worker(StageName.CLASSIFIER, ended, tmp_path / "01-classifier.hooks", tmp_path / "01-classifier.log", None),
    ]
    where = {"topic": "p", "partition": 2, "records": [{"key": "media-1"}]}
    said = autopsy([where], workers, [tmp_path / "server.log"]).splitlines()
    assert said[0] == f"open: {where}"
    assert said[1] == f"01-classifier.log, pid {ended.pid}, exit 0, last hooks ['produced', 'offsets_sent']:"
    assert [line.strip() for line in said[2:4]] == [DECIDED, ABORTED]
    assert said[-1].strip() == SKIPPED
    assert len(said) == 6
