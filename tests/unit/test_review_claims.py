"""Leases: who works on what, and what becomes of a claim that is not used."""

from __future__ import annotations

from pathlib import Path

import pytest
from sqlalchemy.dialects import postgresql

from schemas.review import ActionKind, Label
from schemas.types import Priority
from tests.support.reviewing import Site
from workers.console.domain.claims import candidates
from workers.console.domain.errors import AlreadyDecided, NoSuchCase, NotYours, StaleLease


@pytest.fixture
def site(tmp_path: Path) -> Site:
    return Site(tmp_path)


def history(site: Site, case_id: str) -> list[tuple[ActionKind, str]]:
    return [(action.kind, action.actor) for action in site.service.case(case_id, None).history]


def test_nothing_to_claim_in_an_empty_queue(site: Site) -> None:
    assert site.service.claim("ann", None) is None


def test_two_reviewers_never_hold_the_same_case(site: Site) -> None:
    cases = {site.held(n) for n in range(2)}
    claims = [site.service.claim(name, None) for name in ("ann", "ben", "cid")]
    assert {claim.case_id for claim in claims if claim} == cases
    assert claims[2] is None


def test_a_reviewer_is_given_again_what_he_holds(site: Site) -> None:
    site.held(0)
    site.held(1)
    first = site.service.claim("ann", None)
    site.clock.advance(10.0)
    again = site.service.claim("ann", None)
    assert first
    assert again
    assert (again.case_id, again.token) == (first.case_id, first.token)
    assert again.until > first.until
    assert history(site, first.case_id) == [(ActionKind.CLAIMED, "ann")]


def test_an_expired_claim_goes_to_the_next_and_its_token_is_refused(site: Site) -> None:
    case_id = site.held()
    late = site.service.claim("ann", None)
    site.clock.advance(site.settings.lease_s - 1)
    assert site.service.claim("ben", None) is None
    site.clock.advance(1.0)
    taken = site.service.claim("ben", None)
    assert late
    assert taken
    assert taken.case_id == case_id
    for action in (
        lambda: site.service.renew(late.token, reviewer="ann"),
        lambda: site.service.decide(late.token, Label.PHOTOGRAPH, "", reviewer="ann"),
        lambda: site.service.skip(late.token, "no idea", reviewer="ann"),
        lambda: site.service.release(late.token, reviewer="ann"),
    ):
        with pytest.raises(StaleLease, match="claim the case again"):
            action()
    assert site.service.decide(taken.token, Label.PHOTOGRAPH, "", reviewer="ben").closed
    assert history(site, case_id)[:3] == [
        (ActionKind.CLAIMED, "ann"),
        (ActionKind.EXPIRED, "ann"),
        (ActionKind.CLAIMED, "ben"),
    ]


def test_an_expired_token_is_refused_though_nobody_took_the_case(site: Site) -> None:
    site.held()
    claim = site.service.claim("ann", None)
    site.clock.advance(site.settings.lease_s)
    assert claim is not None
    with pytest.raises(StaleLease):
        site.service.decide(claim.token, Label.PHOTOGRAPH, "", reviewer="ann")


def test_a_renewed_claim_lasts(site: Site) -> None:
    case_id = site.held()
    claim = site.service.claim("ann", None)
    assert claim is not None
    for _ in range(5):
        site.clock.advance(site.settings.lease_s - 1)
        claim = site.service.renew(claim.token, reviewer="ann")
    assert site.service.decide(claim.token, Label.PHOTOGRAPH, "", reviewer="ann").case_id == case_id


def test_a_token_is_its_reviewers_alone(site: Site) -> None:
    site.held()
    claim = site.service.claim("ann", None)
    assert claim is not None
    with pytest.raises(NotYours):
        site.service.decide(claim.token, Label.PHOTOGRAPH, "", reviewer="ben")
    with pytest.raises(StaleLease):
        site.service.decide("made up", Label.PHOTOGRAPH, "", reviewer="ben")


def test_a_named_case_is_refused_while_another_holds_it(site: Site) -> None:
    site.held(0)
    case_id = site.held(1)
    assert site.service.claim("ben", None, case_id)
    with pytest.raises(NotYours, match="ben works on it until"):
        site.service.claim("ann", None, case_id)
    with pytest.raises(NoSuchCase):
        site.service.claim("ann", None, "nonsense")


def test_a_closed_case_cannot_be_claimed_and_its_token_says_so(site: Site) -> None:
    case_id = site.held()
    claim = site.service.claim("ann", None)
    assert claim is not None
    site.service.decide(claim.token, Label.PHOTOGRAPH, "", reviewer="ann")
    with pytest.raises(AlreadyDecided, match="appeal"):
        site.service.claim("ben", None, case_id)
    with pytest.raises(AlreadyDecided, match="photograph"):
        site.service.decide(claim.token, Label.GENERATED, "", reviewer="ann")


