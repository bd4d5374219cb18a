"""Decisions become cases once, whatever is delivered how often."""

from __future__ import annotations

import itertools
from pathlib import Path

import pytest
from sqlalchemy import select
from sqlalchemy.exc import InterfaceError
from sqlalchemy.exc import TimeoutError as NoFreeConnection

from pipeline.streaming.codec import TopicNames
from pipeline.streaming.memory import MemoryBroker, MemorySource
from pipeline.streaming.transport import CommitPoint, TopicPartition
from schemas.decision import Outcome, Risk
from schemas.ocsf import encode_finding, finding_from_closed_case, finding_from_decision, finding_from_review
from schemas.review import Label
from schemas.topics import DECISION_TOPICS, Topic
from tests.support.findings import review_of
from tests.support.reviewing import Site, escalated, uid
from workers.console.consumer import DecisionConsumer
from workers.console.domain.errors import NoSuchCase
from workers.console.domain.models import CaseState
from workers.console.domain.settings import ReviewSettings
from workers.console.domain.tables import cases, metadata
from workers.console.domain.turn import moment
from workers.web.database import reading


class CommittingSource(MemorySource):
    """Commits as Kafka does, for its reader's own positions."""

    def __init__(self, broker: MemoryBroker) -> None:
        super().__init__(broker)
        self.broker = broker

    def bounds(self, tp: TopicPartition) -> tuple[int, int] | None:
        raise AssertionError("the console asks for no bounds")

    def start(self, tp: TopicPartition, offset: int) -> bool:
        raise AssertionError("the console holds no partition")

    def commit(self, offsets: dict[TopicPartition, CommitPoint]) -> None:  # type: ignore[override]
        self.broker.committed |= offsets


@pytest.fixture
def site(tmp_path: Path) -> Site:
    return Site(tmp_path)


def consumer(site: Site, broker: MemoryBroker) -> DecisionConsumer:
    made = DecisionConsumer(CommittingSource(broker), site.intake, TopicNames())
    made.open()
    return made


def states(site: Site) -> dict[str, CaseState]:
    return {row.case_id: row.state for row in site.service.search(None, "").rows}


def test_held_media_waits_and_the_rest_is_kept_for_search(site: Site) -> None:
    ids = [site.held(n, outcome=outcome) for n, outcome in enumerate(Outcome)]
    by_outcome = dict(zip(Outcome, ids, strict=True))
    assert states(site) == {
        by_outcome[Outcome.BLOCK]: CaseState.MACHINE,
        by_outcome[Outcome.ESCALATE]: CaseState.OPEN,
        by_outcome[Outcome.PASS]: CaseState.MACHINE,
    }


def test_a_decision_delivered_again_changes_nothing(site: Site) -> None:
    one = escalated(0, site.clock.wall_s())
    site.add(one, one)
    claim = site.service.claim("ann", None)
    assert claim is not None
    site.add(one)
    site.service.decide(claim.token, Label.PHOTOGRAPH, "", reviewer="ann")
    site.add(one)
    assert list(states(site).values()) == [CaseState.CLOSED]


@pytest.mark.parametrize("order", list(itertools.permutations(Outcome)))
@pytest.mark.parametrize("together", [True, False])
def test_of_several_decisions_under_one_uid_the_strictest_counts(
    site: Site, order: tuple[Outcome, ...], together: bool
) -> None:
    made = [escalated(0, site.clock.wall_s(), outcome=outcome) for outcome in order]
    for batch in [made] if together else [[one] for one in made]:
        site.add(*batch)
    (row,) = site.service.search(None, "").rows
    assert row.outcome is Outcome.BLOCK


def test_a_pass_that_is_also_held_is_opened(site: Site) -> None:
    now = site.clock.wall_s()
    site.add(escalated(0, now, outcome=Outcome.PASS))
    (case_id,) = site.add(escalated(0, now))
    claim = site.service.claim("ann", None)
    assert claim is not None
    assert claim.case_id == case_id
    site.add(escalated(0, now, outcome=Outcome.BLOCK))  # she goes on
    assert site.service.decide(claim.token, Label.PHOTOGRAPH, "", reviewer="ann").outcome is Outcome.PASS


