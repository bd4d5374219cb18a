"""The storm: references come in while workers and the broker are killed and the groups rebalance.

    python -m tests.fault.chaos --references 2000 --seed 7

prints what happened as JSON; exit 0 only if the verifier and every counter agree that nothing was lost or doubled.
"""

from __future__ import annotations

import argparse
import random
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import cycle
from pathlib import Path
from typing import Any

import orjson
from confluent_kafka import Consumer

from pipeline.streaming.kafka.config import GroupProtocol, KafkaSettings
from pipeline.streaming.kafka.embedded import EmbeddedKafka
from schemas.topics import Topic
from schemas.types import StageName
from tests.fault.autopsy import autopsy
from tests.fault.inputs import environment, ingest, make_bundle, make_media, make_sends, publish
from tests.fault.processes import NoVerdict, Strike, Verification, Worker, Workers, shuffled
from tests.fault.worker import ALL_HOOKS, IN_TRANSACTION
from tests.support.kafka import create_topics

MEMBERS = (StageName.CLASSIFIER, StageName.CLASSIFIER, StageName.SPECTRAL, StageName.SPECTRAL, StageName.MLLM)
GROUP_TOPICS = {
    StageName.CLASSIFIER: (Topic.INGEST,),
    StageName.SPECTRAL: (Topic.SUSPECT, Topic.SUSPECT_PRIORITY),
    StageName.MLLM: (Topic.ANOMALOUS, Topic.ANOMALOUS_PRIORITY),
}


@dataclass(frozen=True, slots=True)
class Storm:
    """How much of everything."""

    references: int
    seed: int
    members: tuple[StageName, ...] = MEMBERS
    kills_per_member: int = 2
    pace_per_s: float = 60.0
    held_back: float = 0.25
    trickle_per_s: float = 8.0
    """The share `held_back` comes this slowly until the last strike has fallen, so that each finds work."""
    rebalance_every_s: float = 5.0
    visit_s: float = 1.5
    kill_broker: bool = True
    broker_dies_at: float = 0.3
    """Share of the references that is out by then."""
    mutants: Mapping[StageName, str] = field(default_factory=dict)
    protocol: GroupProtocol = GroupProtocol.CONSUMER
    timeout_s: float = 240.0
    settle_s: float = 450.0
    """A bound on a busy machine's work; what is lost ends the wait earlier, see `quiet_s`."""
    quiet_s: float = 45.0
    """So long without an answer means that none will come; above what a dead member's transaction can hold back."""


