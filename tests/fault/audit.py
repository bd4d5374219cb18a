"""Audit workers that are killed or frozen at named points, and what must be true of the log afterwards."""

from __future__ import annotations

import hashlib
import os
import random
import signal
import subprocess
import sys
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from pipeline.evidence.log.audit_log import POINTS
from pipeline.evidence.log.checkpoint import Checkpoint
from pipeline.evidence.log.leaf import Leaf
from pipeline.evidence.log.verify_all import verify_all
from pipeline.streaming.kafka.config import GroupProtocol
from schemas.topics import AUDITED_TOPICS, DECISION_TOPICS
from schemas.types import StageName
from tests.fault.processes import Strike, Worker
from tests.support.audit_kafka import AuditSite
from tests.support.fleet import clean_environment
from tests.support.kafka import PARTITIONS, read_all
from tests.support.waiting import wait_until
from workers.audit.loop import HOOKS

KILL_POINTS = (*POINTS, *HOOKS, "logged")
"""Around each durable step of an append, and at each step of the loop."""

OFTEN = tuple(point for point in KILL_POINTS if "discard" not in point)
"""Those that every batch passes. Objects are discarded when a tile of 256 is full."""

FAST = {
    "MEDIASIEVE_KAFKA__GROUP_PROTOCOL": GroupProtocol.CLASSIC.value,
    "MEDIASIEVE_KAFKA__EXTRA": '{"session.timeout.ms": "3000", "heartbeat.interval.ms": "500"}',
}
"""A dead member's partitions move after 3 s; the group protocol `consumer` takes 6 s on the tests' broker."""

START_S = 60.0
OTHER_EXITS = 2
_ROUNDS_WITHOUT_ABORT = 3
_TO_ONE_PARTITION = 300
"""Of each round, so that it fills a tile."""


