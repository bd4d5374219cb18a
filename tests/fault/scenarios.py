"""One fault at a time, on workers that start fast. Each scenario asserts, and returns what it measured."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path

from pipeline.exit_codes import EXIT_DEAD_LETTER_LIMIT, EXIT_FENCED
from pipeline.streaming.kafka.client import RecordReader, note_offset
from pipeline.streaming.kafka.config import GroupProtocol, KafkaSettings
from pipeline.streaming.transport import TopicPartition
from schemas.topics import Topic
from schemas.types import StageName
from tests.fault.inputs import ingest, make_media, named_sends, publish
from tests.fault.processes import START_S, Strike, Verification, Worker, Workers
from tests.support.kafka import produce
from tests.support.waiting import wait_until

STALL_S = 15.0 + 10.0
"""transaction.timeout.ms, and the broker's interval of looking for transactions past it."""

LASTING = 1000
"""Records that keep one direct worker busy for 20 s: until another one has started late, worked and left."""

REJOIN_S = 8.0
"""So long a zombie is given to be fenced; one that joined its group again stays, and is asked to leave."""

MAX_LIVES = 4


@dataclass(frozen=True, slots=True)
class Site:
    """Topics, a folder and processes of one scenario."""

    settings: KafkaSettings
    home: Path
    workers: Workers

    def judge(self, sent: dict[str, int]) -> Verification:
        return Verification(self.home, self.settings.bootstrap, self.settings.topic_prefix, sent)

    def direct(self, strike: Strike | None = None) -> Worker:
        """A worker that decides without looking."""
        return self.workers.start(StageName.CLASSIFIER, strike, variant="direct")


def sigterm_under_load(site: Site) -> str:
    """It drains, and nothing is doubled."""
    sends = named_sends(ingest(site.settings), [f"slow-{i:03d}" for i in range(LASTING)])
    with site.judge(sends.expected) as verification:
        first, second = site.direct(), site.direct()
        publish(site.settings, sends.records)
        _at_work(first)
        started_s = time.monotonic()
        assert first.terminate() == 0, first.tail()
        took_s = time.monotonic() - started_s
        assert verification.missing > 0, "the load ended before the signal"
        site.direct()
        verification.wait_complete(START_S)
        assert site.workers.drain() == [0, 0], second.tail()
        code, verdict = verification.verdict()
    assert code == 0, verdict
    assert took_s < 30.0
    return f"left in {took_s:.2f} s under load"


def zombie_before_its_commit(site: Site) -> str:
    """Frozen with results in hand until another member has decided them."""
    code, said = _zombie(site, "before_commit")
    assert code in (0, EXIT_FENCED)
    return said


def zombie_inside_its_transaction(site: Site) -> str:
    """Frozen between its records and its commit, past the transaction's timeout."""
    code, said = _zombie(site, "offsets_sent")
    assert code == EXIT_FENCED
    return said


def _zombie(site: Site, hook: str) -> tuple[int, str]:
    sends = named_sends(ingest(site.settings), [f"slow-{i:03d}" for i in range(150)])
    with site.judge(sends.expected) as verification:
        publish(site.settings, sends.records)
        zombie = site.direct(Strike(hook, 4, signal="SIGSTOP"))
        _struck(zombie)
        heir = site.direct()
        waited_s = verification.wait_complete(START_S)
        assert verification.missing == 0, heir.tail()
        zombie.process.send_signal(signal.SIGCONT)
        ended_with = _end_of(zombie, REJOIN_S if hook == "before_commit" else START_S)
        assert heir.terminate() == 0, heir.tail()
        code, verdict = verification.verdict()
    assert code == 0, verdict
    assert verdict["aborted_records"] > 0 or hook == "before_commit"
    return ended_with, f"the heir was done {waited_s:.1f} s after the freeze, the zombie ended with {ended_with}"


def killed_inside_a_transaction(site: Site) -> str:
    """How long readers and heirs wait for the open transaction of a dead worker."""
    sends = named_sends(ingest(site.settings), [f"slow-{i:03d}" for i in range(150)])
    with site.judge(sends.expected) as verification:
        publish(site.settings, sends.records)
        struck_s = _struck(site.direct(Strike("offsets_sent", 4)))
        heir = site.direct()
        verification.wait_complete(START_S)
        stall_s = time.monotonic() - struck_s
        assert heir.terminate() == 0, heir.tail()
        code, verdict = verification.verdict()
    assert code == 0, verdict
    assert verdict["aborted_records"] > 0
    # Not `stall_s`, which has the start and the work of the heir in it.
    assert verdict["longest_silence_s"] < STALL_S + 30.0, "less than the client's own time-out of 60 s would make it"
    return f"all visible {stall_s:.1f} s after the kill, longest silence of the reader {verdict['longest_silence_s']} s"


def record_that_kills_the_consumer(site: Site) -> str:
    """It is escalated after some lives, and its neighbours are decided."""
    names = [f"media-{i:02d}" for i in range(12)]
    names.insert(6, "deadly-1")
    sends = named_sends(ingest(site.settings), names)
    with site.judge(sends.expected) as verification:
        publish(site.settings, sends.records)
        for _ in range(MAX_LIVES):
            worker = site.direct()
            _ended_or_complete(worker, verification)
            if worker.process.poll() is None:
                break
            assert worker.process.poll() == -signal.SIGKILL, worker.tail()
        assert worker.process.poll() is None, f"not escalated in {MAX_LIVES} lives"
        assert worker.terminate() == 0
        code, verdict = verification.verdict()
    assert code == 0, verdict
    assert verdict["reasons"] == {"uncertain": 12, "analysis_crash": 1}
    return f"escalated in life {len(site.workers.started)}"


