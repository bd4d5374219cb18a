"""Reviews become labelled samples with their provenance, and samples become candidates, once."""

from __future__ import annotations

import hashlib
from datetime import timedelta
from typing import Any
from uuid import UUID, uuid5

import pytest

from pipeline.detection.spectral.few_shot import MAX_SAMPLES, MIN_SAMPLES
from pipeline.evidence.archive import Archive, ArchivedDecision
from pipeline.media.errors import StoreUnavailable
from pipeline.observability.metrics import Metrics
from pipeline.streaming.clock import SystemClock
from pipeline.streaming.transport import RawRecord, TopicPartition
from pipeline.streaming.watch import Watch
from schemas.decision import Decision, Outcome, ReasonCode
from schemas.media import StageScore
from schemas.ocsf import encode_finding, finding_from_decision
from schemas.review import Label, ReviewVerdict
from schemas.topics import DECISION_TOPICS
from schemas.types import StageName
from schemas.wire import encode
from tests.support import cases
from tests.support.learning import NOW, TENANT, Site
from workers.adaptation import learner
from workers.adaptation.learner import MAX_WAIT, Learner
from workers.adaptation.publication import BUNDLE
from workers.adaptation.records import Candidate, LabelledSample, Refusal
from workers.adaptation.settings import Promotion, ReferenceSettings
from workers.adaptation.worker import loop as run_loop
from workers.adaptation.worker import offer

_NAMES = UUID(int=3)


def decision(name: str, outcome: Outcome = Outcome.ESCALATE) -> Decision:
    uid = uuid5(_NAMES, name)
    base = cases.decision(outcome, ReasonCode.UNCERTAIN)
    score = StageScore(stage=StageName.SPECTRAL, score=0.7, bundle_version="b1", model="m", note="lossless/128_383")
    return base.model_copy(
        update={
            "decision_uid": uid,
            "admission": base.admission.model_copy(update={"decision_uid": uid, "media_id": name, "source": "camera"}),
            "facts": cases.facts(name.encode()),
            "scores": (score,),
        }
    )


def verdict(name: str, label: Label = Label.GENERATED, reviewer: str = "r-1", **fields: Any) -> ReviewVerdict:
    family = "new" if label is Label.GENERATED else None
    given = {"family": family, "media_id": name, "tenant": "acme", "rationale": "", **fields}
    return ReviewVerdict(
        review_id=uuid5(_NAMES, f"{name} {reviewer} {label}"),
        decision_uid=uuid5(_NAMES, name),
        label=label,
        reviewer=reviewer,
        reviewed_at=NOW,
        **given,
    )


def raw(value: bytes) -> RawRecord:
    return RawRecord(TopicPartition("reviews.verdicts", 0), 0, None, value)


class Loop:
    """A learner over stores in memory."""

    def __init__(self, promotion: Promotion = Promotion.MANUAL) -> None:
        self.site = Site()
        self.metrics = Metrics()
        self.archive = Archive(self.site.content, self.site.content.objects)
        self.learner = self.restarted(promotion)
        self.built: list[Candidate] = []

    def restarted(self, promotion: Promotion = Promotion.MANUAL) -> Learner:
        def offered(candidate: Candidate) -> None:
            self.built.append(candidate)
            offer(self.site.publisher, promotion, candidate, self.metrics)

        return Learner(
            self.archive,
            self.site.store,
            self.site.builder,
            self.site.current,
            offered,
            tenants=(TENANT,),
            metrics=self.metrics,
        )

    def archived(self, name: str, outcome: Outcome = Outcome.ESCALATE) -> None:
        made = decision(name, outcome)
        self.archive.put(made, encode_finding(finding_from_decision(made)), DECISION_TOPICS[outcome], 0, 7)

    def reviewed(self, name: str, label: Label = Label.GENERATED, reviewer: str = "r-1", **fields: Any) -> None:
        self.learner.take(raw(encode(verdict(name, label, reviewer, **fields))))

    def many(self, count: int, first: int = 0) -> None:
        for number in range(first, first + count):
            name = f"m-{number}"
            data = name.encode()
            self.site.measures.shifts[data] = 0.5
            self.site.content.put("acme", hashlib.sha256(data).hexdigest(), data)
            self.archived(name)
            self.reviewed(name)

    def metric(self, name: str, **labels: str) -> float | None:
        return self.metrics.registry.get_sample_value(name, labels)

    def family(self, name: str, count: int, shift: float = 0.5) -> None:
        """So many reviewed images of a family, each with a decision."""
        for number in range(count):
            image = f"{name}-{number}"
            self.site.measures.shifts[image.encode()] = shift
            self.site.content.put("acme", hashlib.sha256(image.encode()).hexdigest(), image.encode())
            self.archived(image)
            self.reviewed(image, family=name)

    def samples(self) -> list[LabelledSample]:
        return list(self.site.store.samples())


