"""One runbook's brokers, workers, producer and shell; prints the transcript."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import time
from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import ExitStack, chdir, contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import orjson

from pipeline.detection.bundle import MANIFEST_FILE, seal
from pipeline.streaming.kafka.admin import TopicAdmin
from pipeline.streaming.kafka.config import KafkaSettings
from pipeline.streaming.kafka.embedded import EmbeddedKafka
from schemas.topics import TOPICS
from schemas.types import StageName
from tests.fault.inputs import make_bundle, make_media
from tests.runbooks.count import Count
from tests.runbooks.producer import SteadyProducer
from workers.fleet import Fleet, Member

ROOT = Path(__file__).parents[2]
PARTITIONS = 4
OLD, NEW = "2026.11-a", "2026.11-b"
"""Versions of the two bundles in `bundles/`: the second decides by other thresholds."""

STAGES = tuple(stage.value for stage in StageName)
SETTLE_S = 240.0
_POLL_S = 1.0


@dataclass(slots=True)
class Worker:
    """One worker process, with a log of its own."""

    label: str
    fleet: Fleet
    member: Member

    @property
    def log(self) -> str:
        return self.member.log_path.read_text(encoding="utf-8", errors="replace")

    def ready(self) -> None:
        """Until it has partitions and a warm model."""
        self.fleet.wait_ready()

    def stop(self) -> int:
        """SIGTERM; the exit code."""
        process = self.member.process
        say(f"$ kill -TERM {process.pid}")
        started_s = time.monotonic()
        self.fleet.stop(90.0)
        say(f"# {self.label}: exit {process.returncode} after {time.monotonic() - started_s:.1f} s")
        return int(process.returncode)

    def ended(self, timeout_s: float) -> int:
        """The exit code of one that ends by itself."""
        code = self.member.process.wait(timeout_s)
        self.fleet.stop()
        return code


@dataclass(slots=True)
class Site:
    """Where a runbook plays: `home` is the working directory of its shell."""

    home: Path
    broker: EmbeddedKafka
    files: Sequence[Path]
    environment: dict[str, str]
    workers: list[Worker] = field(default_factory=list)
    published: set[str] = field(default_factory=set)

    @property
    def kafka(self) -> KafkaSettings:
        return KafkaSettings(bootstrap=self.broker.bootstrap)

    @property
    def shell_environment(self) -> dict[str, str]:
        """Of whoever types: the fleet's settings, and `mediasieve` on the path."""
        path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
        inherited = {k: v for k, v in os.environ.items() if not k.startswith("MEDIASIEVE_")}
        return inherited | self.environment | {"PATH": path, "COLUMNS": "150"}

    def move(self, broker: EmbeddedKafka) -> None:
        """To another cluster, which is empty."""
        self.broker = broker
        self.environment["MEDIASIEVE_KAFKA__BOOTSTRAP"] = broker.bootstrap
        self.published = set()

    def sh(self, command: str, lines: int = 12, expect: int = 0) -> str:
        """As an operator types it; prints at most so many lines of what it answers.

        Raises:
            AssertionError: it ended with another code.
        """
        say(f"$ {command}")
        done = subprocess.run(
            ["/bin/bash", "-o", "pipefail", "-c", command],
            env=self.shell_environment,
            capture_output=True,
            text=True,
            timeout=200,
            check=False,
        )
        said = (done.stdout + done.stderr).rstrip()
        for line in said.splitlines()[:lines]:
            say(line[:220])
        if len(said.splitlines()) > lines:
            say(f"... {len(said.splitlines()) - lines} more lines")
        if done.returncode:
            say(f"exit {done.returncode}")
        assert done.returncode == expect, said
        return said

    def start(self, *names: str, suffix: str = "", **settings: str) -> list[Worker]:
        """One process each; they are ready when this returns."""
        begun = [self.begin(name, suffix, **settings) for name in names]
        for worker in begun:
            worker.ready()
        say(f"# ready: {', '.join(f'{w.label} ({w.member.process.pid})' for w in begun)}")
        return begun

    def begin(self, name: str, suffix: str = "", **settings: str) -> Worker:
        """One process that starts now."""
        label = f"{name}-{suffix or sum(w.member.stage == name for w in self.workers) + 1}"
        shown = "".join(f"{key}={value} " for key, value in settings.items())
        say(f"$ {shown}mediasieve worker {name} 2> logs/{label}/{name}-0.log &")
        fleet = Fleet({name: 1}, self.environment | settings, self.home / "logs" / label)
        fleet.start()
        worker = Worker(label, fleet, fleet.members[0])
        self.workers.append(worker)
        return worker

    @contextmanager
    def load(self, per_s: float, prefix: str = "photo") -> Iterator[SteadyProducer]:
        """A steady producer beside the block; what it published belongs to the site then."""
        producer = SteadyProducer(self.kafka, self.files, per_s, prefix)
        say(f"# a producer sends {per_s:g} references a second")
        producer.start()
        yield producer
        producer.stop()
        self.published |= producer.published

    def now(self, producer: SteadyProducer, what: str) -> Count:
        """Count in passing: what is on its way is not lost."""
        published, found = producer.published | self.published, Count.read(self.kafka)
        answered = len(published) - len(found.missing(published))
        say(f"# {what}: published {len(published)}, answered {answered}")
        return found

    def catch_up(self, producer: SteadyProducer) -> None:
        """Until all that is published by now is answered, while more comes."""
        self._until_answered(frozenset(producer.published))

    def stop_workers(self) -> None:
        """All that run, while there are brokers to leave."""
        for worker in self.workers:
            worker.fleet.stop(60.0)

    def settle(self) -> Count:
        """Until everything published is answered.

        Raises:
            AssertionError: something is missing after SETTLE_S.
        """
        return self._until_answered(self.published)

    def exact(self) -> Count:
        """Settle, and each was answered once."""
        found = self.settle()
        say(f"# {found.line(self.published)}")
        assert found.exact(self.published)
        return found

    def _until_answered(self, asked: Collection[str]) -> Count:
        end_s = time.monotonic() + SETTLE_S
        while True:
            late = time.monotonic() > end_s
            found = Count.read(self.kafka)
            missing = found.missing(asked)
            if not missing:
                return found
            assert not late, f"{len(missing)} unanswered, such as {sorted(missing)[:5]}"
            time.sleep(_POLL_S)  # a count reads the topics from their start