def record_that_kills_the_stage_process(site: Site) -> str:
    """It is escalated by the same worker, and its neighbours are decided."""
    media = make_media(site.home / "media")
    names = [f"media-{i}" for i in range(10)]
    names[4:4] = ["deadly-1", "deadly-2"]
    sends = named_sends(ingest(site.settings), names, media[1])
    with site.judge(sends.expected) as verification:
        publish(site.settings, sends.records)
        site.workers.start(StageName.CLASSIFIER)
        spectral = site.workers.start(StageName.SPECTRAL, variant="deadly")
        site.workers.start(StageName.MLLM)
        verification.wait_complete(2 * START_S)  # four deaths: the stage's process starts five times
        assert site.workers.drain() == [0, 0, 0], spectral.tail()
        code, verdict = verification.verdict()
    assert code == 0, verdict
    assert verdict["reasons"]["analysis_crash"] == 2, verdict
    return f"2 of {len(names)} escalated, {spectral.log.count('executor_process_died')} deaths of the stage's process"


def too_many_dead_letters(site: Site) -> str:
    """The worker stops with nothing committed, at each start, until a person accepts the rejects."""
    topic, bad = f"{site.settings.topic_prefix}.{Topic.SUSPECT}", 100
    tp = TopicPartition(topic, 0)
    produce(site.settings.bootstrap, topic, [b"no suspect media"] * bad)
    worker = site.workers.start(StageName.SPECTRAL)
    assert worker.process.wait(START_S) == EXIT_DEAD_LETTER_LIMIT, worker.tail()
    assert "mediasieve deadletter accept --stage spectral" in worker.log
    assert site.workers.start(StageName.SPECTRAL).process.wait(START_S) == EXIT_DEAD_LETTER_LIMIT
    assert _letters(site) == 0
    assert _committed(site, tp) <= 0

    command = [sys.executable, "-c", "from workers.cli import main; main()", "deadletter", "accept"]
    where = ["--stage", "spectral", "--topic", topic, "--partition", "0", "--until", str(bad)]
    environ = {**os.environ, **site.workers.environment}
    done = subprocess.run([*command, *where], env=environ, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    worker = site.workers.start(StageName.SPECTRAL)
    wait_until(lambda: _letters(site) >= bad, START_S, f"{bad} dead letters")
    assert worker.terminate() == 0, worker.tail()
    assert _letters(site) == bad
    assert _committed(site, tp) == bad
    return f"stopped twice with nothing committed, all {bad} went out after `accept`"


SCENARIOS = {
    "zombie_inside_its_transaction": zombie_inside_its_transaction,
    "killed_inside_a_transaction": killed_inside_a_transaction,
    "zombie_before_its_commit": zombie_before_its_commit,
    "record_that_kills_the_consumer": record_that_kills_the_consumer,
    "record_that_kills_the_stage_process": record_that_kills_the_stage_process,
    "sigterm_under_load": sigterm_under_load,
    "sigterm_under_load_classic": sigterm_under_load,
    "zombie_before_its_commit_classic": zombie_before_its_commit,
    "too_many_dead_letters": too_many_dead_letters,
}
"""By name, those that wait longest first; `_classic` runs under the older group protocol."""


def protocol_of(name: str) -> GroupProtocol:
    """The group protocol of a scenario."""
    return GroupProtocol.CLASSIC if name.endswith("_classic") else GroupProtocol.CONSUMER


def _at_work(worker: Worker) -> None:
    """Until the worker has committed records; an early end shows its log."""

    def working() -> bool:
        assert worker.process.poll() is None, worker.tail()
        return worker.hooks["after_commit"] > 0

    wait_until(working, START_S, f"{worker.log_path.name} commits")


def _struck(worker: Worker) -> float:
    """Until the strike has fallen; monotonic seconds."""
    wait_until(lambda: worker.struck, START_S, f"{worker.log_path.name} is struck")
    return time.monotonic()


def _ended_or_complete(worker: Worker, verification: Verification) -> None:
    def over() -> bool:
        return worker.process.poll() is not None or not verification.missing

    wait_until(over, START_S, f"the end of {worker.log_path.name}, or of the work")


def _end_of(zombie: Worker, patience_s: float) -> int:
    """Its exit code; one that joined again in good order is asked to leave."""
    try:
        return zombie.process.wait(patience_s)
    except subprocess.TimeoutExpired:
        return zombie.terminate()


def _letters(site: Site) -> int:
    with RecordReader(site.settings, [f"{site.settings.topic_prefix}.{Topic.DEAD_LETTER}"]) as reader:
        return sum(1 for _ in reader.to_end())


def _committed(site: Site, tp: TopicPartition) -> int:
    """0 where the group has committed nothing yet."""
    point = note_offset(site.settings, StageName.SPECTRAL.value, tp, None)
    return point.offset if point else 0