def test_a_sample_says_where_it_comes_from() -> None:
    loop = Loop()
    loop.archived("m")
    loop.reviewed("m")
    (sample,) = loop.samples()
    assert sample == LabelledSample(
        review_id=verdict("m").review_id,
        decision_uid=uuid5(_NAMES, "m"),
        tenant="acme",
        content_sha256=hashlib.sha256(b"m").hexdigest(),
        label=Label.GENERATED,
        family="new",
        reviewer="r-1",
        reviewed_at=NOW,
        outcome=Outcome.ESCALATE,
        stage_exited=StageName.CLASSIFIER,
        source="camera",
        stratum="lossless/128_383",
        bundle_version="b1",
        policy_version="p1",
        sampling_probability=1.0,
    )


def test_what_was_appealed_was_not_drawn() -> None:
    loop = Loop()
    loop.archived("m", Outcome.BLOCK)
    loop.reviewed("m", Label.PHOTOGRAPH)
    assert [sample.sampling_probability for sample in loop.samples()] == [None]


def test_a_review_waits_for_its_decision() -> None:
    loop = Loop()
    loop.reviewed("m")
    assert (loop.samples(), loop.learner.waiting) == ([], 1)
    loop.archived("m")
    loop.learner.retry()
    assert (len(loop.samples()), loop.learner.waiting) == (1, 0)


def test_a_review_that_is_read_again_changes_nothing() -> None:
    loop = Loop()
    loop.archived("m")
    loop.reviewed("m")
    before = loop.samples()
    loop.learner = loop.restarted()
    loop.reviewed("m", rationale="changed")
    assert loop.samples() == before
    assert loop.learner.waiting == 0


@pytest.mark.parametrize("fields", [{"media_id": "another"}, {"tenant": "rival"}])
def test_a_review_of_other_media_than_its_decisions_is_dropped(fields: dict[str, str]) -> None:
    loop = Loop()
    loop.archived("m")
    loop.reviewed("m", **fields)
    assert (loop.samples(), loop.learner.waiting) == ([], 0)


def test_a_review_of_an_erased_decision_is_dropped() -> None:
    loop = Loop()
    loop.archived("m")
    (archived,) = loop.archive.get(uuid5(_NAMES, "m"))
    loop.site.content.delete(loop.site.content.key_of(archived.record_uri))
    loop.reviewed("m")
    assert (loop.samples(), loop.learner.waiting) == ([], 0)


def test_what_is_no_review_is_passed_over() -> None:
    loop = Loop()
    loop.learner.take(raw(b"nothing"))
    assert loop.learner.waiting == 0


def test_a_family_is_tried_when_it_has_samples_enough_and_once() -> None:
    loop = Loop()
    loop.many(9)
    assert loop.learner.learn() == []
    loop.many(21, first=9)
    (found,) = loop.learner.learn()
    assert isinstance(found, Candidate)
    assert loop.learner.learn() == []
    loop.learner = loop.restarted()
    assert loop.learner.learn() == [], "it waits for somebody to promote it"
    assert loop.built == [found, found], "offered again, in case the loop died before"
    assert loop.site.board.pointers == []
    assert loop.metric("mediasieve_adaptation_trials_total", result="built") == 1.0
    assert loop.metric("mediasieve_adaptation_offers_total", result="waits") == 2.0


def test_what_was_refused_is_tried_again_when_a_review_comes() -> None:
    loop = Loop()
    loop.many(12)
    (first,) = loop.learner.learn()
    assert isinstance(first, Refusal), "too few to rule out wrong labels"
    loop.learner = loop.restarted()
    assert loop.learner.learn() == []
    loop.many(28, first=12)
    (second,) = loop.learner.learn()
    assert isinstance(second, Candidate)


