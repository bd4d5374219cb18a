"""Verdicts: four eyes, what is published, appeals and gold items."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from schemas.decision import Outcome
from schemas.ocsf import decision_from_finding, decode_finding, machine_decision
from schemas.review import ActionKind, Label, ReviewAction, ReviewVerdict
from schemas.topics import DECISION_TOPICS, Topic
from schemas.wire import decode
from tests.support.reviewing import Site, uid
from workers.console.domain.errors import NoSuchCase, NotAppealable, NotYours
from workers.console.domain.models import CaseState, Verdict
from workers.console.domain.settings import ReviewSettings

GENERATED, PHOTOGRAPH, PROCESSED, UNDECIDABLE = (
    Label.GENERATED,
    Label.PHOTOGRAPH,
    Label.AI_PROCESSED,
    Label.UNDECIDABLE,
)


@pytest.fixture
def site(tmp_path: Path) -> Site:
    return Site(tmp_path)


def vote(site: Site, reviewer: str, label: Label, case_id: str | None = None, **more: Any) -> Verdict:
    claim = site.service.claim(reviewer, None, case_id)
    assert claim is not None
    return site.service.decide(claim.token, label, f"says {reviewer}", reviewer=reviewer, **more)


def findings(site: Site) -> list[tuple[str, str, int, str]]:
    """Topic, activity, sequence and disposition of every finding, in the order of the outbox."""
    decisions = {topic.value for topic in DECISION_TOPICS.values()}
    found = [(topic, decode_finding(value)) for topic, value in site.waiting() if topic in decisions]
    return [(t, f.activity_name, f.metadata.sequence, f.disposition) for t, f in found]


@pytest.mark.parametrize(
    ("label", "outcome", "disposition"),
    [(PHOTOGRAPH, "pass", "Allowed"), (PROCESSED, "pass", "Allowed"), (UNDECIDABLE, "block", "Blocked")],
)
def test_one_verdict_closes_a_case_on_the_topic_of_the_new_outcome(
    site: Site, label: Label, outcome: str, disposition: str
) -> None:
    case_id = site.held()
    verdict = vote(site, "ann", label)
    assert (verdict.closed, verdict.outcome) == (True, Outcome(outcome))
    topic = f"decisions.{outcome}"
    assert findings(site) == [(topic, "Update", 1, "Delayed"), (topic, "Close", 2, disposition)]
    row = site.service.case(case_id, None).row
    assert (row.state, row.outcome, row.label) == (CaseState.CLOSED, Outcome(outcome), label)
    assert [r.case_id for r in site.service.recent(None).rows] == [case_id]


def test_generated_needs_two_reviewers_who_agree(site: Site) -> None:
    case_id = site.held()
    first = vote(site, "ann", GENERATED, family="flux")
    assert (first.closed, first.outcome) == (False, None)
    assert findings(site) == [("decisions.escalate", "Update", 1, "Delayed")]
    assert site.service.claim("ann", None) is None
    with pytest.raises(NotYours, match="you have answered"):
        site.service.claim("ann", None, case_id)
    second = vote(site, "ben", GENERATED)
    assert (second.closed, second.outcome) == (True, Outcome.BLOCK)
    assert findings(site)[1:] == [
        ("decisions.block", "Update", 2, "Delayed"),
        ("decisions.block", "Close", 3, "Blocked"),
    ]


def test_the_second_reviewer_does_not_see_the_first_answer(site: Site) -> None:
    case_id = site.held()
    vote(site, "ann", GENERATED)
    seen = site.service.case(case_id, None)
    assert (seen.reviews, seen.row.votes, seen.row.label, seen.needed) == ((), 1, None, 2)
    reviewed = [action for action in seen.history if action.kind is ActionKind.REVIEWED]
    assert [(action.actor, action.label, action.detail) for action in reviewed] == [("ann", None, "")]
    vote(site, "ben", GENERATED)
    seen = site.service.case(case_id, None)
    assert [(r.reviewer, r.label) for r in seen.reviews] == [("ann", GENERATED), ("ben", GENERATED)]
    assert [a.label for a in seen.history if a.kind is ActionKind.REVIEWED] == [GENERATED, GENERATED]


def test_once_reviewers_differ_two_must_agree_and_five_suffice(site: Site) -> None:
    site.held()
    labels = [GENERATED, PHOTOGRAPH, PROCESSED, UNDECIDABLE, PHOTOGRAPH]
    done = [vote(site, f"r{n}", label) for n, label in enumerate(labels)]
    assert [verdict.closed for verdict in done] == [False, False, False, False, True]
    assert done[-1].outcome is Outcome.PASS


def test_four_eyes_can_be_asked_for_by_outcome_or_not_at_all(tmp_path: Path) -> None:
    (tmp_path / "a").mkdir()
    (tmp_path / "b").mkdir()
    strict = Site(tmp_path / "a", ReviewSettings(four_eyes_outcomes=frozenset({Outcome.PASS})))
    strict.held()
    assert not vote(strict, "ann", PHOTOGRAPH).closed
    loose = Site(tmp_path / "b", ReviewSettings(four_eyes_labels=frozenset()))
    loose.held()
    assert vote(loose, "ann", GENERATED).closed


def test_every_action_is_in_the_outbox_with_the_review_itself(site: Site) -> None:
    case_id = site.held()
    claim = site.service.claim("ann", None)
    assert claim is not None
    site.service.release(claim.token, reviewer="ann")
    verdict = vote(site, "ben", PHOTOGRAPH)
    actions = [decode(ReviewAction, value) for topic, value in site.waiting() if topic == Topic.REVIEW_ACTIONS]
    kinds = [(a.action.value, a.actor) for a in actions]
    assert kinds == [
        ("claimed", "ann"),
        ("released", "ann"),
        ("claimed", "ben"),
        ("reviewed", "ben"),
        ("closed", "ben"),
    ]
    assert {str(a.case_id) for a in actions} == {case_id}
    (review,) = [decode(ReviewVerdict, value) for topic, value in site.waiting() if topic == Topic.REVIEWS]
    assert (review.review_id, review.label, review.rationale) == (verdict.review_id, PHOTOGRAPH, "says ben")


def test_a_malformed_answer_changes_nothing(site: Site) -> None:
    site.held()
    claim = site.service.claim("ann", None)
    assert claim is not None
    before = site.waiting()
    with pytest.raises(ValueError, match="rationale"):
        site.service.decide(claim.token, PHOTOGRAPH, "x" * 1025, reviewer="ann")
    with pytest.raises(ValueError, match="family"):
        site.service.decide(claim.token, GENERATED, "", reviewer="ann", family="two words")
    assert site.waiting() == before
    assert site.service.decide(claim.token, PHOTOGRAPH, "x" * 1024, reviewer="ann").closed


def test_people_are_told_apart_from_the_machine(site: Site) -> None:
    site.held()
    vote(site, "ann", PHOTOGRAPH)
    values = [value for topic, value in site.waiting() if topic == "decisions.pass"]
    assert [machine_decision(value) for value in values] == [None, None]
    assert [decision_from_finding(value).outcome for value in values] == [Outcome.ESCALATE] * 2


def test_an_appeal_opens_a_block_for_others_than_before(site: Site) -> None:
    case_id = site.held()
    vote(site, "ann", GENERATED)
    vote(site, "ben", GENERATED)
    assert site.service.appeal(uid(case_id), None, "owner", "it is my own photograph") == case_id
    row = site.service.case(case_id, None).row
    assert (row.state, row.outcome, row.label, row.appealed) == (CaseState.OPEN, Outcome.BLOCK, None, True)
    for name in ("ann", "ben", "owner"):
        assert site.service.claim(name, None) is None
    assert not vote(site, "cid", PHOTOGRAPH).closed
    assert findings(site)[-1] == ("decisions.block", "Update", 4, "Blocked")
    assert vote(site, "dan", PHOTOGRAPH).outcome is Outcome.PASS
    assert findings(site)[-2:] == [
        ("decisions.pass", "Update", 5, "Blocked"),
        ("decisions.pass", "Close", 6, "Allowed"),
    ]
    assert len(site.service.case(case_id, None).reviews) == 4


def test_the_machines_pass_can_be_appealed_and_an_open_case_cannot(site: Site) -> None:
    passed = site.held(0, outcome=Outcome.PASS)
    held = site.held(1)
    assert [row.case_id for row in site.service.queue(None).rows] == [held]
    with pytest.raises(NotAppealable, match="is open"):
        site.service.appeal(uid(held), None, "ann", "why")
    with pytest.raises(NoSuchCase):
        site.service.appeal(uid(passed), frozenset({"others"}), "ann", "why")
    with pytest.raises(ValueError, match="reason"):
        site.service.appeal(uid(passed), None, "ann", "")
    site.service.appeal(uid(passed), None, "ann", "looks made")
    assert site.service.stats(None).appeals == 1


def test_gold_items_measure_and_are_never_decisions(site: Site) -> None:
    case_id = site.held(0)
    vote(site, "ann", PHOTOGRAPH)
    site.service.add_gold(uid(case_id), PHOTOGRAPH, "chief")
    waiting, published = site.held(1), len(findings(site))
    site.draw = 0.0
    claims = {name: site.service.claim(name, None) for name in ("ann", "ben", "cid")}
    assert claims["ann"]
    assert claims["ann"].case_id == waiting
    for name, label in (("ben", PHOTOGRAPH), ("cid", GENERATED)):
        claim = claims[name]
        assert claim
        assert claim.case_id not in (case_id, waiting)
        seen = site.service.case(claim.case_id, None)
        assert (seen.row.state, seen.row.outcome, seen.reviews) == (CaseState.OPEN, Outcome.ESCALATE, ())
        site.service.decide(claim.token, label, "", reviewer=name)
    measured = {r.reviewer: (r.reviews, r.gold_answers, r.gold_correct) for r in site.service.stats(None).reviewers}
    assert measured == {"ann": (1, 0, None), "ben": (0, 1, 1.0), "cid": (0, 1, 0.0)}
    assert len(findings(site)) == published
    assert sum(topic == Topic.REVIEWS for topic, _ in site.waiting()) == 1
    assert site.service.claim("ben", None) is None  # each gold item once, and the rest is ann's
    assert len(site.service.search(None, "").rows) == 2
    assert [row.case_id for row in site.service.recent(None).rows] == [case_id]


def test_gold_must_be_certain(site: Site) -> None:
    with pytest.raises(NotAppealable, match="not certain"):
        site.service.add_gold(uid(site.held()), PHOTOGRAPH, "chief")


def test_a_gold_case_is_of_its_reviewer_alone(site: Site) -> None:
    case_id = site.held()
    vote(site, "ann", PHOTOGRAPH)
    site.service.add_gold(uid(case_id), PHOTOGRAPH, "chief")
    site.draw = 0.0
    claim = site.service.claim("ben", None)
    assert claim is not None
    with pytest.raises(NoSuchCase):
        site.service.claim("cid", None, claim.case_id)


@pytest.mark.parametrize("how", ["release", "expire"])
def test_a_gold_item_is_not_got_rid_of_without_an_answer(site: Site, how: str) -> None:
    gold = site.held(0)
    vote(site, "ann", PHOTOGRAPH)
    site.service.add_gold(uid(gold), PHOTOGRAPH, "chief")
    site.draw = 0.0
    first = site.service.claim("ben", None)
    assert first is not None
    if how == "release":
        site.service.release(first.token, reviewer="ben")
    else:
        site.clock.advance(site.settings.lease_s)
    assert site.service.claim("cid", frozenset()) is None
    again = site.service.claim("ben", None)
    assert again is not None
    assert again.case_id == first.case_id
    other = site.service.claim("cid", None)
    assert other is not None
    assert other.case_id != first.case_id


def test_another_label_of_a_gold_item_measures_earlier_answers_too(site: Site) -> None:
    gold = site.held(0)
    vote(site, "ann", PHOTOGRAPH)
    site.service.add_gold(uid(gold), PHOTOGRAPH, "chief")
    site.draw = 0.0
    vote(site, "ben", GENERATED)
    assert [(i.answers, i.correct) for i in site.service.gold_items(None)] == [(1, 0)]
    site.service.add_gold(uid(gold), GENERATED, "chief")
    (item,) = site.service.gold_items(None)
    assert (item.media_id, item.label, item.added_by, item.answers, item.correct) == ("img-0", GENERATED, "chief", 1, 1)
    assert [(a.reviewer, a.truth, a.said, a.count) for a in site.service.gold_answers(None)] == [
        ("ben", GENERATED, GENERATED, 1)
    ]
    assert not site.service.gold_items(frozenset({"others"}))
    assert not site.service.gold_answers(frozenset({"others"}))


def test_the_family_that_a_reviewer_names_goes_out(site: Site) -> None:
    site.held()
    vote(site, "ann", GENERATED, family="flux")
    (review,) = [decode(ReviewVerdict, value) for topic, value in site.waiting() if topic == Topic.REVIEWS]
    (finding,) = [decode_finding(value) for topic, value in site.waiting() if topic == "decisions.escalate"]
    assert finding.unmapped.review
    assert (review.family, finding.unmapped.review.family) == ("flux", "flux")


@pytest.mark.parametrize(("outcome", "disposition"), [(Outcome.PASS, "Allowed"), (Outcome.BLOCK, "Blocked")])
def test_an_appeal_leaves_in_force_what_the_machine_did(site: Site, outcome: Outcome, disposition: str) -> None:
    case_id = site.held(0, outcome=outcome)
    site.service.appeal(uid(case_id), None, "owner", "look again")
    vote(site, "ann", UNDECIDABLE)
    assert findings(site) == [(f"decisions.{outcome}", "Update", 1, disposition)]
