"""The two lanes over Kafka: priority about 8:1, and a normal lane that is never starved."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence

import pytest

from pipeline.app import WorkerSpec, build_runner
from pipeline.settings import FleetSettings
from pipeline.streaming.codec import Identity
from pipeline.streaming.executors.inline import Inline
from pipeline.streaming.kafka.config import KafkaSettings
from pipeline.streaming.kafka.embedded import EmbeddedKafka
from pipeline.streaming.plan import Plan
from pipeline.streaming.runner import Runner
from pipeline.streaming.stage import Emit, GiveUpCause, Item, Outcome
from schemas.media import SuspectMedia
from schemas.topics import Topic
from schemas.types import StageName
from schemas.wire import encode
from tests.support.kafka import PARTITIONS, TIMEOUT_S, produce
from tests.support.records import suspect
from tests.support.waiting import wait_until
from workers.lanes import two_lanes

WAITING = 60
"""Records in each lane when serving begins; both fit into what the lanes hold."""


class NotingStage:
    """Emits nothing and notes the order."""

    def __init__(self) -> None:
        self.served: list[str] = []

    def open(self) -> None: ...

    def close(self) -> None: ...

    def process(self, batch: Sequence[Item[SuspectMedia]]) -> Sequence[Outcome]:
        self.served += [item.media_id for item in batch]
        return [Emit(()) for _ in batch]


class GatedInline(Inline[SuspectMedia]):
    """One record a turn once the gate is open: a slow stage."""

    gate_open = False

    def free_slots(self) -> int:
        return super().free_slots() if self.gate_open else 0


class Lanes:
    """A runner over both suspect topics with a stage that only notes what it is given."""

    def __init__(self, kafka: EmbeddedKafka, prefix: str, weight: int, normal_max_age_s: float) -> None:
        self.stage = NotingStage()
        self.polled: list[str] = []
        self.executor = GatedInline(self.stage)
        lanes = two_lanes(
            Topic.SUSPECT_PRIORITY, Topic.SUSPECT, slots=8, weight=weight, normal_max_age_s=normal_max_age_s
        )
        plan = Plan(StageName.SPECTRAL.value, lanes, lambda _: 1, _no_fallback, lambda _: 2**31)
        spec = WorkerSpec(StageName.SPECTRAL, plan, SuspectMedia, self._identity, self.executor, "v1")
        settings = FleetSettings(kafka=KafkaSettings(bootstrap=kafka.bootstrap, topic_prefix=prefix))
        self.runner: Runner = build_runner(spec, settings)
        self.runner.open()

    def fill(self, count: int) -> None:
        """Turn until that many records wait in the runner, none of them served."""
        wait_until(lambda: self._turn() and len(self.polled) >= count, TIMEOUT_S, f"{count} records polled")

    def serve(self, count: int) -> list[str]:
        """Open the gate for `count` records; returns their lanes in order."""
        self.executor.gate_open = True
        wait_until(lambda: self._turn() and len(self.stage.served) >= count, TIMEOUT_S, f"{count} records served")
        return [media_id.partition("-")[0] for media_id in self.stage.served[:count]]

    def _turn(self) -> bool:
        self.runner.tick()
        return True

    def _identity(self, record: SuspectMedia) -> Identity:
        self.polled.append(record.admission.media_id)
        return Identity(record.admission.media_id, record.admission.tenant, "")


def _no_fallback(item: Item[SuspectMedia], cause: GiveUpCause, detail: str) -> Outcome:
    raise AssertionError(f"{item.media_id} was given up: {cause} {detail}")


def _publish(kafka: EmbeddedKafka, topic: str, lane: str, count: int) -> None:
    for partition in range(PARTITIONS):
        values = [encode(suspect(f"{lane}-{i}")) for i in range(partition, count, PARTITIONS)]
        produce(kafka.bootstrap, topic, values, partition)


@pytest.fixture
def lanes(
    request: pytest.FixtureRequest, kafka: EmbeddedKafka, topics: dict[Topic, str], prefix: str
) -> Iterator[Lanes]:
    """Both lanes full, the normal one first."""
    weight, normal_max_age_s = request.param
    _publish(kafka, topics[Topic.SUSPECT], "normal", WAITING)
    _publish(kafka, topics[Topic.SUSPECT_PRIORITY], "priority", WAITING)
    running = Lanes(kafka, prefix, weight, normal_max_age_s)
    running.fill(2 * WAITING)
    yield running
    running.runner.abandon()


@pytest.mark.parametrize("lanes", [(8, 3600.0)], indirect=True, ids=["weight 8"])
def test_of_nine_turns_one_is_the_normal_lane_s(lanes: Lanes) -> None:
    served = lanes.serve(54)
    assert [served[i : i + 9].count("normal") for i in range(0, 54, 9)] == [1] * 6
    everything = lanes.serve(2 * WAITING)
    assert everything.count("normal") == WAITING, "when priority has run dry the normal lane has every turn"
    assert len(set(lanes.stage.served)) == 2 * WAITING


@pytest.mark.parametrize("lanes", [(1000, 3600.0)], indirect=True, ids=["weight 1000"])
def test_a_great_weight_alone_would_starve_the_normal_lane(lanes: Lanes) -> None:
    assert "normal" not in lanes.serve(WAITING)


@pytest.mark.parametrize("lanes", [(1000, 0.05)], indirect=True, ids=["weight 1000, 50 ms"])
def test_what_has_waited_its_time_has_every_other_turn(lanes: Lanes) -> None:
    filled_s = time.monotonic()
    wait_until(lambda: time.monotonic() > filled_s + 0.05, TIMEOUT_S, "the whole normal lane is overdue")
    assert lanes.serve(WAITING) == ["normal", "priority"] * (WAITING // 2)
