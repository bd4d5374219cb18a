"""A real fleet on an embedded broker of this machine, under a load that does not wait for answers.

All on one host: broker, three stages, a model server of fixed latency, and the process that sends and reads. What
each takes of the cores is told apart by the kernel's accounting.
"""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from uuid import uuid4

import httpx
import numpy as np
import orjson
from prometheus_client.parser import text_string_to_metric_families

from pipeline.capacity.distribution import Distribution
from pipeline.capacity.observed import LoadFailed, Observed, StageObserved
from pipeline.settings import load_settings
from pipeline.streaming.codec import TopicNames
from pipeline.streaming.kafka.admin import TopicAdmin
from pipeline.streaming.kafka.client import RecordReader, RecordWriter
from pipeline.streaming.kafka.config import KafkaSettings
from pipeline.streaming.kafka.embedded import EmbeddedKafka
from pipeline.streaming.transport import OutRecord
from schemas.decision import Decision
from schemas.envelope import new_trace
from schemas.ocsf import machine_decision
from schemas.topics import DECISION_TOPICS, TOPICS, Topic
from schemas.types import StageName
from workers.capacity_media import MediaDraw
from workers.capacity_processes import machine_cpu_s, own_cpu_s, session_cpu_s
from workers.fleet import Fleet
from workers.mllm_bench_stub import MODEL, running_stub
from workers.settings import Settings

PARTITIONS = 4
WARM_UP_S = 15.0
_IDLE_S = 5.0
_DRAIN_S = 240.0


@dataclass(frozen=True, slots=True)
class Load:
    """References as a Poisson process. The window begins after `warm_up_s`."""

    rate_per_s: float
    seconds: float
    warm_up_s: float
    seed: int


@dataclass(frozen=True, slots=True)
class SiteSettings:
    """The model server is a stub that answers after `model_latency_s`; `model_places` questions are asked at once."""

    model_latency_s: float = 0.4
    model_places: int = 8
    generated_share: float = 0.2


@dataclass(frozen=True, slots=True)
class _Cpu:
    """Processor seconds so far."""

    stages: dict[StageName, float]
    broker: float
    driver: float
    machine: float
    at_s: float


@contextmanager
def running_site(home: Path, settings: SiteSettings) -> Iterator[Site]:
    """Broker, topics, fleet and model stub; all end with the block, the data below `home` stays."""
    with ExitStack() as stack:
        broker = stack.enter_context(EmbeddedKafka(data_dir=home / "kafka"))
        port = stack.enter_context(running_stub(settings.model_latency_s))
        kafka = load_settings(Settings).kafka.model_copy(update={"bootstrap": broker.bootstrap})
        TopicAdmin(kafka.common()).apply(TOPICS, PARTITIONS, 1, kafka.topic_prefix)
        environment = _environment(home, kafka, port, settings.model_places)
        fleet = stack.enter_context(Fleet(dict.fromkeys(StageName, 1), environment, home / "logs"))
        fleet.wait_ready()
        yield Site(home, kafka, fleet, broker, settings.generated_share)


