"""The MLLM stage over Kafka against a scripted OpenAI-compatible server, turned by hand."""

from __future__ import annotations

import io
import json
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from uuid import uuid4

import pytest
from PIL import Image

from pipeline.app import build_runner
from pipeline.detection.mllm.backends.openai import OpenAISettings
from pipeline.media.content_store import ContentStore
from pipeline.settings import FleetSettings, StoreSettings
from pipeline.streaming.kafka.config import KafkaSettings
from pipeline.streaming.kafka.embedded import EmbeddedKafka
from pipeline.streaming.partitions import Entry
from pipeline.streaming.plan import RunnerSettings
from pipeline.streaming.runner import Runner
from pipeline.streaming.stage import Defer, DeferScope
from pipeline.streaming.watch import Watch
from schemas.decision import Outcome, ReasonCode
from schemas.topics import Topic
from schemas.types import StageName
from schemas.wire import encode
from tests.support.kafka import TIMEOUT_S, produce
from tests.support.mailbox import Decided, Mailbox
from tests.support.mllm import plain_report, report_data
from tests.support.mllm_ports import held_port
from tests.support.records import anomalous
from tests.support.scripted_server import Reply, ScriptedServer, completion, serving
from tests.support.waiting import wait_until
from workers.mllm.limits import LimitSettings
from workers.mllm.settings import MllmSettings
from workers.mllm.worker import build

SYNTHETIC = plain_report("base_diffusion", 0.95, observations=report_data()["observations"][:1])
SYNTHETIC["observations"][0]["feature"] = None
AUTHENTIC = SYNTHETIC | {"hypothesis": "authentic", "primary_evidence": "sensor noise"}


def _png(colour: int) -> bytes:
    buffer = io.BytesIO()
    Image.new("RGB", (256, 128), (colour, 120, 160)).save(buffer, "PNG")
    return buffer.getvalue()


@contextmanager
def model_server(content: str, port: int = 0) -> Iterator[int]:
    """Answers every question with this content; yields its port."""
    with serving(ScriptedServer(lambda _: Reply(completion(content))), port) as server:
        yield int(server.url.rsplit(":", 1)[1].partition("/")[0])


@dataclass
class Defers(Watch):
    """Remembers why records had to wait."""

    seen: list[Defer] = field(default_factory=list)

    def defer(self, entry: Entry, defer: Defer) -> None:
        self.seen.append(defer)


@dataclass(frozen=True)
class Stage3:
    """One topic prefix with its store, of one test: what a failed test leaves undecided is no other's."""

    bootstrap: str
    prefix: str
    topics: dict[Topic, str]
    mailbox: Mailbox
    store_url: str

    def publish(self, score: float, topic: Topic = Topic.ANOMALOUS) -> str:
        media_id = uuid4().hex
        record = anomalous(media_id, ContentStore(self.store_url), _png(90), _png(30), score)
        produce(self.bootstrap, self.topics[topic], [encode(record)])
        return media_id

    @contextmanager
    def runner(
        self,
        port: int,
        watch: Watch | None = None,
        dependency_max_age_s: float = 300.0,
        limits: LimitSettings = LimitSettings(),  # noqa: B008 - frozen
    ) -> Iterator[Runner]:
        """Joined and warm; leaves in good order."""
        settings = FleetSettings(
            kafka=KafkaSettings(bootstrap=self.bootstrap, topic_prefix=self.prefix),
            store=StoreSettings(url=self.store_url),
            runner=RunnerSettings(
                dependency_max_age_s=dependency_max_age_s, backoff_first_s=0.02, backoff_max_s=0.1, drain_timeout_s=5.0
            ),
        )
        openai = OpenAISettings(base_url=f"http://127.0.0.1:{port}/v1", model="test-model", timeout_s=10.0)
        spec = build(settings, MllmSettings(backend="openai", openai=openai, concurrency=2, limits=limits))
        runner = build_runner(spec, settings, watch=watch)
        try:
            runner.open()
            yield runner
        finally:
            runner.drain()

    def turn_until(self, runner: Runner, condition: Callable[[], Sequence[object]], what: str) -> None:
        def turn() -> Sequence[object]:
            runner.tick()
            return condition()

        wait_until(turn, TIMEOUT_S, what)

    def decide(self, runner: Runner, media_id: str) -> Decided:
        self.turn_until(runner, lambda: self.mailbox.decisions(media_id), f"a decision on {media_id}")
        (decided,) = self.mailbox.decisions(media_id)
        return decided


