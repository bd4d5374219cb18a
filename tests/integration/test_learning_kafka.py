"""A reviewed family becomes a reference that a running spectral worker takes up, and gives up again."""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from itertools import count
from pathlib import Path
from uuid import uuid4

import orjson
import pytest

from pipeline.evidence.archive import Archive
from pipeline.media.content_store import ContentStore
from pipeline.media.decode import decode_image
from pipeline.streaming.codec import TopicNames
from pipeline.streaming.kafka.admin import TopicAdmin
from pipeline.streaming.kafka.client import RecordReader
from pipeline.streaming.kafka.config import KafkaSettings
from pipeline.streaming.kafka.embedded import EmbeddedKafka
from schemas.media import StageScore, SuspectMedia
from schemas.review import Label, ReferenceUpdate, ReviewVerdict, UpdateAction
from schemas.topics import TOPICS, Topic
from schemas.types import StageName
from schemas.wire import decode, encode
from tests.support.fleet import clean_environment, command_line
from tests.support.kafka import PARTITIONS, TIMEOUT_S, create_topics, delete_topics, produce
from tests.support.learning_images import image_of_the_family
from tests.support.mailbox import Decided, Mailbox
from tests.support.pinned_bundle import make_pinned_bundle
from tests.support.records import TENANT, admission
from tests.support.records import suspect as plain_suspect
from workers.adaptation.keys import make_keys
from workers.fleet import Fleet

pytestmark = [pytest.mark.kafka, pytest.mark.timeout(600)]

SAMPLES = 24
FAMILY = "tiled"
OWN = "spectral/spectral_reference.npz"


@dataclass
class School:
    """One prefix, one store, a spectral worker; the test plays classifier, archive and reviewers."""

    bootstrap: str
    prefix: str
    topics: Mapping[Topic, str]
    environment: Mapping[str, str]
    store: ContentStore
    mailbox: Mailbox
    fleet: Fleet
    _numbers: Iterator[int] = field(default_factory=count)

    def judged(self, data: bytes) -> Decided:
        """What the spectral worker makes of an image under a new media id."""
        sha256 = hashlib.sha256(data).hexdigest()
        self.store.put(TENANT, sha256, data)
        media_id = f"m-{next(self._numbers)}"
        stamped = {"facts": decode_image(data).facts, "admission": admission(media_id, sha256)}
        suspect: SuspectMedia = plain_suspect(media_id).model_copy(update=stamped)
        produce(self.bootstrap, self.topics[Topic.SUSPECT], [encode(suspect)])
        self.fleet.check()
        return self.mailbox.decided(media_id)

    def streamed(self, data: bytes) -> list[str]:
        """Publish the image once to every partition; the media ids, by partition."""
        sha256 = hashlib.sha256(data).hexdigest()
        self.store.put(TENANT, sha256, data)
        media_ids = []
        for partition in range(PARTITIONS):
            media_id = f"m-{next(self._numbers)}"
            stamped = {"facts": decode_image(data).facts, "admission": admission(media_id, sha256)}
            suspect: SuspectMedia = plain_suspect(media_id).model_copy(update=stamped)
            produce(self.bootstrap, self.topics[Topic.SUSPECT], [encode(suspect)], partition)
            media_ids.append(media_id)
        return media_ids

    def judged_by(self, data: bytes, model: str) -> StageScore:
        """The first score of that image by this model: until the worker has read the pointer, another one decides."""
        for _ in range(200):
            score = spectral_score(self.judged(data))
            if score.model == model:
                return score
        raise AssertionError(f"200 items after its publication {model} does not decide")

    def review(self, decided: Decided) -> None:
        """What the audit worker and a reviewer do with a decision."""
        decision, place = decided.decision, decided.record
        Archive(self.store, self.store.objects).put(
            decision, place.value, decided.topic, place.tp.partition, place.offset
        )
        verdict = ReviewVerdict(
            review_id=uuid4(),
            decision_uid=decision.decision_uid,
            tenant=TENANT,
            media_id=decision.admission.media_id,
            label=Label.GENERATED,
            family=FAMILY,
            reviewer="r-1",
            rationale="a tile of 8 px",
            reviewed_at=datetime.now(UTC),
        )
        produce(self.bootstrap, self.topics[Topic.REVIEWS], [encode(verdict)])

    def updates(self, number: int) -> list[ReferenceUpdate]:
        """So many of the first records for the audit log."""
        settings = KafkaSettings(bootstrap=self.bootstrap)
        found: list[ReferenceUpdate] = []
        with RecordReader(settings, [self.topics[Topic.REFERENCE_UPDATES]]) as reader:
            found += [decode(ReferenceUpdate, record.value) for record in reader.to_end(TIMEOUT_S)]
        assert len(found) == number
        return found

    def cli(self, *arguments: str) -> str:
        done = command_line("references", *arguments, environment=self.environment)
        assert done.returncode == 0, done.stderr
        return done.stdout


def spectral_score(decided: Decided) -> StageScore:
    (score,) = [score for score in decided.decision.scores if score.stage is StageName.SPECTRAL]
    return score