class Site:
    """Runs one load after the other."""

    def __init__(
        self, home: Path, kafka: KafkaSettings, fleet: Fleet, broker: EmbeddedKafka, generated_share: float
    ) -> None:
        """Of `running_site`."""
        self._home, self._kafka, self._fleet, self._broker = home, kafka, fleet, broker
        self._share = generated_share
        self.sent = 0
        self.media_bytes = 0.0
        self._topics = [TopicNames(kafka.topic_prefix).physical(t) for t in DECISION_TOPICS.values()]

    def drive(self, load: Load, *, drain: bool = True) -> Observed:
        """Send for `load.seconds` and watch.

        Args:
            load: what is sent.
            drain: afterwards wait until all is answered, so that the next run begins with an empty fleet.

        Raises:
            FleetFailed: a worker ended.
            LoadFailed: nothing was answered in the window, or the fleet did not drain.
        """
        idle_from = self._cpu()
        time.sleep(_IDLE_S)
        idle_to = self._cpu()
        idle = {s: (idle_to.stages[s] - idle_from.stages[s]) / (idle_to.at_s - idle_from.at_s) for s in StageName}
        media = MediaDraw(self._home / "media", load.seed, self._share)
        self.media_bytes = media.mean_bytes
        run = _Run(load, media, self._kafka)
        with RecordReader(self._kafka, self._topics, from_end=True) as reader:
            _until_assigned(reader)
            before, after = self._send(run, reader)
            self.sent += run.sent
            if drain:
                self._drain(run, reader)
        if not run.answered_s:
            raise LoadFailed(f"no reference was answered in {load.seconds:g} s; see {self._home / 'logs'}")
        return run.observed(before, after, idle, {s: self._commit_s(s) for s in StageName})

    def topic_bytes(self, topic: Topic) -> int:
        """Size of the topic's segments on the broker's disk."""
        name = TopicNames(self._kafka.topic_prefix).physical(topic)
        return sum(f.stat().st_size for f in self._broker.data_dir.glob(f"broker-*/data/{name}-[0-9]*/*.log"))

    def stored_bytes(self) -> int:
        """Size of everything in the content store."""
        return sum(f.stat().st_size for f in (self._home / "store").rglob("*") if f.is_file())

    def _send(self, run: _Run, reader: RecordReader) -> tuple[_Cpu, _Cpu]:
        before = None
        started_s = time.monotonic()
        while (now_s := time.monotonic() - started_s) < run.load.seconds:
            if before is None and now_s >= run.load.warm_up_s:
                before = self._cpu()
            run.turn(now_s, time.time())
            self._read(run, reader, started_s)
        after = self._cpu()
        self._fleet.check()
        return before or after, after

    def _drain(self, run: _Run, reader: RecordReader) -> None:
        started_s = time.monotonic()
        while run.waiting:
            self._fleet.check()
            self._read(run, reader, started_s - run.load.seconds)
            if time.monotonic() - started_s > _DRAIN_S:
                raise LoadFailed(f"{len(run.waiting)} references without an answer after {_DRAIN_S:g} s more")

    def _read(self, run: _Run, reader: RecordReader, started_s: float) -> None:
        record = reader.poll(0.005)
        while record is not None:
            decision = machine_decision(record.value)
            if decision is not None:
                run.take(decision, time.monotonic() - started_s)
            record = reader.poll(0.0)

    def _cpu(self) -> _Cpu:
        stages = {s: session_cpu_s([m.process.pid for m in self._fleet.members if m.stage == s]) for s in StageName}
        return _Cpu(stages, session_cpu_s(self._broker.pids), own_cpu_s(), machine_cpu_s(), time.monotonic())

    def _commit_s(self, stage: StageName) -> float:
        """Mean of all commits of the stage's members so far, from their own histograms."""
        total = count = 0.0
        for member in self._fleet.members:
            if member.stage == stage:
                text = httpx.get(f"http://127.0.0.1:{member.port}/metrics", timeout=10.0).text
                found = {s.name: s.value for f in text_string_to_metric_families(text) for s in f.samples}
                total += found["mediasieve_commit_seconds_sum"]
                count += found["mediasieve_commit_seconds_count"]
        return total / count if count else 0.0