def test_a_candidate_may_watch_or_decide_by_setting() -> None:
    for promotion, decides in ((Promotion.SHADOW, False), (Promotion.ACTIVE, True)):
        loop = Loop(promotion)
        loop.many(30)
        (found,) = loop.learner.learn()
        assert isinstance(found, Candidate)
        (pointer,) = loop.site.board.pointers
        assert (pointer.active if decides else pointer.shadow) == found.artefact
        assert (pointer.shadow if decides else pointer.active) is None


def test_a_review_whose_decision_is_never_archived_is_given_up_after_a_week() -> None:
    loop = Loop()
    loop.reviewed("m")
    loop.site.now = NOW + MAX_WAIT - timedelta(seconds=2)
    loop.learner.retry()
    assert loop.learner.waiting == 1
    loop.site.now = NOW + MAX_WAIT
    loop.learner.retry()
    assert loop.learner.waiting == 0
    assert loop.metric("mediasieve_adaptation_reviews_total", result="not_archived") == 1.0


def test_those_that_wait_are_looked_at_in_turn_and_not_all_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(learner, "RETRIED_AT_ONCE", 2)
    loop, turns = Loop(), []
    asked: list[UUID] = []
    get = loop.archive.get

    def asking(uid: UUID) -> list[ArchivedDecision]:
        asked.append(uid)
        return get(uid)

    monkeypatch.setattr(loop.archive, "get", asking)
    loop.learner.turn = lambda: turns.append(1)
    for name in "abc":
        loop.reviewed(name)
    asked.clear()
    for _ in range(3):
        loop.learner.retry()
    assert asked == [uuid5(_NAMES, name) for name in "abcabc"]
    assert len(turns) == 6


def test_each_sample_is_read_once_and_the_watch_turns_meanwhile(monkeypatch: pytest.MonkeyPatch) -> None:
    loop, turns = Loop(), []
    read: list[str] = []
    sample = loop.site.store.sample

    def reading(key: str) -> LabelledSample:
        read.append(key)
        return sample(key)

    monkeypatch.setattr(loop.site.store, "sample", reading)
    loop.learner.turn = lambda: turns.append(1)
    loop.many(3)
    loop.learner.learn()
    loop.many(1, first=3)
    loop.learner.learn()
    assert len(read) == len(set(read)) == 4
    assert len(turns) == 4


def test_a_labelled_sample_that_cannot_be_read_is_left_out() -> None:
    loop = Loop()
    loop.many(30)
    key = f"references/labelled/{verdict('m-0').review_id}.json"
    loop.site.content.objects.replace(key, b"half of i")
    (found,) = loop.learner.learn()
    assert isinstance(found, Candidate)
    assert len(found.samples) == 29


def test_reviewers_of_tenants_that_do_not_teach_change_nothing() -> None:
    loop = Loop(Promotion.ACTIVE)
    loop.many(30)
    loop.learner.tenants = ("another",)
    assert loop.learner.learn() == []
    loop.learner = loop.restarted(Promotion.ACTIVE)
    loop.learner.tenants = ("*",)
    assert [type(result) for result in loop.learner.learn()] == [Candidate]
    assert len(loop.samples()) == 30, "what they said is kept"


def test_a_candidate_that_was_built_and_not_offered_is_offered_after_a_restart() -> None:
    """As after a crash, or an outage of the brokers, between the two."""
    loop = Loop(Promotion.ACTIVE)
    loop.many(30)
    loop.learner.offer = lambda candidate: None
    (found,) = loop.learner.learn()
    assert isinstance(found, Candidate)
    for _ in range(2):
        loop.learner = loop.restarted(Promotion.ACTIVE)
        assert loop.learner.learn() == []
    assert [pointer.active for pointer in loop.site.board.pointers] == [found.artefact]


def test_two_families_in_one_round_build_on_each_other() -> None:
    loop = Loop(Promotion.ACTIVE)
    loop.family("one", 30)
    loop.family("two", 30, shift=-0.5)
    one, two = loop.learner.learn()
    assert isinstance(one, Candidate)
    assert isinstance(two, Candidate)
    assert two.parent == one.version
    assert [pointer.active for pointer in loop.site.board.pointers] == [one.artefact, two.artefact]


