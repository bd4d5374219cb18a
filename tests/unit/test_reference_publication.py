"""Promote, let watch, roll back: what is published, in which order, and what is refused."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import pytest

from pipeline.evidence.log.errors import Untrusted
from pipeline.media.errors import ContentCorrupt
from pipeline.streaming.kafka.client import KafkaUnavailable
from schemas.reference import PublicationAction, ReferencePointer
from schemas.review import ReferenceUpdate, UpdateAction
from tests.support.learning import Board, Site
from workers.adaptation.history import withdrawn_families
from workers.adaptation.labels import LabelSet
from workers.adaptation.publication import BUNDLE, PublicationRefused
from workers.adaptation.records import Candidate
from workers.adaptation.store import ReferenceStore


def candidate(site: Site, family: str) -> Candidate:
    for number in range(30):
        site.review(f"{family}-{number}", family=family, truth=0.5 if family == "one" else -0.5)
    found = site.builder.build(site.current(), LabelSet.of(site.store.samples()), family)
    assert isinstance(found, Candidate), found
    return found


@pytest.fixture
def site() -> Site:
    return Site()


def test_a_candidate_is_promoted_and_rolled_back(site: Site) -> None:
    first = candidate(site, "one")
    promoted = site.publisher.promote(first, "ops", "better")
    assert (promoted.sequence, promoted.active, promoted.shadow) == (1, first.artefact, None)
    assert site.publisher.head() == promoted
    second = candidate(site, "two")
    assert second.parent == first.version
    assert second.artefact.families == ("one", "two")
    site.publisher.promote(second, "ops", "")
    back = site.publisher.rollback(None, "ops", "alarms")
    assert (back.sequence, back.active, back.action) == (3, first.artefact, PublicationAction.ROLLBACK)
    assert site.current().version == first.version
    assert [p.sequence for p in site.board.pointers] == [1, 2, 3]


def test_every_sample_that_enters_or_leaves_is_told_to_the_audit_log(site: Site) -> None:
    first = candidate(site, "one")
    site.publisher.promote(first, "ops", "")
    site.publisher.promote(candidate(site, "two"), "ops", "")
    site.publisher.rollback(BUNDLE, "ops", "")
    told = [(u.action, u.family) for u in site.board.updates]
    expected = [(UpdateAction.ADD, "one")] * 30 + [(UpdateAction.ADD, "two")] * 30
    assert told[:60] == expected
    assert sorted(told[60:]) == sorted((UpdateAction.REVOKE, family) for family in ("one", "two") for _ in range(30))
    assert len({u.update_id for u in site.board.updates}) == 120
    entered = [u for u in site.board.updates if u.family == "one" and u.action is UpdateAction.ADD]
    assert {u.review_id for u in entered} == {s.review_id for s in first.samples}
    assert {u.reference for u in entered} == {first.version}


def test_a_shadow_decides_nothing(site: Site) -> None:
    first = candidate(site, "one")
    watching = site.publisher.shadow(first, "ops", "")
    assert (watching.active, watching.shadow) == (None, first.artefact)
    assert site.current().version == site.base
    assert site.board.updates == []
    promoted = site.publisher.promote(first, "ops", "")
    assert (promoted.active, promoted.shadow) == (first.artefact, None)


def test_the_bundles_own_can_decide_again(site: Site) -> None:
    site.publisher.promote(candidate(site, "one"), "ops", "")
    assert site.publisher.rollback(None, "ops", "").active is None
    assert site.current().version == site.base


def test_a_version_that_decided_before_is_named_by_its_first_digits(site: Site) -> None:
    first = candidate(site, "one")
    site.publisher.promote(first, "ops", "")
    site.publisher.rollback(BUNDLE, "ops", "")
    again = site.publisher.rollback(first.version[:8], "ops", "")
    assert again.active == first.artefact


def test_what_never_decided_cannot_decide_again(site: Site) -> None:
    with pytest.raises(PublicationRefused, match="nothing decided before"):
        site.publisher.rollback(None, "ops", "")
    site.publisher.promote(candidate(site, "one"), "ops", "")
    with pytest.raises(PublicationRefused, match=r"xy: 0 such versions decided before; there are: \w{12}, bundle"):
        site.publisher.rollback("xy", "ops", "")


def test_a_candidate_of_an_older_reference_is_refused(site: Site) -> None:
    one, two = candidate(site, "one"), candidate(site, "two")
    site.publisher.promote(one, "ops", "")
    for publish in (site.publisher.promote, site.publisher.shadow):
        with pytest.raises(PublicationRefused, match="build it again"):
            publish(two, "ops", "")
    assert len(site.board.pointers) == 1


class LateStore(ReferenceStore):
    """Sees the history as it was before the newest pointer came."""

    def sequences(self, base: str) -> list[int]:
        return super().sequences(base)[:-1]


def test_of_two_publications_at_once_one_is_refused(site: Site) -> None:
    first = candidate(site, "one")
    won = site.publisher.shadow(first, "ops", "")
    late = replace(site.publisher, store=LateStore(site.content.objects))
    with pytest.raises(PublicationRefused, match="somebody else published number 1"):
        late.promote(first, "ops", "")
    assert site.board.pointers == [won]
    assert site.publisher.history() == [won]


def test_a_publication_that_was_cut_off_is_announced_again(site: Site) -> None:
    class Deaf(Board):
        def announce(self, pointer: ReferencePointer, updates: Sequence[ReferenceUpdate]) -> None:
            raise KafkaUnavailable("no brokers")

    first = candidate(site, "one")
    with pytest.raises(PublicationRefused, match="nothing was published"):
        site.publisher.announce_again()
    board, site.board = site.board, Deaf()
    with pytest.raises(KafkaUnavailable, match="run `mediasieve references announce`"):
        site.publisher.promote(first, "ops", "")
    site.board = board
    again = site.publisher.announce_again()
    assert board.pointers == [again]
    assert (again.sequence, again.active) == (1, first.artefact)
    before = list(board.updates)
    assert len(before) == 30
    site.publisher.announce_again()
    assert [u.update_id for u in board.updates[30:]] == [u.update_id for u in before]


def test_an_artefact_that_was_changed_is_not_loaded(site: Site) -> None:
    first = candidate(site, "one")
    key = f"references/artefacts/{first.artefact.sha256}.npz"
    site.content.objects.replace(key, site.content.objects.read(key)[:-1] + b"x")
    with pytest.raises(ContentCorrupt, match="does not have the digest"):
        site.store.load_artefact(first.artefact)


def test_an_artefact_is_not_fetched_from_elsewhere(site: Site) -> None:
    elsewhere = candidate(site, "one").artefact.model_copy(update={"uri": "s3://mallory/x.npz"})
    with pytest.raises(ContentCorrupt, match=r"lies at s3://mallory/x\.npz, expected memory://"):
        site.store.load_artefact(elsewhere)


def test_an_artefact_under_a_wrong_version_is_not_loaded(site: Site) -> None:
    wrong = candidate(site, "one").artefact.model_copy(update={"version": "f" * 64})
    with pytest.raises(ContentCorrupt, match="not ffffffffffff"):
        site.store.load_artefact(wrong)


def test_what_cannot_be_read_is_not_published(site: Site) -> None:
    """No worker could start by such a pointer."""
    first = candidate(site, "one")
    key = f"references/artefacts/{first.artefact.sha256}.npz"
    good = site.content.objects.read(key)
    for spoil in (lambda: site.content.objects.replace(key, good[:-1]), lambda: site.content.objects.delete(key)):
        spoil()
        for publish in (site.publisher.promote, site.publisher.shadow):
            with pytest.raises(PublicationRefused, match="no worker could decide by it"):
                publish(first, "ops", "")
    assert (site.publisher.history(), site.board.pointers) == ([], [])
    site.content.objects.create(key, good)
    site.publisher.promote(first, "ops", "")
    second = candidate(site, "two")
    site.publisher.promote(second, "ops", "")
    site.content.objects.delete(key)
    with pytest.raises(PublicationRefused, match="roll back to another version"):
        site.publisher.rollback(None, "ops", "")
    assert site.publisher.rollback(BUNDLE, "ops", "").active is None


def test_a_torn_artefact_is_put_over(site: Site) -> None:
    first = candidate(site, "one")
    key = f"references/artefacts/{first.artefact.sha256}.npz"
    reference = site.store.load_artefact(first.artefact)
    site.content.objects.replace(key, b"half of it")
    assert site.store.put_artefact(reference) == first.artefact
    assert site.store.load_artefact(first.artefact).content_hash == first.version


def test_a_second_rollback_goes_further_back(site: Site) -> None:
    first = candidate(site, "one")
    site.publisher.promote(first, "ops", "")
    second = candidate(site, "two")
    site.publisher.promote(second, "ops", "")
    assert site.publisher.rollback(None, "ops", "").active == first.artefact
    assert site.publisher.rollback(None, "ops", "").active is None
    with pytest.raises(PublicationRefused, match="nothing decided before"):
        site.publisher.rollback(None, "ops", "")
    assert site.publisher.rollback(second.version, "ops", "").active == second.artefact
    assert withdrawn_families(site.publisher.history()) == frozenset()
    site.publisher.rollback(first.version, "ops", "")
    assert withdrawn_families(site.publisher.history()) == {"two"}


def test_watching_ends_without_a_change_of_what_decides(site: Site) -> None:
    first = candidate(site, "one")
    site.publisher.promote(first, "ops", "")
    site.publisher.shadow(candidate(site, "two"), "ops", "")
    told = len(site.board.updates)
    ended = site.publisher.rollback(first.version[:12], "ops", "")
    assert (ended.active, ended.shadow) == (first.artefact, None)
    assert len(site.board.updates) == told


def test_the_topic_ends_with_the_newest_pointer_whoever_was_faster(site: Site) -> None:
    """Between its history and its topic another publisher did both."""
    first = candidate(site, "one")

    class Overtaken(Board):
        def announce(self, pointer: ReferencePointer, updates: Sequence[ReferenceUpdate]) -> None:
            if pointer.sequence == 1 and not site.board.pointers:
                site.publisher.rollback(BUNDLE, "other", "")
            super().announce(pointer, updates)

    slow = Overtaken()
    replace(site.publisher, announcer=slow).promote(first, "ops", "")
    assert [p.sequence for p in site.board.pointers] == [2]
    assert [p.sequence for p in slow.pointers] == [1, 2]
    assert len(slow.updates) == 30


def test_an_object_that_somebody_put_into_the_history_is_seen(site: Site) -> None:
    first = candidate(site, "one")
    site.publisher.promote(first, "ops", "")
    site.publisher.rollback(BUNDLE, "ops", "")
    folder = f"references/history/{site.base}"
    copied = site.content.objects.read(f"{folder}/{1:010d}.json")
    site.content.objects.create(f"{folder}/{3:010d}.json", copied)
    with pytest.raises(Untrusted, match="as number 3: somebody put it there"):
        site.publisher.head()
    site.content.objects.delete(f"{folder}/{3:010d}.json")
    site.content.objects.create(f"{folder}/notes.json", copied)
    with pytest.raises(ContentCorrupt, match=r"notes\.json: expected"):
        site.publisher.head()
