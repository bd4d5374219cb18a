"""One fault at a time, on workers that start fast."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from pipeline.app import EXIT_DEAD_LETTER_LIMIT, EXIT_FENCED
from pipeline.streaming.failure import DeadLetterLimits
from pipeline.streaming.kafka.client import RecordReader, note_offset
from pipeline.streaming.kafka.config import GroupProtocol, KafkaSettings
from pipeline.streaming.kafka.embedded import EmbeddedKafka
from pipeline.streaming.transport import TopicPartition
from schemas.topics import Topic
from schemas.types import StageName
from tests.fault.inputs import environment, ingest, make_media, named_sends, publish
from tests.fault.processes import Strike, Verification, Worker, Workers
from tests.support.kafka import produce
from tests.support.waiting import wait_until

pytestmark = [pytest.mark.fault, pytest.mark.kafka, pytest.mark.timeout(150)]

START_S = 40.0
STALL_S = 15.0 + 10.0
"""transaction.timeout.ms, and the broker's interval of looking for transactions past it."""


@pytest.fixture(params=[GroupProtocol.CONSUMER])
def settings(
    request: pytest.FixtureRequest, kafka: EmbeddedKafka, prefix: str, topics: dict[Topic, str]
) -> KafkaSettings:
    """The shared broker under this test's prefix; parametrised where the classic protocol matters too."""
    return KafkaSettings(bootstrap=kafka.bootstrap, topic_prefix=prefix, group_protocol=request.param)


@pytest.fixture
def workers(settings: KafkaSettings, tmp_path: Path) -> Iterator[Workers]:
    media = tmp_path / "media"
    media.mkdir()
    with Workers(tmp_path, environment(settings, tmp_path, media, None)) as started:
        yield started


def judge(settings: KafkaSettings, home: Path, sent: dict[str, int]) -> Verification:
    return Verification(home, settings.bootstrap, settings.topic_prefix, sent)


def at_work(worker: Worker) -> None:
    """Until the worker has committed records; an early end shows its log."""

    def working() -> bool:
        assert worker.process.poll() is None or worker.struck, worker.tail()
        return worker.hooks["after_commit"] > 0

    wait_until(working, START_S, f"{worker.log_path.name} commits\n{worker.tail()}")


def struck(worker: Worker) -> float:
    """Until the strike has fallen; monotonic seconds."""
    wait_until(lambda: worker.struck, START_S, f"{worker.log_path.name} is struck\n{worker.tail()}")
    return time.monotonic()


def both_protocols() -> pytest.MarkDecorator:
    return pytest.mark.parametrize("settings", list(GroupProtocol), indirect=True)


@both_protocols()
def test_sigterm_under_load_drains_and_doubles_nothing(
    settings: KafkaSettings, workers: Workers, tmp_path: Path
) -> None:
    sends = named_sends(ingest(settings), [f"slow-{i:03d}" for i in range(250)])
    with judge(settings, tmp_path, sends.expected) as verification:
        first, second = (workers.start(StageName.CLASSIFIER, variant="direct") for _ in range(2))
        publish(settings, sends.records)
        at_work(first)
        at_work(second)
        started_s = time.monotonic()
        assert first.terminate() == 0, first.tail()
        took_s = time.monotonic() - started_s
        assert verification.missing > 0, "the load ended before the signal"
        workers.start(StageName.CLASSIFIER, variant="direct")
        verification.wait_complete(START_S)
        assert workers.drain() == [0, 0]
        code, verdict = verification.verdict()
    print(f"SIGTERM under load: left in {took_s:.2f} s")
    assert code == 0, verdict
    assert took_s < 30.0


@pytest.mark.parametrize("hook", ["before_commit", "offsets_sent"])
def test_a_zombie_writes_nothing(hook: str, settings: KafkaSettings, workers: Workers, tmp_path: Path) -> None:
    """Frozen with results in hand, or inside its transaction, until another member has done its work."""
    sends = named_sends(ingest(settings), [f"slow-{i:03d}" for i in range(150)])
    with judge(settings, tmp_path, sends.expected) as verification:
        publish(settings, sends.records)
        zombie = workers.start(StageName.CLASSIFIER, Strike(hook, 4, signal="SIGSTOP"), variant="direct")
        struck(zombie)
        heir = workers.start(StageName.CLASSIFIER, variant="direct")
        waited_s = verification.wait_complete(70.0)
        assert verification.missing == 0, heir.tail()
        zombie.process.send_signal(signal.SIGCONT)
        code_of_zombie = _end_of(zombie)
        assert heir.terminate() == 0, heir.tail()
        code, verdict = verification.verdict()
    print(f"zombie at {hook}: the heir was done after {waited_s:.1f} s, the zombie ended with {code_of_zombie}")
    assert code == 0, verdict
    assert verdict["aborted_records"] > 0 or hook == "before_commit"
    assert code_of_zombie in ((EXIT_FENCED,) if hook == "offsets_sent" else (0, EXIT_FENCED)), zombie.tail()