def test_the_worker_does_not_bring_back_what_a_person_rolled_back() -> None:
    loop = Loop(Promotion.ACTIVE)
    loop.family("one", 30)
    loop.learner.learn()
    loop.site.publisher.rollback(BUNDLE, "ops", "alarms")
    loop.family("two", 30, shift=-0.5)
    loop.learner.learn()
    loop.family("one", 31)
    loop.learner = loop.restarted(Promotion.ACTIVE)
    loop.learner.learn()
    head = loop.site.publisher.head()
    assert head is not None
    assert head.active is not None
    assert head.active.families == ("two",)
    assert any(
        c.family == "one" and c.parent == head.active.version for c in loop.site.store.candidates(loop.site.base)
    )


def test_a_candidate_does_not_displace_one_that_watches() -> None:
    loop = Loop(Promotion.SHADOW)
    loop.family("one", 30)
    loop.family("two", 30, shift=-0.5)
    one, two = loop.learner.learn()
    assert isinstance(one, Candidate)
    assert isinstance(two, Candidate)
    assert [pointer.shadow for pointer in loop.site.board.pointers] == [one.artefact]


def test_a_candidate_whose_samples_are_disputed_since_is_tried_again() -> None:
    loop = Loop()
    loop.many(30)
    (first,) = loop.learner.learn()
    assert isinstance(first, Candidate)
    loop.reviewed("m-0", Label.PHOTOGRAPH, reviewer="r-2")
    (second,) = loop.learner.learn()
    assert isinstance(second, Candidate)
    assert len(second.samples) == 29


def test_without_the_store_a_review_waits(monkeypatch: pytest.MonkeyPatch) -> None:
    loop = Loop()
    loop.archived("m")

    def down(key: str, size: int) -> tuple[bytes, int]:
        raise StoreUnavailable("disk full")

    with monkeypatch.context() as patch:
        patch.setattr(loop.site.content.objects, "read_start", down)
        with pytest.raises(StoreUnavailable):
            loop.reviewed("m")
    loop.learner.retry()
    assert len(loop.samples()) == 1


def test_the_settings_bound_samples_as_the_few_shot_update_does() -> None:
    (low, high) = ReferenceSettings.model_fields["min_samples"].metadata
    assert (low.ge, high.le) == (MIN_SAMPLES, MAX_SAMPLES)


class Reviews:
    """Gives these records, then nothing; the loop ends after `turns` polls."""

    def __init__(self, records: list[RawRecord], turns: int) -> None:
        self.records, self.turns = records, turns

    def poll(self, timeout_s: float) -> RawRecord | None:
        self.turns -= 1
        return self.records.pop(0) if self.records else None

    def stopping(self) -> bool:
        return self.turns <= 0


def turn(loop: Loop, names: list[str], turns: int) -> None:
    reviews = Reviews([raw(encode(verdict(name))) for name in names], turns)
    run_loop(reviews, loop.learner, clock=SystemClock(), watch=Watch(), retry_s=1e-9, stopping=reviews.stopping)


def test_the_worker_reads_all_that_came_and_then_learns() -> None:
    loop = Loop(Promotion.ACTIVE)
    names = [f"m-{number}" for number in range(30)]
    for name in names:
        loop.site.measures.shifts[name.encode()] = 0.5
        loop.site.content.put("acme", hashlib.sha256(name.encode()).hexdigest(), name.encode())
        loop.archived(name)
    turn(loop, names, turns=30)
    assert (len(loop.samples()), loop.built) == (30, [])
    turn(loop, [], turns=1)
    assert [pointer.active for pointer in loop.site.board.pointers] == [loop.built[0].artefact]


def test_the_worker_outlives_a_store_that_is_away(monkeypatch: pytest.MonkeyPatch) -> None:
    loop, answers = Loop(), iter([StoreUnavailable("disk full")])
    loop.archived("m")
    read = loop.site.content.objects.read_start

    def once(key: str, size: int) -> tuple[bytes, int]:
        for error in answers:
            raise error
        return read(key, size)

    monkeypatch.setattr(loop.site.content.objects, "read_start", once)
    turn(loop, ["m"], turns=1)
    assert (loop.samples(), loop.learner.waiting) == ([], 1)
    turn(loop, [], turns=1_000)
    assert (len(loop.samples()), loop.learner.waiting) == (1, 0)
