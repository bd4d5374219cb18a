"""An audit loop over memory, turned by hand: fake source, real log in memory, faults by script."""

from __future__ import annotations

from collections import deque
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any
from uuid import UUID

from pipeline.evidence.log.audit_log import AuditLog
from pipeline.evidence.log.errors import LogUnavailable
from pipeline.evidence.log.key_set import KeySet
from pipeline.evidence.log.leaf import Leaf
from pipeline.evidence.log.signer import Signer
from pipeline.evidence.log.storage import LogStorage, Token, open_log_storage
from pipeline.observability.metrics import Metrics
from pipeline.streaming.codec import TopicNames
from pipeline.streaming.memory import MemoryBroker, MemorySource
from pipeline.streaming.transport import CommitPoint, RawRecord, TopicPartition
from pipeline.streaming.watch import Watch
from schemas.decision import Outcome, ReasonCode
from schemas.ocsf import encode_finding, finding_from_decision
from schemas.topics import Topic
from tests.support.cases import decision
from tests.support.streaming import FakeClock
from workers.audit.log import LogPlace
from workers.audit.loop import AuditLoop
from workers.audit.settings import AuditSettings

LOG_NAME = "tests.example/audit"
BLOCKS = TopicPartition(Topic.BLOCK.value, 0)
ORIGIN = f"{LOG_NAME}/{Topic.BLOCK}/0"
TREE = f"{Topic.BLOCK}/0"


class PositionedMemorySource(MemorySource):
    """Holds what it is assigned; retention and transaction markers by script."""

    def __init__(self, broker: MemoryBroker) -> None:
        super().__init__(broker)
        self._records = broker
        self.lows: dict[TopicPartition, int] = {}
        self.answers = True
        self.silent: set[TopicPartition] = set()
        self.not_yet = 0
        self.refusing = False
        self._refused: set[TopicPartition] = set()
        self.commits: list[dict[TopicPartition, CommitPoint]] = []
        self.starts: list[tuple[TopicPartition, int]] = []

    def assign(self, partitions: Collection[TopicPartition]) -> None:
        super().assign(partitions)
        self.pause(partitions)

    def bounds(self, tp: TopicPartition) -> tuple[int, int] | None:
        return (self.lows.get(tp, 0), len(self._records.logs[tp])) if self.answers and tp not in self.silent else None

    def start(self, tp: TopicPartition, offset: int) -> bool:
        if self.not_yet:
            self.not_yet -= 1
            return False
        self.starts.append((tp, offset))
        self._positions[tp] = offset
        self.resume([tp])
        return True

    def commit(self, offsets: Mapping[TopicPartition, CommitPoint]) -> None:
        self.commits.append(dict(offsets))
        if self.refusing:
            self._refused |= offsets.keys()
        else:
            self._records.committed |= offsets

    def refused(self) -> set[TopicPartition]:
        found, self._refused = self._refused, set()
        return found


class FaultyStorage:
    """A storage whose next writes fail by script: `faults` holds an error, or None for a write that works."""

    def __init__(self, inner: LogStorage, faults: deque[Exception | None] | None = None) -> None:
        self._inner = inner
        self.faults = faults if faults is not None else deque()
        self.away = False

    def read(self, path: str) -> bytes:
        self._check()
        return self._inner.read(path)

    def create(self, path: str, data: bytes) -> None:
        self._fail()
        self._inner.create(path, data)

    def discard(self, path: str) -> None:
        self._fail()
        self._inner.discard(path)

    def folders(self) -> list[str]:
        self._check()
        return self._inner.folders()

    def read_checkpoint(self) -> tuple[bytes, Token] | None:
        self._check()
        return self._inner.read_checkpoint()

    def swap_checkpoint(self, new: bytes, token: Token | None) -> Token:
        self._fail()
        return self._inner.swap_checkpoint(new, token)

    def under(self, prefix: str) -> LogStorage:
        inner = FaultyStorage(self._inner.under(prefix), self.faults)
        inner._check = self._check  # type: ignore[method-assign]  # one outage for all parts
        return inner

    def _check(self) -> None:
        if self.away:
            raise LogUnavailable("the test's storage is away")

    def _fail(self) -> None:
        self._check()
        fault = self.faults.popleft() if self.faults else None
        if fault is not None:
            raise fault