@contextmanager
def site(home: Path, settings: Mapping[str, str] | None = None, *, brokers: int = 1) -> Iterator[Site]:
    """Brokers, topics, media and two bundles; workers that still run at the end are stopped."""
    (home / "media").mkdir(parents=True)
    files = make_media(home / "media")[:48]
    make_bundles(home, files)
    with ExitStack() as stack:
        stack.enter_context(chdir(home))
        broker = stack.enter_context(EmbeddedKafka(brokers, data_dir=home / "kafka"))
        TopicAdmin({"bootstrap.servers": broker.bootstrap}, 60.0).apply(TOPICS, PARTITIONS, brokers)
        place = Site(home, broker, files, environment(home, broker) | dict(settings or {}))
        stack.callback(place.stop_workers)
        yield place


def make_bundles(home: Path, files: Sequence[Path]) -> None:
    """`bundles/OLD` and `bundles/NEW`."""
    (home / "bundles").mkdir()
    old = make_bundle(home / "bundles" / OLD, files, home / "panels")
    _rename(old, OLD, 0.0)
    shutil.copytree(old, home / "bundles" / NEW)
    _rename(home / "bundles" / NEW, NEW, 0.05)


def _rename(directory: Path, version: str, stricter: float) -> None:
    manifest = orjson.loads((directory / MANIFEST_FILE).read_bytes())
    policy = orjson.loads((directory / manifest["policy"]).read_bytes())
    policy["version"] = version
    policy["thresholds"]["t1"] = max(0.0, policy["thresholds"]["t1"] - stricter)
    (directory / manifest["policy"]).write_bytes(orjson.dumps(policy))
    (directory / MANIFEST_FILE).write_bytes(orjson.dumps(manifest | {"version": version}))
    seal(directory)


def environment(home: Path, broker: EmbeddedKafka) -> dict[str, str]:
    """MEDIASIEVE_* of a fleet on a few shared cores."""
    return {
        "MEDIASIEVE_KAFKA__BOOTSTRAP": broker.bootstrap,
        "MEDIASIEVE_STORE__URL": (home / "store").as_uri(),
        "MEDIASIEVE_BUNDLE": f"bundles/{OLD}",
        "MEDIASIEVE_CLASSIFIER__FETCH__FILE_ROOTS": orjson.dumps([str(home / "media")]).decode(),
        "MEDIASIEVE_CLASSIFIER__SANDBOX__WORKERS": "1",
        "MEDIASIEVE_CLASSIFIER__SLOTS": "8",
        "MEDIASIEVE_CLASSIFIER__AUDIT_SAMPLE__SHARE": "0",
        "MEDIASIEVE_SPECTRAL__PROCESSES": "1",
        "OMP_NUM_THREADS": "1",
        "PYTHONPATH": str(ROOT),
    }


def say(text: str) -> None:
    """A line of the transcript."""
    print(text, flush=True)