@pytest.fixture
def stage(
    kafka: EmbeddedKafka,
    prefix: str,
    topics: dict[Topic, str],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> Iterator[Stage3]:
    # It would hold for all tests after these, which were slower then: it cannot be taken back.
    monkeypatch.setattr("workers.mllm.worker.steady_allocator", lambda: True)
    mailbox = Mailbox(kafka.bootstrap, topics)
    yield Stage3(kafka.bootstrap, prefix, topics, mailbox, tmp_path.as_uri())
    mailbox.close()


def test_scores_and_report_that_agree_block(stage: Stage3) -> None:
    media_id = stage.publish(0.99, Topic.ANOMALOUS_PRIORITY)
    with model_server(json.dumps(SYNTHETIC)) as port, stage.runner(port) as runner:
        decided = stage.decide(runner, media_id)
    decision = decided.decision
    assert decided.topic is Topic.BLOCK
    assert (decision.outcome, decision.stage_exited) == (Outcome.BLOCK, StageName.MLLM)
    assert decided.reason == ReasonCode.SYNTHETIC_CONFIRMED.value
    assert decision.final_score is not None
    assert decision.final_score >= decision.thresholds.t3_block
    assert decision.reasons[1].detail == SYNTHETIC["primary_evidence"]
    kinds = ["spectral_panel", "mllm_reason", "mllm_report", "mllm_trace", "manifest"]
    assert [kept.kind for kept in decision.evidence] == kinds
    store = ContentStore(stage.store_url)
    _, _, report, trace, _ = decision.evidence
    assert json.loads(store.get_evidence(report.uri, report.sha256)) == SYNTHETIC
    manifest = json.loads(store.get_evidence(trace.uri, trace.sha256))
    assert manifest["turns"][1]["raw_sha256"] == report.sha256


@pytest.mark.parametrize(
    ("score", "content", "reason"),
    [
        (0.99, json.dumps(AUTHENTIC), ReasonCode.UNCERTAIN),
        (0.65, json.dumps(SYNTHETIC), ReasonCode.UNCERTAIN),
        (0.99, "I think it is fake", ReasonCode.MLLM_INVALID_REPORT),
        (0.99, json.dumps(SYNTHETIC)[:-9], ReasonCode.MLLM_INVALID_REPORT),
    ],
    ids=["scores and report disagree", "the report alone", "no JSON", "truncated JSON"],
)
def test_everything_else_escalates(stage: Stage3, score: float, content: str, reason: ReasonCode) -> None:
    media_id = stage.publish(score)
    with model_server(content) as port, stage.runner(port) as runner:
        decided = stage.decide(runner, media_id)
    assert (decided.topic, decided.reason) == (Topic.ESCALATE, reason.value)


@pytest.mark.parametrize("failures", [1, 1000], ids=["circuit opens", "circuit stays closed"])
def test_an_absent_server_is_waited_for_and_then_people_decide(stage: Stage3, failures: int) -> None:
    media_id = stage.publish(0.99)
    watch = Defers()
    limits = LimitSettings(failures=failures, open_s=0.2)
    with held_port() as port, stage.runner(port, watch, dependency_max_age_s=0.3, limits=limits) as runner:
        decided = stage.decide(runner, media_id)
    assert (decided.topic, decided.reason) == (Topic.ESCALATE, ReasonCode.MLLM_UNAVAILABLE.value)
    assert len(watch.seen) >= 2, "it was asked again before it was given up"
    assert {d.scope for d in watch.seen} == {DeferScope.DEPENDENCY}


def test_a_server_that_comes_back_in_time_decides(stage: Stage3) -> None:
    media_id = stage.publish(0.99)
    watch = Defers()
    limits = LimitSettings(failures=2, open_s=0.2)
    with held_port() as port, stage.runner(port, watch, limits=limits) as runner:
        stage.turn_until(runner, lambda: watch.seen, "the server was found absent")
        assert stage.mailbox.decisions(media_id) == []
        with model_server(json.dumps(SYNTHETIC), port):
            assert stage.decide(runner, media_id).topic is Topic.BLOCK
    assert len(stage.mailbox.decisions(media_id)) == 1