def _end_of(zombie: Worker) -> int:
    """Its exit code; one that joined again in good order is asked to leave."""
    try:
        return zombie.process.wait(8.0)
    except subprocess.TimeoutExpired:
        return zombie.terminate()


def test_how_long_readers_stall_after_a_kill_inside_a_transaction(
    settings: KafkaSettings, workers: Workers, tmp_path: Path
) -> None:
    sends = named_sends(ingest(settings), [f"slow-{i:03d}" for i in range(150)])
    with judge(settings, tmp_path, sends.expected) as verification:
        publish(settings, sends.records)
        victim = workers.start(StageName.CLASSIFIER, Strike("offsets_sent", 4), variant="direct")
        struck_s = struck(victim)
        heir = workers.start(StageName.CLASSIFIER, variant="direct")
        verification.wait_complete(70.0)
        stall_s = time.monotonic() - struck_s
        assert heir.terminate() == 0, heir.tail()
        code, verdict = verification.verdict()
    print(f"killed between the records and the commit: all visible {stall_s:.1f} s later, {verdict}")
    assert code == 0, verdict
    assert verdict["aborted_records"] > 0
    assert stall_s < STALL_S + 15.0, "the heir needs seconds to start and to do the work"


def test_a_record_that_kills_the_consumer_is_escalated_and_its_neighbours_are_decided(
    settings: KafkaSettings, workers: Workers, tmp_path: Path
) -> None:
    names = [f"media-{i:02d}" for i in range(12)]
    names.insert(6, "deadly-1")
    sends = named_sends(ingest(settings), names)
    with judge(settings, tmp_path, sends.expected) as verification:
        publish(settings, sends.records)
        lives = 0
        while True:
            lives += 1
            worker = workers.start(StageName.CLASSIFIER, variant="direct")
            wait_until(
                lambda w=worker: w.process.poll() is not None or not verification.missing,  # type: ignore[misc]
                60.0,
                f"an end of life {lives}\n{worker.tail()}",
            )
            if worker.process.poll() is None:
                break
            assert worker.process.poll() == -9, worker.tail()
            assert lives <= 4
        assert worker.terminate() == 0
        code, verdict = verification.verdict()
    print(f"a record that kills its consumer: escalated in life {lives}")
    assert code == 0, verdict
    assert verdict["reasons"] == {"uncertain": 12, "analysis_crash": 1}
    assert lives <= 4


def test_a_record_that_kills_the_stage_process_is_escalated_and_its_neighbours_are_decided(
    settings: KafkaSettings, workers: Workers, tmp_path: Path
) -> None:
    media = make_media(tmp_path / "media")
    names = [f"media-{i}" for i in range(10)]
    names[4:4] = ["deadly-1", "deadly-2"]
    sends = named_sends(ingest(settings), names, media[1])
    with judge(settings, tmp_path, sends.expected) as verification:
        publish(settings, sends.records)
        workers.start(StageName.CLASSIFIER)
        spectral = workers.start(StageName.SPECTRAL, variant="deadly")
        workers.start(StageName.MLLM)
        verification.wait_complete(80.0)
        assert workers.drain() == [0, 0, 0], spectral.tail()
        code, verdict = verification.verdict()
    assert code == 0, verdict
    assert verdict["reasons"]["analysis_crash"] == 2, verdict
    assert verdict["by_topic"]["decisions.escalate"] >= 2


def test_past_the_dead_letter_limit_the_worker_stops_until_a_person_accepts(
    settings: KafkaSettings, workers: Workers
) -> None:
    """Only a number below the limit was let through before the stop, with its offsets; nothing past it."""
    topic, bad = f"{settings.topic_prefix}.{Topic.SUSPECT}", 100
    tp = TopicPartition(topic, 0)
    produce(settings.bootstrap, topic, [b"no suspect media"] * bad)
    worker = workers.start(StageName.SPECTRAL)
    assert worker.process.wait(START_S) == EXIT_DEAD_LETTER_LIMIT, worker.tail()
    assert "mediasieve deadletter accept --stage spectral" in worker.log
    committed = note_offset(settings, StageName.SPECTRAL.value, tp, None)
    assert committed is not None
    assert committed.offset == _letters(settings) < DeadLetterLimits().max_consecutive

    command = [sys.executable, "-c", "from workers.cli import main; main()", "deadletter", "accept"]
    where = ["--stage", "spectral", "--topic", topic, "--partition", "0", "--until", str(bad)]
    environ = {**os.environ, **workers.environment}
    done = subprocess.run([*command, *where], env=environ, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    worker = workers.start(StageName.SPECTRAL)
    wait_until(lambda: _letters(settings) >= bad, START_S, f"{bad} dead letters")
    assert worker.terminate() == 0, worker.tail()
    assert _letters(settings) == bad
    committed = note_offset(settings, StageName.SPECTRAL.value, tp, None)
    assert committed is not None
    assert committed.offset == bad


def _letters(settings: KafkaSettings) -> int:
    with RecordReader(settings, [f"{settings.topic_prefix}.{Topic.DEAD_LETTER}"]) as reader:
        return sum(1 for _ in reader.to_end())
