"""A decision whose evidence cannot be written is not published, and is once the store takes it again."""

from __future__ import annotations

import base64
import io
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from uuid import uuid4

import pytest
from PIL import Image

from pipeline.app import build_runner
from pipeline.evidence.manifest import read_manifest
from pipeline.media.content_store import ContentStore, open_store
from pipeline.media.store_settings import KeySettings, StoreSettings
from pipeline.streaming.kafka.config import KafkaSettings
from pipeline.streaming.kafka.embedded import EmbeddedKafka
from pipeline.streaming.partitions import Entry
from pipeline.streaming.plan import RunnerSettings
from pipeline.streaming.runner import Runner
from pipeline.streaming.stage import Defer
from pipeline.streaming.watch import Watch
from schemas.base import Record
from schemas.decision import ReasonCode, Risk
from schemas.media import MediaReference
from schemas.topics import Topic
from schemas.types import StageName
from schemas.wire import encode
from tests.support.kafka import TIMEOUT_S, create_topics, delete_topics, produce
from tests.support.mailbox import Decided, Mailbox
from tests.support.pinned_bundle import make_pinned_bundle
from tests.support.records import anomalous, suspect
from tests.support.s3_server import S3Server, running_s3
from tests.support.waiting import wait_until
from workers.classifier.settings import ClassifierSettings
from workers.registry import build_worker
from workers.settings import Settings
from workers.spectral.settings import SpectralSettings

pytestmark = [pytest.mark.fault, pytest.mark.kafka]

GIVE_UP_S = 1.0
WAITS = 4
"""Deferrals to be seen while the store is full: more than one runs into `GIVE_UP_S`, and so into the fallback."""


@dataclass
class Waits(Watch):
    """Remembers why records had to wait."""

    seen: list[Defer] = field(default_factory=list)

    def defer(self, entry: Entry, defer: Defer) -> None:
        self.seen.append(defer)


@dataclass(frozen=True)
class Site:
    """A bucket, topics and a folder of media of one test."""

    kafka: KafkaSettings
    topics: dict[Topic, str]
    mailbox: Mailbox
    s3: S3Server
    home: Path

    @property
    def store(self) -> StoreSettings:
        keys = {"m": self.home / "master"}
        return StoreSettings(
            url="s3://evidence",
            options=self.s3.options,
            keys=KeySettings(url="s3://vault", options=self.s3.options, master_keys=keys, current="m"),
        )

    @contextmanager
    def runner(self, stage: StageName, watch: Watch, bundle: Path | None = None) -> Iterator[Runner]:
        """Joined and warm; leaves in good order."""
        settings = Settings(
            kafka=self.kafka,
            store=self.store,
            bundle=bundle,
            runner=RunnerSettings(
                dependency_max_age_s=GIVE_UP_S, backoff_first_s=0.05, backoff_max_s=0.2, drain_timeout_s=5.0
            ),
            classifier=ClassifierSettings.model_validate({"fetch": {"file_roots": [self.home]}, "slots": 4}),
            spectral=SpectralSettings(processes=1),
        )
        runner = build_runner(build_worker(stage, settings), settings, watch=watch)
        try:
            runner.open()
            yield runner
        finally:
            runner.drain()

    def publish(self, topic: Topic, record: Record) -> None:
        produce(self.kafka.bootstrap, self.topics[topic], [encode(record)])

    def decisions(self, runner: Runner, media_id: str) -> list[Decided]:
        runner.tick()
        return self.mailbox.decisions(media_id)


@pytest.fixture
def site(kafka: EmbeddedKafka, tmp_path: Path) -> Iterator[Site]:
    prefix = f"f{uuid4().hex[:12]}"
    topics = create_topics(kafka.bootstrap, prefix)
    mailbox = Mailbox(kafka.bootstrap, topics)
    (tmp_path / "master").write_bytes(base64.b64encode(bytes(32)))
    with running_s3() as s3:
        yield Site(KafkaSettings(bootstrap=kafka.bootstrap, topic_prefix=prefix), topics, mailbox, s3, tmp_path)
    mailbox.close()
    delete_topics(kafka.bootstrap, list(topics.values()))


