"""What reviews teach is refused unless wrong labels are ruled out."""

from __future__ import annotations

import numpy as np
import pytest
import scipy.stats

from schemas.review import Label
from tests.support.learning import Site
from workers.adaptation import gate
from workers.adaptation.candidate import MIN_SAMPLES, sample_set
from workers.adaptation.labels import LabelSet
from workers.adaptation.records import Candidate, Refusal
from workers.adaptation.rehearsal import Setting, shipped_reference, tried

STRONG, MODERATE = 0.5, 0.2


def built(site: Site) -> Candidate | Refusal:
    return site.builder.build(site.current(), LabelSet.of(site.store.samples()), "new")


def reviewed(site: Site, samples: int, shift: float, wrong: float, seed: int) -> None:
    """A share `wrong` of what is called generated are photographs."""
    mislabelled = np.random.default_rng(seed).permutation(samples) < wrong * samples
    for number in range(samples):
        site.review(f"{seed}-{shift}-{number}", truth=0.0 if mislabelled[number] else shift)


def judged_again(site: Site, samples: int, shift: float, error: float, seed: int) -> None:
    """A second reviewer, who errs as often as the first, sees every image."""
    errs = np.random.default_rng([seed, 1]).random(samples) < error
    first_errs = np.random.default_rng(seed).permutation(samples) < error * samples
    for number in range(samples):
        says = Label.GENERATED if first_errs[number] == errs[number] else Label.PHOTOGRAPH
        site.review(f"{seed}-{shift}-{number}", says, reviewer="r-2")


def test_clean_reviews_of_a_family_that_stands_clear_make_a_candidate() -> None:
    site = Site()
    reviewed(site, 40, STRONG, wrong=0.0, seed=0)
    found = built(site)
    assert isinstance(found, Candidate), found
    assert found.gate.samples == 40
    assert found.gate.new_auc is not None
    assert found.gate.old_auc is not None
    assert found.gate.new_auc >= found.gate.old_auc + 0.02
    assert (found.parent, found.base, found.family) == (site.base, site.base, "new")
    assert found.artefact.families == ("new",)
    assert site.store.load_artefact(found.artefact).content_hash == found.version
    assert {sample.sampling_probability for sample in found.samples} == {1.0}
    assert site.store.candidates(site.base) == [found]


@pytest.mark.parametrize("shift", [STRONG, MODERATE])
@pytest.mark.parametrize("samples", [20, 60, 200])
def test_reviews_of_which_30_percent_are_wrong_are_refused(samples: int, shift: float) -> None:
    for seed in range(3):
        site = Site()
        reviewed(site, samples, shift, wrong=0.3, seed=seed)
        found = built(site)
        assert isinstance(found, Refusal)
        assert "wrong labels are not ruled out" in found.why or "AUC of samples left out" in found.why
        assert site.store.candidates(site.base) == []
        assert site.store.is_refused(site.base, "new", found.sample_set)


def test_a_family_that_does_not_stand_clear_needs_second_reviewers() -> None:
    site = Site()
    reviewed(site, 60, MODERATE, wrong=0.0, seed=1)
    alone = built(site)
    assert isinstance(alone, Refusal)
    assert alone.gate is not None
    assert [failure.partition(":")[0] for failure in alone.gate.failures] == ["wrong labels are not ruled out"]
    judged_again(site, 60, MODERATE, error=0.0, seed=1)
    found = built(site)
    assert isinstance(found, Candidate), found
    assert (found.gate.double_reviews, found.gate.disagreements) == (60, 0)


@pytest.mark.parametrize("seed", range(3))
def test_two_reviewers_who_err_in_30_percent_do_not_vouch_for_each_other(seed: int) -> None:
    site = Site()
    reviewed(site, 100, MODERATE, wrong=0.3, seed=seed)
    judged_again(site, 100, MODERATE, error=0.3, seed=seed)
    found = built(site)
    assert isinstance(found, Refusal)
    assert found.gate is not None
    assert found.gate.disagreements >= 25


def test_reviewers_who_differ_too_often_are_not_outvoted_by_clear_spectra() -> None:
    """What is left when disputed images are out may look clean."""
    site = Site()
    reviewed(site, 60, STRONG, wrong=0.0, seed=1)
    judged_again(site, 60, STRONG, error=0.4, seed=1)
    found = built(site)
    assert isinstance(found, Refusal)
    assert found.gate is not None
    assert len(found.gate.failures) == 1
    assert f"reviewers differ on {found.gate.disagreements} of 60 images" in found.why
    assert found.gate.disagreements >= gate.MAX_WRONG * 60
    assert gate.upper_limit(0, gate.LEAST_TWICE) < gate.MAX_WRONG <= gate.upper_limit(0, gate.LEAST_TWICE - 1)


def test_photographs_that_were_really_of_the_family_are_seen_in_the_false_positives() -> None:
    site = Site()
    reviewed(site, 60, STRONG, wrong=0.0, seed=2)
    for number in range(60):
        site.review(f"p-{number}", Label.PHOTOGRAPH, truth=STRONG if number % 10 < 3 else 0.0)
    found = built(site)
    assert isinstance(found, Refusal)
    assert "the false positive rate on 60 reviewed photographs rises from" in found.why


