"""The console's background over a real broker: decisions in, reviews and findings out."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from pipeline.observability.metrics import Metrics
from pipeline.streaming.codec import TopicNames
from pipeline.streaming.kafka.acknowledged import AcknowledgedWriter
from pipeline.streaming.kafka.config import KafkaSettings
from pipeline.streaming.kafka.embedded import EmbeddedKafka
from pipeline.streaming.kafka.source import KafkaSource
from schemas.decision import Outcome
from schemas.ocsf import decode_finding, encode_finding, finding_from_decision
from schemas.review import ActionKind, Label, ReviewAction, ReviewVerdict
from schemas.topics import DECISION_TOPICS, Topic
from schemas.wire import decode
from tests.support.kafka import TIMEOUT_S, produce, read_all
from tests.support.reviewing import Site, escalated
from tests.support.waiting import wait_until
from workers.console.background import Background
from workers.console.consumer import NAME, DecisionConsumer
from workers.console.domain.publisher import OutboxPublisher
from workers.console.domain.settings import ReviewSettings

SETTINGS = ReviewSettings(publish_every_s=0.05, four_eyes_labels=frozenset())


@contextmanager
def background(site: Site, kafka: KafkaSettings) -> Iterator[Background]:
    """Both threads of one console process."""
    names = TopicNames(kafka.topic_prefix)
    writer = AcknowledgedWriter(kafka, 20.0, 1000)
    running = Background(
        DecisionConsumer(KafkaSource(kafka.consumer(NAME)), site.intake, names),
        OutboxPublisher(site.engine, site.clock, writer, names=names, settings=site.settings),
        writer,
        site.service,
        metrics=Metrics(),
        publish_every_s=SETTINGS.publish_every_s,
    )
    running.start()
    try:
        yield running
    finally:
        running.stop()
    assert running.failure is None


@pytest.fixture
def settings(kafka: EmbeddedKafka, prefix: str) -> KafkaSettings:
    return KafkaSettings(bootstrap=kafka.bootstrap, topic_prefix=prefix)


def test_a_held_decision_is_reviewed_and_told_on_the_topic_of_its_new_outcome(
    settings: KafkaSettings, topics: dict[Topic, str], tmp_path: Path
) -> None:
    site = Site(tmp_path, SETTINGS)
    made = [escalated(n, site.clock.wall_s(), outcome=outcome) for n, outcome in enumerate(Outcome)]
    for one in made:
        produce(settings.bootstrap, topics[DECISION_TOPICS[one.outcome]], [encode_finding(finding_from_decision(one))])
    held = next(one for one in made if one.outcome is Outcome.ESCALATE)
    with background(site, settings):
        wait_until(lambda: len(site.service.search(None, "").rows) == 3, TIMEOUT_S, "three cases")
        claim = site.service.claim("ann", None)
        assert claim is not None
        verdict = site.service.decide(claim.token, Label.GENERATED, "the hands", reviewer="ann")
        wait_until(lambda: site.service.stats(None).unpublished == 0, TIMEOUT_S, "an empty outbox")
    blocked = read_all(settings.bootstrap, [topics[Topic.BLOCK]], 3, TIMEOUT_S)
    own = [m for m in blocked if (m.key() or b"").decode() == f"news-desk/{held.admission.media_id}"]
    told = [decode_finding(message.value() or b"") for message in own]
    assert [(f.finding_info.uid, f.activity_name, f.metadata.sequence) for f in told] == [
        (held.decision_uid, "Update", 1),
        (held.decision_uid, "Close", 2),
    ]
    (review,) = read_all(settings.bootstrap, [topics[Topic.REVIEWS]], 1, TIMEOUT_S)
    assert decode(ReviewVerdict, review.value() or b"").review_id == verdict.review_id
    actions = read_all(settings.bootstrap, [topics[Topic.REVIEW_ACTIONS]], 3, TIMEOUT_S)
    assert [decode(ReviewAction, m.value() or b"").action for m in actions] == [
        ActionKind.CLAIMED,
        ActionKind.REVIEWED,
        ActionKind.CLOSED,
    ]


def test_what_was_not_published_goes_out_after_a_restart(
    settings: KafkaSettings, topics: dict[Topic, str], tmp_path: Path
) -> None:
    site = Site(tmp_path, SETTINGS)
    case_id = site.held()
    claim = site.service.claim("ann", None)
    assert claim is not None
    site.service.decide(claim.token, Label.PHOTOGRAPH, "", reviewer="ann")
    after = escalated(1, site.clock.wall_s())
    with background(site, settings):
        wait_until(lambda: site.service.stats(None).unpublished == 0, TIMEOUT_S, "an empty outbox")
    produce(settings.bootstrap, topics[Topic.PASS], [encode_finding(finding_from_decision(after))])
    with background(site, settings):
        wait_until(lambda: len(site.service.search(None, "").rows) == 2, TIMEOUT_S, "the last decision")
    assert len(read_all(settings.bootstrap, [topics[Topic.PASS]], 3, TIMEOUT_S)) == 3
    assert site.service.case(case_id, None).row.outcome is Outcome.PASS
