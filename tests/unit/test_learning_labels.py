"""From reviews to labels that people agree on."""

from __future__ import annotations

from datetime import timedelta

from schemas.review import Label
from tests.support.learning import NOW, labelled_sample
from workers.adaptation.labels import LabelSet
from workers.adaptation.records import LabelledSample

A, B = "a" * 64, "b" * 64


def said(sha256: str, label: Label, reviewer: str, *, family: str | None = None, minute: int = 0) -> LabelledSample:
    return labelled_sample(sha256, label, family, reviewer, NOW + timedelta(minutes=minute))


def test_a_reviewers_newest_word_on_an_image_counts() -> None:
    found = LabelSet.of(
        [
            said(A, Label.PHOTOGRAPH, "r-1", minute=0),
            said(A, Label.GENERATED, "r-1", family="flux", minute=1),
        ]
    )
    assert [(a.sample.label, a.reviewers) for a in found.agreed] == [(Label.GENERATED, 1)]
    assert found.families() == ["flux"]
    assert found.double_reviews("flux") == (0, 0)


def test_reviewers_who_differ_on_the_label_dispute_the_image() -> None:
    found = LabelSet.of(
        [
            said(A, Label.PHOTOGRAPH, "r-1"),
            said(A, Label.GENERATED, "r-2", family="flux"),
            said(B, Label.GENERATED, "r-1"),
        ]
    )
    assert [a.sample.content_sha256 for a in found.agreed] == [B]
    assert len(found.disputed) == 1
    assert found.members("flux") == []
    assert found.double_reviews("flux") == (1, 1)


def test_reviewers_who_differ_on_the_family_dispute_it_for_both() -> None:
    found = LabelSet.of(
        [said(A, Label.GENERATED, "r-1", family="flux"), said(A, Label.GENERATED, "r-2", family="sdxl")]
    )
    assert found.agreed == ()
    assert found.double_reviews("flux") == found.double_reviews("sdxl") == (1, 1)
    assert found.double_reviews("pixart") == (0, 0)


def test_one_reviewer_may_name_the_family_for_both() -> None:
    found = LabelSet.of([said(A, Label.GENERATED, "r-1", family="flux"), said(A, Label.GENERATED, "r-2", minute=5)])
    (member,) = found.members("flux")
    assert (member.reviewers, member.sample.reviewer) == (2, "r-2")
    assert found.double_reviews("flux") == (1, 0)


def test_undecidable_is_no_label() -> None:
    found = LabelSet.of(
        [said(A, Label.UNDECIDABLE, "r-1"), said(B, Label.UNDECIDABLE, "r-1"), said(B, Label.PHOTOGRAPH, "r-2")]
    )
    assert [(a.sample.content_sha256, a.reviewers) for a in found.agreed] == [(B, 1)]
    assert found.disputed == ()


def test_photographs_that_two_have_judged_count_for_every_family() -> None:
    found = LabelSet.of([said(A, Label.PHOTOGRAPH, "r-1"), said(A, Label.PHOTOGRAPH, "r-2")])
    assert found.double_reviews("flux") == (1, 0)
    assert [a.reviewers for a in found.photographs()] == [2]


def test_the_newest_come_first() -> None:
    found = LabelSet.of(
        [said(A, Label.GENERATED, "r-1", family="flux"), said(B, Label.GENERATED, "r-1", family="flux", minute=1)]
    )
    assert [a.sample.content_sha256 for a in found.members("flux")] == [B, A]