@pytest.mark.parametrize(("wrong", "accepted"), [(0.0, 5), (0.3, 0)])
def test_on_real_photographs_good_sets_pass_and_poisoned_ones_do_not(wrong: float, accepted: int) -> None:
    """The first sets of the rehearsal whose rates docs/learning.md states: features of the shipped reference."""
    reference = shipped_reference(None)
    setting = Setting(samples=20, strength=1.5, wrong=wrong, twice=False)
    results = [tried(reference, setting, seed) for seed in range(5)]
    assert sum(isinstance(result, Candidate) for result in results) == accepted
    assert all(result.gate is not None and result.gate.samples == 20 for result in results)


def test_true_photographs_do_no_harm() -> None:
    site = Site()
    reviewed(site, 60, STRONG, wrong=0.0, seed=2)
    for number in range(60):
        site.review(f"p-{number}", Label.PHOTOGRAPH)
    found = built(site)
    assert isinstance(found, Candidate), found
    assert found.gate.controls == 60
    assert found.gate.control_fpr_new is not None
    assert found.gate.control_fpr_new < 0.3


@pytest.mark.parametrize(("samples", "said"), [(9, "9 usable images, needed are 10"), (0, "0 usable images")])
def test_fewer_than_ten_are_none(samples: int, said: str) -> None:
    site = Site()
    reviewed(site, samples, STRONG, wrong=0.0, seed=3)
    found = built(site)
    assert isinstance(found, Refusal)
    assert found.why.startswith(said)
    assert MIN_SAMPLES == 10


def test_what_cannot_be_measured_and_copies_of_a_picture_are_left_out() -> None:
    site = Site()
    reviewed(site, 40, STRONG, wrong=0.0, seed=4)
    lost = site.review("lost")
    site.content.delete(f"content/acme/{lost.content_sha256}")
    dumb = site.review("dumb")
    del site.measures.shifts[b"dumb"]
    picture = (1 << 128) - 1
    older, newer = site.review("one"), site.review("the same, smaller")
    site.measures.pictures = {b"one": picture, b"the same, smaller": picture ^ 0b111}
    found = built(site)
    assert isinstance(found, Candidate), found
    assert set(found.left_out) == {lost.review_id, dumb.review_id, older.review_id}
    assert found.left_out[older.review_id] == f"shows the picture of review {newer.review_id}"
    assert "the image says nothing" in found.left_out[dumb.review_id]


def test_a_family_is_added_once() -> None:
    site = Site()
    reviewed(site, 40, STRONG, wrong=0.0, seed=0)
    found = built(site)
    assert isinstance(found, Candidate)
    site.publisher.promote(found, "ops", "")
    with pytest.raises(ValueError, match="family new is part of the reference"):
        built(site)


def test_one_more_review_is_another_sample_set() -> None:
    site = Site()
    reviewed(site, 3, STRONG, wrong=0.0, seed=0)
    before = sample_set(site.current(), LabelSet.of(site.store.samples()), "new")
    assert before == sample_set(site.current(), LabelSet.of(site.store.samples()), "new")
    site.review("another")
    assert before != sample_set(site.current(), LabelSet.of(site.store.samples()), "new")


@pytest.mark.parametrize(("count", "of"), [(0, 14), (1, 20), (3, 60), (19, 20)])
def test_limits_are_those_of_clopper_and_pearson(count: int, of: int) -> None:
    oracle = scipy.stats.binomtest(count, of).proportion_ci(0.95, method="exact")
    assert gate.upper_limit(count, of) == pytest.approx(oracle.high)
    assert gate.lower_limit(count, of) == pytest.approx(oracle.low)


def test_no_trial_rules_nothing_out() -> None:
    assert gate.upper_limit(0, 0) == 1.0
    assert gate.lower_limit(0, 0) == 0.0
    assert not gate.labels_hold(gate.upper_limit(0, 13), gate.upper_limit(0, 10))
    assert gate.labels_hold(gate.upper_limit(0, 14), 1.0)
    assert gate.labels_hold(1.0, gate.upper_limit(0, 11))


def test_at_most_one_set_in_twenty_with_30_percent_wrong_labels_passes() -> None:
    """Exact: each witness alone, at every number of samples, on labels that are wrong in 30 % or differ in 30 %."""
    for of in range(10, 201):
        for share, passes in ((0.3 * gate.CLEAR_PLACE, _by_spectra), (0.3, _by_second_reviewers)):
            chance = sum(scipy.stats.binom.pmf(k, of, share) for k in range(of + 1) if passes(k, of))
            assert chance <= 0.025
    assert gate.labels_hold(gate.upper_limit(10, 200), 1.0)


def _by_spectra(count: int, of: int) -> bool:
    return gate.labels_hold(gate.upper_limit(count, of), 1.0)


def _by_second_reviewers(count: int, of: int) -> bool:
    return gate.labels_hold(1.0, gate.upper_limit(count, of))