@dataclass
class Auditors:
    """Starts audit workers on one site, one after the other or side by side."""

    site: AuditSite
    started: list[Worker] = field(default_factory=list)

    def start(self, strike: Strike | None = None) -> Worker:
        name = f"audit-{len(self.started):02d}"
        journal, log_path = self.site.home / f"{name}.hooks", self.site.home / f"{name}.log"
        command = [sys.executable, "-m", "tests.fault.audit_main", "--journal", str(journal)]
        with log_path.open("ab") as log:
            process = subprocess.Popen(
                [*command, *(strike.arguments if strike else ())],
                env={
                    k: v for k, v in clean_environment(self.site.environment).items() if k != "PYTHONDONTWRITEBYTECODE"
                },
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

    @property
    def hooks(self) -> Counter[str]:
        """Of all workers that ever ran; `SIGKILL point` for each strike."""
        return sum((w.hooks for w in self.started), Counter())


def kill_and_go_on(
    site: AuditSite, kills: int, decisions: int, seed: int, points: Sequence[str] = OFTEN
) -> dict[str, Any]:
    """Kill one worker after the other while decisions are published; then let one finish. What was found at the end."""
    rng = random.Random(seed)
    strikes = [point for _ in range(-(-kills // len(points))) for point in rng.sample(points, len(points))]
    auditors = Auditors(site)
    publisher = _Publisher(site, rng)
    kept: dict[str, list[Checkpoint]] = {}
    try:
        for number, point in enumerate(strikes[:kills]):
            strike = Strike(point, nth=rng.randint(1, 3))
            worker = auditors.start(strike)
            publisher.publish(number, decisions // kills + (decisions % kills if number == 0 else 0))
            while not _was_struck(worker):
                worker = auditors.start(strike)
            _keep(site, kept)
        last = auditors.start()
        wait_until(site.caught_up, 120.0, "the last worker reaches the end of Kafka")
        code = last.terminate()
        return _found(site, decisions, kept) | {
            "seed": seed,
            "kills": {p: n for p in KILL_POINTS if (n := auditors.hooks[f"SIGKILL {p}"])},
            "exits": (exits := Counter(w.process.poll() for w in auditors.started[:-1])),
            "other_exits": exits.total() - exits[-signal.SIGKILL],
            "passes": {p: auditors.hooks[p] for p in KILL_POINTS},
            "last_exit": code,
        }
    finally:
        auditors.end()


class _Publisher:
    """Decisions in transactions of at most 100; after about every third one comes an aborted one."""

    def __init__(self, site: AuditSite, rng: random.Random) -> None:
        self._site = site
        self._rng = rng
        self._good, self._bad = site.producer("good"), site.producer("bad")

    def publish(self, number: int, count: int) -> None:
        """Most of a large round into one partition, the others over all decision topics by media id."""
        names = [f"{number:03d}-{n:05d}" for n in range(count)]
        one, topics = self._rng.randrange(PARTITIONS), list(DECISION_TOPICS.values())
        topic = self._rng.choice(topics)
        for at in range(0, count, 100):
            if at < _TO_ONE_PARTITION:
                self._site.transact(self._good, names[at : at + 100], topic, partition=one)
            else:
                self._site.transact(self._good, names[at : at + 100], self._rng.choice(topics))
            if self._rng.randrange(_ROUNDS_WITHOUT_ABORT) == 0:
                aborted = [f"aborted-{name}" for name in names[at : at + 10]]
                self._site.transact(self._bad, aborted, self._rng.choice(topics), commit=False)


def _was_struck(worker: Worker) -> bool:
    """True: killed where it was to be. False: the client library crashed first, and the strike is to come again."""

    def ended() -> bool:
        return worker.process.poll() is not None

    wait_until(ended, START_S, f"the kill at {worker.strike}; {worker.log_path}")
    code = worker.process.poll()
    assert code in (-signal.SIGKILL, -signal.SIGSEGV, -signal.SIGABRT), worker.tail()
    return code == -signal.SIGKILL and worker.struck


def _keep(site: AuditSite, kept: dict[str, list[Checkpoint]]) -> None:
    """As an auditor would, after every kill: the log must continue each of these in the end."""
    place = site.place
    keys = place.keys()
    for tree in place.trees():
        kept.setdefault(tree, []).append(place.reader(tree, keys).checkpoint())


def _found(site: AuditSite, decisions: int, kept: dict[str, list[Checkpoint]]) -> dict[str, Any]:
    place = site.place
    keys = place.keys()
    leaves: list[tuple[str, int, int, str]] = []
    faults: list[str] = []
    for tree in place.trees():
        found = verify_all(place.tree(tree), place.origin(tree), keys, kept=kept.get(tree, ()))
        faults += [fault.message for fault in found.faults]
        reader = place.reader(tree, keys)
        for entry in reader.entries(0, reader.checkpoint().size):
            leaf = Leaf.parse(entry)
            leaves.append((leaf.topic.value, leaf.partition, leaf.offset, leaf.record_sha256))
    expected = _committed(site, decisions)
    compared = site.completeness()
    return {
        "decisions": decisions,
        "leaves": len(leaves),
        "distinct_leaves": len(set(leaves)),
        "equal_to_kafka": set(leaves) == expected,
        "kafka": len(expected),
        "complete": all(one.ok for one in compared),
        "compared": sum(one.compared for one in compared),
        "pending": sum(one.pending for one in compared),
        "faults": faults,
        "kept_checkpoints": sum(map(len, kept.values())),
    }


def _committed(site: AuditSite, count: int) -> set[tuple[str, int, int, str]]:
    """By the tests' own reader, which shares no code with the log."""
    names = [f"{site.prefix}.{topic}" for topic in AUDITED_TOPICS]
    return {
        (
            str(m.topic()).removeprefix(f"{site.prefix}."),
            m.partition() or 0,
            m.offset() or 0,
            hashlib.sha256(m.value() or b"").hexdigest(),
        )
        for m in read_all(site.bootstrap, names, count, 60.0)
    }


def files_of(directory: Path) -> dict[str, tuple[int, str]]:
    """Modification time and digest of every file of the log."""
    return {
        str(path.relative_to(directory)): (path.stat().st_mtime_ns, hashlib.sha256(path.read_bytes()).hexdigest())
        for path in sorted(directory.rglob("*"))
        if path.is_file()
    }


def freeze(worker: Worker) -> None:
    """Wait until it has stopped itself."""
    wait_until(lambda: worker.struck, START_S, "the freeze")


def thaw(worker: Worker) -> None:
    """Let it go on."""
    os.kill(worker.process.pid, signal.SIGCONT)