class _Run:
    """The state of one load."""

    def __init__(self, load: Load, media: MediaDraw, kafka: KafkaSettings) -> None:
        self.load = load
        self._media = media
        self._writer = RecordWriter(kafka)
        self._topic = TopicNames(kafka.topic_prefix).physical(Topic.INGEST)
        self._rng = np.random.default_rng(load.seed)
        self._due_s = float(self._rng.exponential(1.0 / load.rate_per_s))
        self.waiting: dict[str, float] = {}
        self.answered_s: list[float] = []
        self.sent = 0
        self._sent_in_window = 0
        self._in_system: list[int] = []
        self._latency: list[float] = []
        self._worked: dict[StageName, list[float]] = {s: [] for s in StageName}
        self._waited: dict[StageName, list[float]] = {s: [] for s in StageName}

    def turn(self, now_s: float, wall_s: float) -> None:
        """Send what is due by now, at its own time, however late answers are."""
        while self._due_s <= now_s:
            media_id = f"load-{uuid4().hex}"
            self.waiting[media_id] = self._due_s
            self.sent += 1
            self._sent_in_window += self._due_s >= self.load.warm_up_s
            value = orjson.dumps({"uri": self._media.next(), "media_id": media_id, "source": "capacity"})
            trace = new_trace(media_id).format().encode()
            self._writer.write(OutRecord(self._topic, media_id.encode(), value, (("traceparent", trace),)))
            self._due_s += float(self._rng.exponential(1.0 / self.load.rate_per_s))
        self._writer.flush()
        while len(self._in_system) < int(now_s):
            self._in_system.append(len(self.waiting))

    def take(self, decision: Decision, now_s: float) -> None:
        """One answer; those of other runs are left out."""
        due_s = self.waiting.pop(decision.admission.media_id, None)
        if due_s is None or not self.load.warm_up_s <= now_s < self.load.seconds:
            return
        self.answered_s.append(now_s)
        self._latency.append(now_s - due_s)
        for timing in decision.timings:
            self._worked[timing.stage].append(timing.worked_ms / 1e3)
            self._waited[timing.stage].append(timing.waited_ms / 1e3)

    def observed(
        self, before: _Cpu, after: _Cpu, idle: dict[StageName, float], commit_s: dict[StageName, float]
    ) -> Observed:
        """All that was seen in the window."""
        stages = {
            s: StageObserved(
                items=len(self._worked[s]),
                worked=Distribution.of(self._worked[s]) if self._worked[s] else None,
                waited=Distribution.of(self._waited[s]) if self._waited[s] else None,
                cpu_s=after.stages[s] - before.stages[s],
                idle_cores=idle[s],
                commit_s=commit_s[s],
            )
            for s in StageName
        }
        broker, driver = after.broker - before.broker, after.driver - before.driver
        ours = sum(s.cpu_s for s in stages.values()) + broker + driver
        return Observed(
            rate_per_s=self.load.rate_per_s,
            seed=self.load.seed,
            seconds=self.load.seconds,
            warm_up_s=self.load.warm_up_s,
            sent=self._sent_in_window,
            answered=len(self.answered_s),
            visits={s: len(self._worked[s]) for s in StageName},
            stages=stages,
            latency=Distribution.of(self._latency) if self._latency else None,
            in_system=tuple(self._in_system),
            broker_cpu_s=broker,
            driver_cpu_s=driver,
            other_cores=max(0.0, after.machine - before.machine - ours) / (after.at_s - before.at_s),
            cores=os.cpu_count() or 1,
        )


def _until_assigned(reader: RecordReader) -> None:
    """So that no answer is missed: a reader that starts at the end must know where that is first."""
    for _ in reader.to_end():
        pass


def _environment(home: Path, kafka: KafkaSettings, stub_port: int, places: int) -> dict[str, str]:
    return {
        "MEDIASIEVE_KAFKA__BOOTSTRAP": kafka.bootstrap,
        "MEDIASIEVE_KAFKA__TOPIC_PREFIX": kafka.topic_prefix,
        "MEDIASIEVE_STORE__URL": (home / "store").as_uri(),
        "MEDIASIEVE_CLASSIFIER__FETCH__FILE_ROOTS": orjson.dumps([str(home / "media")]).decode(),
        "MEDIASIEVE_CLASSIFIER__AUDIT_SAMPLE__SHARE": "0",
        "MEDIASIEVE_MLLM": orjson.dumps(
            {
                "backend": "openai",
                "passes": 1,
                "concurrency": places,
                "prepare_ahead": 0,  # so that a slot is a place at the server, and its time the server's
                "openai": {"base_url": f"http://127.0.0.1:{stub_port}/v1", "model": MODEL},
            }
        ).decode(),
    }