def test_the_consumer_stores_decisions_and_passes_over_reviews_and_garbage(site: Site) -> None:
    broker, now = MemoryBroker(), site.clock.wall_s()
    made = [escalated(n, now, outcome=outcome) for n, outcome in enumerate(Outcome)]
    for one in made:
        broker.append(DECISION_TOPICS[one.outcome].value, encode_finding(finding_from_decision(one)))
    other = escalated(9, now)
    review = review_of(other)
    broker.append(Topic.PASS.value, encode_finding(finding_from_review(other, review, 1)))
    broker.append(Topic.PASS.value, encode_finding(finding_from_closed_case(other, review, review.reviewed_at, 2)))
    broker.append(Topic.ESCALATE.value, b"{")
    worker = consumer(site, broker)
    assert worker.turn()
    assert set(states(site)) == {str(one.decision_uid) for one in made}
    assert {tp.topic: point.offset for tp, point in broker.committed.items()} == {
        "decisions.block": 1,
        "decisions.escalate": 2,
        "decisions.pass": 3,
    }
    worker.close()


def test_a_database_that_does_not_answer_is_waited_for(site: Site) -> None:
    broker = MemoryBroker()
    broker.append(Topic.ESCALATE.value, encode_finding(finding_from_decision(escalated(0, site.clock.wall_s()))))
    worker = consumer(site, broker)
    metadata.drop_all(site.engine)
    assert not worker.turn()
    assert not broker.committed
    metadata.create_all(site.engine)
    assert worker.turn()
    assert broker.committed[TopicPartition("decisions.escalate", 0)] == CommitPoint(1)
    assert site.service.stats(None).waiting == 1


def test_the_history_of_passes_ends_and_what_people_decided_stays(site: Site) -> None:
    passed = site.held(0, outcome=Outcome.PASS)
    decided = site.held(1)
    claim = site.service.claim("ann", None)
    assert claim is not None
    site.service.decide(claim.token, Label.PHOTOGRAPH, "", reviewer="ann")
    site.publish()
    site.clock.advance(site.settings.history_days * 86_400 - 1)
    assert site.publisher().tidy() == 0
    site.clock.advance(2)
    assert site.publisher().tidy() == 1 + 6  # the pass, and the records of the other case
    assert site.publisher().tidy() == 0
    assert list(states(site)) == [decided]
    assert site.waiting() == []
    with pytest.raises(NoSuchCase):
        site.service.appeal(uid(passed), None, "ann", "why")


@pytest.mark.parametrize("keep", [True, False])
def test_released_media_is_kept_when_asked_for(tmp_path: Path, keep: bool) -> None:
    site = Site(tmp_path, ReviewSettings(keep_released=keep))
    low_risk = escalated(0, site.clock.wall_s(), outcome=Outcome.PASS)
    released = escalated(1, site.clock.wall_s(), outcome=Outcome.PASS).model_copy(update={"risk": Risk.RELEASED})
    site.add(low_risk, released)
    assert len(states(site)) == 1 + keep


def test_the_flow_counts_what_the_machine_decided(site: Site) -> None:
    for number, (outcome, score) in enumerate([(Outcome.BLOCK, 1.0), (Outcome.PASS, 0.02), (Outcome.ESCALATE, None)]):
        site.held(number, outcome=outcome, score=score)
        site.clock.advance(3600.0)
    claim = site.service.claim("ann", None)
    assert claim is not None
    site.service.decide(claim.token, Label.PHOTOGRAPH, "", reviewer="ann")
    flow = site.service.flow(None, moment(0.0))
    assert {(cell.stage.value, cell.outcome.value): cell.count for cell in flow.cells} == {
        ("mllm", "block"): 1,
        ("mllm", "escalate"): 1,
        ("mllm", "pass"): 1,
    }
    assert [(hour.outcome.value, hour.count) for hour in flow.hours] == [("block", 1), ("pass", 1), ("escalate", 1)]
    assert [(one.low, one.outcome.value) for one in flow.scores] == [(0.0, "pass"), (0.95, "block")]
    assert flow.unscored == 1
    assert not site.service.flow(None, moment(site.clock.wall_s())).cells