@pytest.fixture
def school(kafka: EmbeddedKafka, tmp_path: Path) -> Iterator[School]:
    prefix = f"l{uuid4().hex[:12]}"
    topics = create_topics(kafka.bootstrap, prefix)
    private, public = make_keys(tmp_path / "keys", "tests/references")
    environment = {
        "MEDIASIEVE_KAFKA__BOOTSTRAP": kafka.bootstrap,
        "MEDIASIEVE_KAFKA__TOPIC_PREFIX": prefix,
        "MEDIASIEVE_STORE__URL": (tmp_path / "store").as_uri(),
        "MEDIASIEVE_BUNDLE": str(make_pinned_bundle(tmp_path / "bundle", t2=0.999)),
        "MEDIASIEVE_SPECTRAL__PROCESSES": "2",
        "MEDIASIEVE_REFERENCES__PUBLIC_KEYS": str(public),
        "MEDIASIEVE_REFERENCES__PRIVATE_KEY": str(private),
        "MEDIASIEVE_REFERENCES__KEY_NAME": "tests/references",
        "MEDIASIEVE_REFERENCES__PROMOTION": "shadow",
        "MEDIASIEVE_REFERENCES__MIN_SAMPLES": str(SAMPLES),
        "MEDIASIEVE_REFERENCES__RETRY_S": "0.2",
        "MEDIASIEVE_REFERENCES__TENANTS": f'["{TENANT}"]',
    }
    mailbox = Mailbox(kafka.bootstrap, topics)
    store = ContentStore(environment["MEDIASIEVE_STORE__URL"])
    try:
        with Fleet({"spectral": 1}, clean_environment(environment), tmp_path / "logs") as fleet:
            fleet.wait_ready()
            yield School(kafka.bootstrap, prefix, topics, environment, store, mailbox, fleet)
    finally:
        mailbox.close()
        delete_topics(kafka.bootstrap, list(topics.values()))


def test_a_reviewed_family_changes_the_score_of_the_next_similar_image(school: School, tmp_path: Path) -> None:
    similar = image_of_the_family(1000)
    before = spectral_score(school.judged(similar))
    assert (before.model, before.candidate) == (OWN, None)
    for seed in range(SAMPLES):
        school.review(school.judged(image_of_the_family(seed)))
    with Fleet({"adaptation": 1}, clean_environment(school.environment), tmp_path / "logs") as adaptation:
        adaptation.wait_ready()
        watching = watched(school, adaptation, similar)
        adaptation.check()
    (own, listed) = [orjson.loads(line) for line in school.cli("list", "--json").splitlines()]
    assert (own["state"], listed["state"], listed["family"]) == ("decides", "watches", FAMILY)
    version = listed["version"]
    assert watching.candidate is not None
    assert watching.candidate.model == f"spectral/reference-{version}"
    assert watching.model_copy(update={"candidate": None}) == before

    school.cli("promote", version[:12], "--actor", "ops", "--reason", "it watched well")
    after = school.judged_by(similar, f"spectral/reference-{version}")
    assert after.score == watching.candidate.score
    assert before.score is not None
    assert after.score is not None
    assert after.score > before.score + 0.2

    with Fleet({"spectral": 2}, clean_environment(school.environment), tmp_path / "late") as late:
        late.wait_ready()
        school.fleet.stop()
        school.fleet = late
        assert spectral_score(school.judged(similar)) == after, "one that starts later decides by it at once"
        rolled_back_in_every_worker(school, similar, after.model)
    told = school.updates(2 * SAMPLES)
    assert Counter((update.action, update.reference) for update in told) == {
        (UpdateAction.ADD, version): SAMPLES,
        (UpdateAction.REVOKE, own["version"]): SAMPLES,
    }
    assert {update.family for update in told} == {FAMILY}


def rolled_back_in_every_worker(school: School, similar: bytes, learned: str) -> None:
    """Two workers of two processes share the partitions; a partition's records are begun in their order.

    So in each partition the first decision by the bundle's reference ends those by the learned one: no process, and no
    batch after the one that found the rollback, goes back to it.
    """
    rounds = [school.streamed(similar)]
    school.cli("rollback", "--actor", "ops", "--reason", "alarms")
    while {spectral_score(school.mailbox.decided(m)).model for m in rounds[-1]} != {OWN}:
        assert len(rounds) < 200, "the rollback does not reach every partition"
        school.fleet.check()
        rounds.append(school.streamed(similar))
    for media_ids in zip(*rounds, strict=True):
        models = [spectral_score(school.mailbox.decided(media_id)).model for media_id in media_ids]
        back = models.index(OWN)
        assert models == [learned] * back + [OWN] * (len(models) - back)


def watched(school: School, adaptation: Fleet, similar: bytes) -> StageScore:
    """The first score beside which a candidate's is recorded: until one is built and read, there is none."""
    for _ in range(1000):
        adaptation.check()
        score = spectral_score(school.judged(similar))
        if score.candidate is not None:
            return score
    raise AssertionError("after 1,000 items no candidate watches")


def test_the_topic_of_pointers_is_compacted_and_has_one_partition(school: School) -> None:
    admin = TopicAdmin({"bootstrap.servers": school.bootstrap}, TIMEOUT_S)
    assert admin.check(TOPICS, PARTITIONS, 1, school.prefix) == []
    name = TopicNames(school.prefix).physical(Topic.REFERENCES)
    assert len(admin.end_offsets([name])) == 1
    assert admin._settings([name])[name]["cleanup.policy"] == "compact"