def png(colour: int) -> bytes:
    buffer = io.BytesIO()
    Image.new("RGB", (256, 128), (colour, 120, 160)).save(buffer, "PNG")
    return buffer.getvalue()


def reference_to_what_does_not_decode(site: Site, media_id: str, store: ContentStore) -> tuple[Topic, Record]:
    (site.home / "broken.png").write_bytes(png(90)[:60])
    return Topic.INGEST, MediaReference(uri=(site.home / "broken.png").as_uri(), media_id=media_id)


def suspect_whose_content_is_gone(site: Site, media_id: str, store: ContentStore) -> tuple[Topic, Record]:
    return Topic.SUSPECT, suspect(media_id)


def anomaly_for_no_model(site: Site, media_id: str, store: ContentStore) -> tuple[Topic, Record]:
    return Topic.ANOMALOUS, anomalous(media_id, store, png(90), png(30), 0.9)


@pytest.mark.parametrize(
    ("stage", "make", "code", "status"),
    [
        (StageName.CLASSIFIER, reference_to_what_does_not_decode, ReasonCode.MEDIA_TRUNCATED, 507),
        (StageName.SPECTRAL, suspect_whose_content_is_gone, ReasonCode.CONTENT_MISSING, 503),
        (StageName.MLLM, anomaly_for_no_model, ReasonCode.MLLM_UNCONFIGURED, 503),
    ],
    ids=[*StageName],
)
def test_nothing_is_decided_while_the_store_is_full(
    stage: StageName, make: object, code: ReasonCode, status: int, site: Site
) -> None:
    media_id, watch, store = uuid4().hex, Waits(), open_store(site.store)
    topic, record = make(site, media_id, store)  # type: ignore[operator]  # a function of the table above
    before = dict(site.s3.objects)
    site.s3.refuses = status
    with site.runner(stage, watch) as runner:
        site.publish(topic, record)
        wait_until(
            lambda: site.decisions(runner, media_id) or len(watch.seen) >= WAITS, TIMEOUT_S, "the record to wait"
        )
        assert site.mailbox.decisions(media_id) == []
        assert all(defer.cause.startswith("content store: ") for defer in watch.seen)
        assert site.s3.refused > 0
        assert site.s3.objects == before
        site.s3.refuses = None
        wait_until(lambda: site.decisions(runner, media_id), TIMEOUT_S, "the decision")
        for _ in range(20):
            runner.tick()
    (decided,) = site.mailbox.decisions(media_id)
    decision = decided.decision
    assert decision.reasons[0].code is code
    for kept in decision.evidence:
        store.get_evidence(kept.uri, kept.sha256)
    manifest = read_manifest(decision, store)
    assert manifest is not None
    assert manifest.decision_uid == decision.decision_uid
    assert manifest.evidence == decision.evidence[:-1]


def test_a_first_pass_needs_no_store_and_leaves_no_object(site: Site) -> None:
    """The store is full all the time."""
    media_id, watch = uuid4().hex, Waits()
    bundle = make_pinned_bundle(site.home / "bundle", t1=1.0, priority=1.0)
    (site.home / "flat.png").write_bytes(png(90))
    site.s3.refuses = 503
    with site.runner(StageName.CLASSIFIER, watch, bundle) as runner:
        site.publish(Topic.INGEST, MediaReference(uri=(site.home / "flat.png").as_uri(), media_id=media_id))
        wait_until(lambda: site.decisions(runner, media_id), TIMEOUT_S, "the decision")
    (decided,) = site.mailbox.decisions(media_id)
    assert decided.decision.risk is Risk.RELEASED
    assert decided.decision.evidence == ()
    assert (site.s3.objects, site.s3.refused) == ({}, 0)