class Turns(Watch):
    """Counts the pulses of the loop."""

    def __init__(self) -> None:
        self.pulses = 0

    def turn(self, oldest_in_flight_s: float, in_flight: int, partitions: int) -> None:
        self.pulses += 1


@dataclass
class AuditWorld:
    """Broker, log and loop; `restart` is what happens after a crash."""

    partitions: int = 1
    log_name: str = LOG_NAME
    overrides: dict[str, Any] = field(default_factory=dict)
    broker: MemoryBroker = field(init=False)
    storage: FaultyStorage = field(init=False)
    signer: Signer = field(init=False)
    logged: list[tuple[Topic, int]] = field(default_factory=list)
    handed_on: set[tuple[TopicPartition, int]] = field(default_factory=set)
    store_faults: deque[Exception | None] = field(default_factory=deque)
    hooks: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.broker = MemoryBroker(self.partitions)
        self.storage = FaultyStorage(open_log_storage("memory://"))
        self.signer = Signer.generate(self.log_name)
        self.watch = Turns()
        self.clock = FakeClock()
        self.metrics = Metrics()
        self.restart()

    @property
    def keys(self) -> KeySet:
        return KeySet([self.signer.verifier])

    @property
    def settings(self) -> AuditSettings:
        return AuditSettings(log_name=self.log_name, **self.overrides)

    @property
    def place(self) -> LogPlace:
        return LogPlace(self.storage, self.settings)

    def begin_anew(self, log_name: str) -> None:
        """What exit code 9 asks for when a topic or a log is gone: another name, with keys of its own."""
        self.log_name, self.signer = log_name, Signer.generate(log_name)
        self.restart()

    def restart(self) -> None:
        self.source = PositionedMemorySource(self.broker)
        self.loop = AuditLoop(
            source=self.source,
            open_log=self.open_log,
            settings=self.settings,
            names=TopicNames(),
            clock=self.clock,
            metrics=self.metrics,
            on_logged=self.on_logged,
            watch=self.watch,
            hook=self.hooks.append,
        )
        self.loop.open()
        self.loop.turn()  # assigned now, opened with the next turn

    def open_log(self, name: str) -> AuditLog:
        return AuditLog.open(self.place.tree(name), self.place.origin(name), self.signer, self.keys)

    def on_logged(self, topic: Topic, records: Sequence[RawRecord]) -> None:
        for record in records:
            fault = self.store_faults.popleft() if self.store_faults else None
            if fault is not None:
                raise fault
            self.logged.append((topic, record.offset))
            self.handed_on.add((record.tp, record.offset))

    def produce(self, count: int, tp: TopicPartition = BLOCKS) -> None:
        for _ in range(count):
            number = len(self.broker.logs[tp])
            self.broker.append(tp.topic, f"record {number}".encode(), partition=tp.partition)

    def turn(self, times: int = 1, seconds: float = 1.0) -> None:
        """Turns with `seconds` between them: enough for a batch to be due by age."""
        for _ in range(times):
            self.loop.turn()
            self.clock.advance(seconds)

    def settle(self) -> None:
        """Enough turns for all that was produced."""
        self.turn(4)

    def leaves(self, name: str = TREE) -> list[Leaf]:
        reader = self.place.reader(name, self.keys)
        size = reader.checkpoint().size
        return [Leaf.parse(entry) for entry in reader.entries(0, size)]

    def offsets(self, name: str = TREE) -> list[int]:
        return [leaf.offset for leaf in self.leaves(name)]

    @property
    def waits(self) -> float:
        return self.count("mediasieve_audit_waits_total", BLOCKS.topic)

    def age(self) -> float:
        """Seconds, of the oldest record without a checkpoint."""
        return self.metrics.registry.get_sample_value("mediasieve_audit_checkpoint_age_seconds") or 0.0

    def count(self, metric: str, topic: str) -> float:
        return self.metrics.registry.get_sample_value(metric, {"topic": topic}) or 0.0


def finding(media_id: str, uid: UUID, **changes: Any) -> bytes:
    """A block as Kafka holds it, for this media item."""
    made = decision(Outcome.BLOCK, ReasonCode.SYNTHETIC_CONFIRMED)
    admission = made.admission.model_copy(update={"media_id": media_id, "decision_uid": uid})
    changed = made.model_copy(update={"admission": admission, "decision_uid": uid, **changes})
    return encode_finding(finding_from_decision(changed))