def test_stats_of_a_queue(site: Site) -> None:
    assert site.service.stats(None).oldest_age_s == 0.0
    site.held(0, score=0.9)
    site.clock.advance(100.0)
    site.held(1, score=0.1)
    site.held(2, score=0.1)
    site.clock.advance(10.0)
    claim = site.service.claim("ann", None)
    stats = site.service.stats(None)
    assert claim is not None
    assert (stats.waiting, stats.leased, stats.oldest_age_s, stats.median_age_s) == (3, 1, 110.0, 10.0)
    site.service.decide(claim.token, Label.PHOTOGRAPH, "", reviewer="ann")  # the machine leaned to synthetic
    other = site.service.claim("ann", None)
    assert other is not None
    site.service.decide(other.token, Label.PHOTOGRAPH, "", reviewer="ann")
    stats = site.service.stats(None)
    assert (stats.waiting, stats.opened_last_day, stats.closed_last_day, stats.agreed) == (1, 3, 2, 0.5)
    assert stats.labels_last_day == {Label.PHOTOGRAPH: 2}
    assert [(r.reviewer, r.reviews, r.agreed) for r in stats.reviewers] == [("ann", 2, 0.5)]


def test_similar_cases_are_of_the_same_bytes_first(site: Site) -> None:
    near = site.held(1, scores=(0.5, 0.5))
    far = site.held(2, scores=(0.9, 0.9))
    same = site.held(3, scores=(0.1, 0.1), media_id="img-a")
    for _ in range(3):
        claim = site.service.claim("ann", None)
        assert claim is not None
        site.service.decide(claim.token, Label.PHOTOGRAPH, "", reviewer="ann")
    asked = site.held(3, scores=(0.5, 0.5), media_id="img-b")
    assert [row.case_id for row in site.service.similar(asked, None)] == [same, near, far]
    assert len(site.service.similar(asked, None, limit=1)) == 1


def test_search_finds_every_word_anywhere_and_ids_exactly(site: Site) -> None:
    first = site.held(0, media_id="Holiday-1", uri="https://media.example.org/100%_sure.jpg", labels={"desk": "sports"})
    other = site.held(1, media_id="holiday-2")
    found = {
        text: {row.case_id for row in site.service.search(None, text).rows}
        for text in ("holiday", "HOLIDAY sports", "desk=sports", "100%_sure", "100%xsure", first, "0" * 64, "")
    }
    both = {first, other}
    assert found == {
        "holiday": both,
        "HOLIDAY sports": {first},
        "desk=sports": {first},
        "100%_sure": {first},
        "100%xsure": set(),
        first: {first},
        "0" * 64: set(),
        "": both,
    }
    sha256 = site.service.case(first, None).decision.facts
    assert sha256 is not None
    assert [row.case_id for row in site.service.search(None, sha256.sha256).rows] == [first]


def test_lists_come_in_pages(tmp_path: Path) -> None:
    site = Site(tmp_path, ReviewSettings(page_rows=2))
    ids = {site.held(n) for n in range(5)}
    pages = [site.service.queue(None, number) for number in (1, 2, 3)]
    assert [(len(page.rows), page.more) for page in pages] == [(2, True), (2, True), (1, False)]
    assert {row.case_id for page in pages for row in page.rows} == ids
    with pytest.raises(ValueError, match="page"):
        site.service.queue(None, 0)


def test_a_character_that_some_databases_refuse_is_replaced(site: Site) -> None:
    case_id = site.held(0, labels={"desk": "a\0b"})
    with reading(site.engine) as connection:
        assert "\0" not in connection.scalar(select(cases.c.words))
    assert [row.case_id for row in site.service.search(None, "a\0b").rows] == [case_id]
    assert site.service.case(case_id, None).decision.admission.labels == {"desk": "a\0b"}


@pytest.mark.parametrize("error", [NoFreeConnection("none"), InterfaceError("x", None, Exception("closed"))])
def test_a_database_without_a_free_connection_is_waited_for(
    site: Site, monkeypatch: pytest.MonkeyPatch, error: Exception
) -> None:
    broker = MemoryBroker()
    broker.append(Topic.ESCALATE.value, encode_finding(finding_from_decision(escalated(0, site.clock.wall_s()))))
    worker = consumer(site, broker)

    def away(_: object) -> int:
        raise error

    with monkeypatch.context() as patch:
        patch.setattr(site.intake, "store", away)
        assert not worker.turn()
    assert worker.turn()
    assert site.service.backlog().waiting == 1