def test_a_skipped_case_goes_to_others_and_comes_back_after_a_while(site: Site) -> None:
    case_id = site.held()
    claim = site.service.claim("ann", None)
    assert claim is not None
    with pytest.raises(ValueError, match="reason: empty"):
        site.service.skip(claim.token, "  ", reviewer="ann")
    site.service.skip(claim.token, "a language that I do not read", reviewer="ann")
    assert site.service.claim("ann", None) is None
    row = site.service.queue(None).rows[0]
    assert (row.skips, row.lease) == (1, None)
    other = site.service.claim("ben", None)
    assert other is not None
    site.service.release(other.token, reviewer="ben")
    site.clock.advance(site.settings.skip_hold_s)
    back = site.service.claim("ann", None)
    assert back
    assert back.case_id == case_id


def test_a_skipped_case_may_be_asked_for_by_name(site: Site) -> None:
    case_id = site.held()
    claim = site.service.claim("ann", None)
    assert claim is not None
    site.service.skip(claim.token, "tired", reviewer="ann")
    assert site.service.claim("ann", None, case_id)


def test_tenants_are_apart(site: Site) -> None:
    theirs = site.held(0, tenant="theirs")
    ours = frozenset({"ours"})
    assert site.service.claim("ann", ours) is None
    for refused in (
        lambda: site.service.claim("ann", ours, theirs),
        lambda: site.service.case(theirs, ours),
        lambda: site.service.similar(theirs, ours),
    ):
        with pytest.raises(NoSuchCase):
            refused()
    assert not site.service.queue(ours).rows
    assert not site.service.search(ours, "").rows
    assert site.service.stats(ours).waiting == 0
    assert site.service.claim("ann", frozenset({"ours", "theirs"}))


def test_no_tenants_see_nothing(site: Site) -> None:
    site.held()
    assert site.service.claim("ann", frozenset()) is None
    assert not site.service.queue(frozenset()).rows


def test_the_most_urgent_comes_first(site: Site) -> None:
    calm = site.held(0, score=0.1, scores=(0.1,))
    split = site.held(1, score=0.1, scores=(0.1, 0.9))
    likely = site.held(2, score=0.79, scores=(0.1,))
    high = site.held(3, score=0.1, scores=(0.1,), priority=Priority.HIGH)
    unscored = site.held(4, score=None, scores=())
    order = [row.case_id for row in site.service.queue(None).rows]
    assert order[0] == likely
    assert order[-1] == calm
    assert {split, high, unscored} == set(order[1:4])
    claims = [site.service.claim(f"r{n}", None) for n in range(5)]
    assert [claim.case_id for claim in claims if claim] == order


def test_an_old_case_is_claimed_before_an_urgent_new_one(site: Site) -> None:
    calm = site.held(0, score=0.0, scores=())
    site.clock.advance(site.settings.priority.ageing_s + 1)
    site.held(1, score=1.0, scores=(0.0, 1.0), priority=Priority.HIGH)
    claim = site.service.claim("ann", None)
    assert claim is not None
    assert claim.case_id == calm


def test_reviewers_need_names_that_records_take(site: Site) -> None:
    with pytest.raises(ValueError, match="reviewer 'a b'"):
        site.service.claim("a b", None)


def test_postgres_passes_over_locked_cases() -> None:
    statement = str(candidates(0.0, "ann", None, 300.0).compile(dialect=postgresql.dialect()))
    assert "FOR UPDATE OF review_cases SKIP LOCKED" in statement


@pytest.mark.parametrize("back_s", [3600.0, 86_400.0])
def test_a_clock_that_is_set_back_holds_no_case_for_long(site: Site, back_s: float) -> None:
    case_id = site.held()
    gone = site.service.claim("ann", None)
    assert gone is not None
    site.clock.advance(-back_s)
    taken = site.service.claim("ben", None, case_id)
    assert taken is not None
    with pytest.raises(StaleLease):
        site.service.decide(gone.token, Label.PHOTOGRAPH, "", reviewer="ann")
    assert site.service.decide(taken.token, Label.PHOTOGRAPH, "", reviewer="ben").closed


def test_a_clock_that_is_a_little_slow_takes_no_case_away(site: Site) -> None:
    case_id = site.held()
    claim = site.service.claim("ann", None)
    assert claim is not None
    site.clock.advance(-site.settings.lease_s)
    with pytest.raises(NotYours, match="ann works on it"):
        site.service.claim("ben", None, case_id)
    assert site.service.claim("ben", None) is None


def test_who_works_goes_on_though_the_clock_was_set_back(site: Site) -> None:
    site.held()
    claim = site.service.claim("ann", None)
    assert claim is not None
    site.clock.advance(-86_400.0)
    assert site.service.decide(claim.token, Label.PHOTOGRAPH, "", reviewer="ann").closed