def plan_strikes(storm: Storm, rng: random.Random) -> list[list[Strike]]:
    """For each member its strikes in order; every hook is in it, those inside a transaction with records first."""
    if storm.mutants:
        return [[Strike("between", 3)] if stage in storm.mutants else [] for stage in storm.members]
    total = storm.kills_per_member * len(storm.members)
    hooks = shuffled(rng, ALL_HOOKS)
    while len(hooks) < total:
        hooks.append(rng.choice(ALL_HOOKS))
    strikes = iter(
        Strike(h) if h == "after_mark" else Strike(h, rng.randint(1, 6), round(rng.uniform(0.3, 3.0), 1)) for h in hooks
    )
    return [[next(strikes) for _ in range(total // len(storm.members))] for _ in storm.members]


class Supervisor:
    """Keeps one process a member: what dies is started again at once, with the member's next strike."""

    def __init__(self, workers: Workers, storm: Storm, strikes: Sequence[Sequence[Strike]]) -> None:
        self._workers = workers
        self._mutants = storm.mutants
        self._stages = storm.members
        self._left = [list(s) for s in strikes]
        self._members: list[Worker] = [self._start(i) for i in range(len(storm.members))]
        self.kills: Counter[str] = Counter()
        self.kills_by_member: Counter[str] = Counter()
        self.other_exits: list[str] = []

    @property
    def pending(self) -> int:
        """Strikes that have not fallen."""
        return sum(len(s) for s in self._left) + sum(w.strike is not None for w in self._members)

    @property
    def starting(self) -> bool:
        """One that replaces a dead one does not work yet."""
        return any(w.starting for w in self._members)

    def tend(self) -> None:
        """Replace the dead."""
        for index, worker in enumerate(self._members):
            code = worker.process.poll()
            if code is None:
                continue
            if worker.strike is not None and worker.struck:
                self.kills[worker.strike.at] += 1
                self.kills_by_member[f"{worker.stage}-{index}"] += 1
            else:
                self.other_exits.append(f"{worker.log_path.name} exit {code}: {worker.tail()[-1500:]}")
                if worker.strike is not None:
                    self._left[index].insert(0, worker.strike)
            self._members[index] = self._start(index)

    def _start(self, index: int) -> Worker:
        stage = self._stages[index]
        strike = self._left[index].pop(0) if self._left[index] else None
        return self._workers.start(stage, strike, mutant=self._mutants.get(stage, ""))


class Visitors:
    """A bare group member that joins, is given partitions, and leaves again: two rebalances a visit."""

    def __init__(self, kafka: KafkaSettings, storm: Storm) -> None:
        self._kafka = kafka
        self._storm = storm
        self._groups: Iterator[StageName] = cycle(GROUP_TOPICS)
        self._visitor: Consumer | None = None
        self._next_s = time.monotonic() + storm.rebalance_every_s
        self.visits = 0

    def tend(self) -> None:
        """Come or go when it is time; what it reads it drops, and it commits nothing."""
        now_s = time.monotonic()
        if self._visitor is not None:
            self._visitor.poll(0.0)
            if now_s >= self._next_s - self._storm.rebalance_every_s + self._storm.visit_s:
                self.leave()
        elif now_s >= self._next_s:
            self._next_s = now_s + self._storm.rebalance_every_s
            stage = next(self._groups)
            self._visitor = Consumer(self._kafka.consumer(stage.value) | {"log_level": 2})
            topics = [f"{self._kafka.topic_prefix}.{t}" for t in GROUP_TOPICS[stage]]
            self._visitor.subscribe(topics)
            self.visits += 1

    def leave(self) -> None:
        """The visit is over."""
        if self._visitor is not None:
            self._visitor.close()
            self._visitor = None


def run(storm: Storm, home: Path) -> dict[str, Any]:
    """Everything, on a broker of its own; returns the report."""
    with EmbeddedKafka() as broker:
        return storm_over(broker, storm, home)


def storm_over(broker: EmbeddedKafka, storm: Storm, home: Path) -> dict[str, Any]:
    """Send, strike, wait, drain, judge."""
    rng = random.Random(storm.seed)
    kafka = KafkaSettings(bootstrap=broker.bootstrap, topic_prefix="storm", group_protocol=storm.protocol)
    (home / "media").mkdir(parents=True)
    media = make_media(home / "media")
    bundle = make_bundle(home / "bundle", media, home / "panels")
    create_topics(broker.bootstrap, kafka.topic_prefix)
    sends = make_sends(ingest(kafka), media, storm.references, rng)

    def send(first: int, end: int) -> None:
        publish(kafka, sends.records[first:end])

    started_s = time.monotonic()
    with (
        Workers(home, environment(kafka, home, home / "media", bundle)) as workers,
        Verification(home, broker.bootstrap, kafka.topic_prefix, sends.expected) as verification,
    ):
        supervisor = Supervisor(workers, storm, plan_strikes(storm, rng))
        visitors = Visitors(kafka, storm)
        brokers_killed = _rage(storm, broker, send, supervisor, visitors)
        stormed_s = time.monotonic() - started_s
        visitors.leave()
        _settle(storm, supervisor, verification)
        drained = workers.drain()
        code, verdict = _judge(verification, workers, broker)
        took_s = time.monotonic() - started_s
        hooks = workers.hooks()
    return {
        "seed": storm.seed,
        "verifier_exit": code,
        "verdict": verdict,
        "took_s": round(took_s, 1),
        "storm_s": round(stormed_s, 1),
        "per_s": round(storm.references / took_s, 1),
        "hits": {hook: hooks[hook] for hook in ALL_HOOKS},
        "kills": {hook: supervisor.kills[hook] for hook in (*ALL_HOOKS, "between") if supervisor.kills[hook]},
        "kills_by_member": dict(supervisor.kills_by_member),
        "kills_in_transaction": sum(supervisor.kills[h] for h in IN_TRANSACTION),
        "aborts_by_workers": sum(w.log.count('"event":"commit_failed"') for w in workers.started),
        "broker_kills": brokers_killed,
        "visits": visitors.visits,
        "other_exits": supervisor.other_exits,
        "drain_exits": drained,
        "strikes_pending": supervisor.pending,
    }


def _rage(
    storm: Storm, broker: EmbeddedKafka, send: Callable[[int, int], None], supervisor: Supervisor, visitors: Visitors
) -> int:
    """Until all is sent and every strike has fallen; returns how often the broker was killed."""
    total = storm.references
    started_s, sent, killed = time.monotonic(), 0, 0
    while sent < total:
        time.sleep(0.25)
        now_s = time.monotonic() - started_s
        assert now_s < storm.timeout_s, f"{supervisor.pending} strikes have not fallen; {supervisor.other_exits}"
        supervisor.tend()
        visitors.tend()
        due = _due(storm, now_s, total) if supervisor.pending else total
        if due > sent:
            send(sent, due)
            sent = due
        if storm.kill_broker and not killed and now_s > storm.broker_dies_at * total / storm.pace_per_s:
            broker.kill()
            time.sleep(1.0)
            broker.restart()
            killed += 1
    return killed


def _due(storm: Storm, now_s: float, total: int) -> int:
    """How many records are to be out by now: all but the last one, which waits for the last strike."""
    first = int(total * (1 - storm.held_back))
    quick = int(now_s * storm.pace_per_s)
    slow = first + int((now_s - first / storm.pace_per_s) * storm.trickle_per_s)
    return quick if quick < first else min(max(first, slow), total - 1)


def _settle(storm: Storm, supervisor: Supervisor, verification: Verification) -> None:
    """Faults are over: until nothing is missing or nothing more comes; `settle_s` at the longest."""
    end_s = time.monotonic() + storm.settle_s
    before, changed_s = -1, time.monotonic()
    while (missing := verification.missing) and time.monotonic() < end_s:
        supervisor.tend()
        if missing != before or supervisor.starting:
            before, changed_s = missing, time.monotonic()
        if time.monotonic() - changed_s > storm.quiet_s:
            return
        time.sleep(0.2)


def _judge(verification: Verification, workers: Workers, broker: EmbeddedKafka) -> tuple[int, dict[str, Any]]:
    """Exit code and verdict; where there is none, the error says what the logs know of it."""
    try:
        return verification.verdict()
    except NoVerdict as error:
        raise AssertionError(f"{error}\n{autopsy(error.open, workers.started, broker.log_paths)}") from error


def main() -> int:
    """See the module."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--references", type=int, default=2000)
    parser.add_argument("--seed", type=int, default=random.SystemRandom().randrange(2**32))
    parser.add_argument("--home", type=Path, default=None)
    options = parser.parse_args()
    home = options.home or Path(tempfile.mkdtemp(prefix="mediasieve-storm-"))
    report = run(Storm(options.references, options.seed), home)
    sys.stdout.buffer.write(orjson.dumps(report, option=orjson.OPT_INDENT_2) + b"\n")
    return 0 if report["verifier_exit"] == 0 else 1


if __name__ == "__main__":
    sys.exit(main())
