"""A runner over memory, turned by hand."""

from __future__ import annotations

from collections import defaultdict, deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

from pipeline.streaming.batch import Lane
from pipeline.streaming.codec import Codec, Identity, TopicNames
from pipeline.streaming.executors.base import Completed, Executor
from pipeline.streaming.executors.inline import Inline
from pipeline.streaming.failure import SourceRate
from pipeline.streaming.memory import MemoryBroker, MemoryLedger, MemorySource
from pipeline.streaming.plan import Plan, RunnerSettings
from pipeline.streaming.runner import Hook, Runner
from pipeline.streaming.stage import Emit, GiveUpCause, Item, Outcome, Output
from pipeline.streaming.transport import TopicPartition
from pipeline.streaming.watch import Watch
from schemas.media import MediaReference
from schemas.topics import RETRY_DELAYS_S, Topic
from schemas.types import StageName

INGEST = TopicPartition(Topic.INGEST.value, 0)


class FakeClock:
    """Both clocks move only by `advance`."""

    def __init__(self) -> None:
        self.now_s = 1_000.0

    def monotonic_s(self) -> float:
        return self.now_s

    def wall_s(self) -> float:
        return 1_700_000_000.0 + self.now_s

    def advance(self, seconds: float) -> None:
        self.now_s += seconds


def emitted(item: Item[MediaReference]) -> Emit:
    """A stand-in result: the reference itself, to the suspect topic."""
    return Emit((Output(Topic.SUSPECT, f"{item.tenant}/{item.media_id}", item.value),))


class ScriptedStage:
    """Answers by media id from a script, else emits; remembers every batch."""

    def __init__(self) -> None:
        self.script: dict[str, deque[Outcome]] = defaultdict(deque)
        self.batches: list[list[str]] = []

    def open(self) -> None: ...

    def close(self) -> None: ...

    def process(self, batch: Sequence[Item[MediaReference]]) -> Sequence[Outcome]:
        self.batches.append([item.media_id for item in batch])
        return [self._one(item) for item in batch]

    def _one(self, item: Item[MediaReference]) -> Outcome:
        script = self.script[item.media_id]
        return script.popleft() if script else emitted(item)

    @property
    def seen(self) -> list[str]:
        return [media_id for batch in self.batches for media_id in batch]


class HeldExecutor:
    """Finishes nothing by itself: the test says which ticket ends, and how."""

    def __init__(self, slots: int = 8) -> None:
        self.slots = slots
        self.running: dict[int, list[Item[Any]]] = {}
        self._done: list[Completed] = []
        self.on_wait: Callable[[], None] = lambda: None

    def open(self) -> None: ...

    def free_slots(self) -> int:
        return self.slots - len(self.running)

    def submit(self, ticket: int, batch: Sequence[Item[Any]]) -> None:
        self.running[ticket] = list(batch)

    def completed(self, timeout_s: float = 0.0) -> Sequence[Completed]:
        if timeout_s:
            self.on_wait()
        done, self._done = self._done, []
        return done

    def close(self, timeout_s: float) -> None: ...

    def finish(self, media_id: str) -> None:
        ticket = self._ticket(media_id)
        self._done.append(Completed(ticket, tuple(emitted(i) for i in self.running.pop(ticket))))

    def crash(self, media_id: str) -> None:
        ticket = self._ticket(media_id)
        del self.running[ticket]
        self._done.append(Completed(ticket, None, "killed by SIGKILL"))

    def _ticket(self, media_id: str) -> int:
        return next(t for t, items in self.running.items() if any(i.media_id == media_id for i in items))


@dataclass
class Bench:
    """Everything a runner test touches."""

    settings: RunnerSettings = field(default_factory=RunnerSettings)
    executor: Executor[Any] | None = None
    broker: MemoryBroker = field(default_factory=MemoryBroker)
    clock: FakeClock = field(default_factory=FakeClock)
    hook: Hook = lambda _: None
    watch: Watch = field(default_factory=Watch)
    lanes: tuple[Lane, ...] | None = None
    quota: Callable[[str], int] = lambda _: 2**31
    edge: bool = True

    def __post_init__(self) -> None:
        self.stage = ScriptedStage()
        self.source = MemorySource(self.broker)
        self.ledger = MemoryLedger(self.broker)
        self.fallbacks: list[tuple[str, GiveUpCause, str]] = []
        self.fallback_script: deque[Outcome] = deque()
        lanes = self.lanes or (
            Lane("main", (Topic.INGEST.value,), 8, 64),
            *(Lane(t.value, (t.value,), 2, 16, delayed=True) for t in RETRY_DELAYS_S),
        )
        self.runner = Runner(
            plan=Plan("classifier", lanes, lambda _: 1, self._fall_back, self.quota, self.edge),
            codec=Codec(
                stage=StageName.CLASSIFIER,
                version="v1",
                model=MediaReference,
                identity=lambda r: Identity(r.media_id, r.tenant or "default", r.source or ""),
                cluster="kafka",
                names=TopicNames(),
                clock=self.clock,
                source_rate=SourceRate(self.settings.dead_letters),
                edge=self.edge,
            ),
            source=self.source,
            ledger=self.ledger,
            executor=self.executor or Inline(self.stage),
            settings=self.settings,
            clock=self.clock,
            watch=self.watch,
            hook=self.hook,
            jitter=lambda: 1.0,
        )
        self.runner.open()

    def _fall_back(self, item: Item[MediaReference], cause: GiveUpCause, detail: str) -> Outcome:
        self.fallbacks.append((item.media_id, cause, detail))
        if self.fallback_script:
            return self.fallback_script.popleft()
        return Emit((Output(Topic.ESCALATE, f"{item.tenant}/{item.media_id}", item.value),))

    def publish(self, *media_ids: str, partition: int = 0, tenant: str = "default") -> None:
        """References to ingest."""
        for media_id in media_ids:
            value = f'{{"uri":"file:///{media_id}","media_id":"{media_id}","tenant":"{tenant}"}}'.encode()
            self.broker.append(Topic.INGEST.value, value, partition=partition)

    def turn(self, times: int = 1, seconds: float = 0.1) -> None:
        """Some turns of the loop, with time passing between them."""
        for _ in range(times):
            self.runner.tick()
            self.clock.advance(seconds)

    def out(self, topic: Topic) -> list[str]:
        """Media ids of what was made visible on a topic, by key."""
        return [(r.key or b"").decode().partition("/")[2] for r in self.broker.records(topic.value)]

    @property
    def committed(self) -> int:
        """The committed offset of ingest partition 0; -1 for none."""
        point = self.broker.committed.get(INGEST)
        return point.offset if point else -1
