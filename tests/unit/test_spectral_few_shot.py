"""A generator family from ten samples: it must help on images it never saw, or be refused."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import scipy.stats

from pipeline.detection.spectral import few_shot
from pipeline.detection.spectral.fitting import fit_stratum, parts_of
from pipeline.detection.spectral.reference import SpectralReference, StratumReference
from pipeline.detection.spectral.score import FAMILY_SHARE, MAX_FAMILY_LOGIT, logits_of, score

FEATURES = 20
STRATUM = "jpeg_85_94/any"


def photographs(n: int, seed: int) -> np.ndarray:
    return np.random.default_rng([seed, 0]).normal(size=(n, FEATURES))


def generated(n: int, seed: int) -> np.ndarray:
    values = np.random.default_rng([seed, 1]).normal(size=(n, FEATURES))
    values[:, :6] += 1.0
    return values


@pytest.fixture(scope="module")
def reference() -> SpectralReference:
    fitted = fit_stratum(photographs(600, 100), np.zeros((600, 64)), np.arange(600), parts_of(600, 0))
    return SpectralReference({STRATUM: fitted})


def auc(real: np.ndarray, synthetic: np.ndarray) -> float:
    return float((synthetic[:, None] > real[None]).mean() + 0.5 * (synthetic[:, None] == real[None]).mean())


def scores(values: np.ndarray, stratum: StratumReference) -> np.ndarray:
    return np.array([score(row, stratum).probability for row in values])


@pytest.mark.parametrize("seed", range(4))
def test_ten_samples_of_a_new_family_raise_the_auc_on_images_never_seen(
    reference: SpectralReference, seed: int
) -> None:
    added, gate = few_shot.add_family(reference, "new", {STRATUM: generated(10, seed)})

    real, synthetic = photographs(100, 50 + seed), generated(100, 70 + seed)
    before = auc(scores(real, reference.strata[STRATUM]), scores(synthetic, reference.strata[STRATUM]))
    after = auc(scores(real, added.strata[STRATUM]), scores(synthetic, added.strata[STRATUM]))
    assert after >= before + 0.02
    assert gate.new_auc >= gate.old_auc + few_shot.MIN_RISE
    assert gate.samples == 10


def test_samples_that_are_photographs_are_refused(reference: SpectralReference) -> None:
    accepted = 0
    for seed in range(20):
        try:
            few_shot.add_family(reference, "real", {STRATUM: photographs(10 + seed, 200 + seed)})
        except few_shot.FamilyRefused as refused:
            assert "the reference is unchanged" in str(refused)  # noqa: PT017 - what matters is how many are refused
        else:
            accepted += 1
    assert accepted <= 2


def test_photographs_of_one_kind_that_would_hide_known_generators_are_refused(reference: SpectralReference) -> None:
    known = generated(200, 9)
    weights = np.zeros(FEATURES)
    weights[:6] = 0.2
    stratum = replace(reference.strata[STRATUM], weights=weights, generated=known)
    collection = 0.3 * photographs(60, 8)
    collection[:, :6] -= 0.7

    with pytest.raises(few_shot.FamilyRefused, match="the AUC of known generated images falls from"):
        few_shot.add_family(SpectralReference({STRATUM: stratum}), "camera", {STRATUM: collection})


def test_what_is_no_image_is_refused(reference: SpectralReference) -> None:
    noise = np.random.default_rng(0).normal(scale=100.0, size=(12, FEATURES))
    coherent = np.full((12, FEATURES), 50.0) + photographs(12, 3)

    with pytest.raises(few_shot.FamilyRefused, match="of the median sample are out of range"):
        few_shot.add_family(reference, "noise", {STRATUM: noise})
    with pytest.raises(few_shot.FamilyRefused, match="no images"):
        few_shot.add_family(reference, "coherent", {STRATUM: coherent})


def test_a_removed_family_leaves_no_trace(reference: SpectralReference) -> None:
    added, _ = few_shot.add_family(reference, "new", {STRATUM: generated(10, 0)})
    removed = few_shot.remove_family(added, "new")

    assert added.families == {"new"}
    assert added.parent == reference.content_hash
    assert added.content_hash != reference.content_hash
    assert removed.content_hash == reference.content_hash
    assert removed.families == frozenset()
    with pytest.raises(ValueError, match="no family 'new'; there are: none"):
        few_shot.remove_family(removed, "new")


def test_the_evidence_of_a_family_is_bounded(reference: SpectralReference) -> None:
    added, _ = few_shot.add_family(reference, "new", {STRATUM: generated(30, 0)})
    rows = np.concatenate([photographs(50, 1), generated(50, 1), 1e6 * generated(50, 2), -1e6 * generated(50, 2)])

    old = np.array([logits_of(np.clip(r, -10, 10)[None], reference.strata[STRATUM])[0] for r in rows])
    new = np.array([logits_of(np.clip(r, -10, 10)[None], added.strata[STRATUM])[0] for r in rows])

    offset = float(added.strata[STRATUM].family_offset)

    assert -np.log(2) <= offset <= MAX_FAMILY_LOGIT
    assert (new >= old + np.log(1 - FAMILY_SHARE) - offset - 1e-9).all()
    assert (new <= np.maximum(old, MAX_FAMILY_LOGIT) - offset).all()
    assert new.max() > old.max() + 1
    assert score(rows[60], added.strata[STRATUM]).family_logits.keys() == {"new"}


def test_leaving_one_out_leaves_it_out(reference: SpectralReference) -> None:
    samples = generated(12, 4)
    mean, axes = reference.strata[STRATUM].mean, np.eye(FEATURES)

    weights, intercepts = few_shot._directions(samples, mean, axes)
    without_first, intercept = few_shot._directions(samples[1:], mean, axes)

    assert weights.shape == (13, FEATURES)
    assert weights[1] == pytest.approx(without_first[0])
    assert intercepts[1] == pytest.approx(intercept[0])


def test_the_evidence_is_the_log_ratio_of_two_normal_densities(reference: SpectralReference) -> None:
    stratum, samples = reference.strata[STRATUM], generated(50, 5)
    axes = few_shot._axes(stratum, samples)
    weights, intercepts = few_shot._directions(samples, stratum.mean, axes)
    z = generated(3, 6)

    family = scipy.stats.multivariate_normal(samples.mean(axis=0), np.linalg.inv(axes)).logpdf(z)
    real = scipy.stats.multivariate_normal(stratum.mean, np.linalg.inv(axes)).logpdf(z)
    assert z @ weights[0] + intercepts[0] == pytest.approx(family - real)


def test_photographs_score_as_before_at_the_operating_point(reference: SpectralReference) -> None:
    added, _ = few_shot.add_family(reference, "new", {STRATUM: generated(10, 0)})
    seen = reference.strata[STRATUM].held_out

    old, new = (np.quantile(logits_of(seen, r.strata[STRATUM]), 0.9) for r in (reference, added))

    assert new == pytest.approx(old)


def test_two_hundred_samples_are_the_most(reference: SpectralReference) -> None:
    added, gate = few_shot.add_family(reference, "many", {STRATUM: generated(200, 0)})
    assert gate.samples == 200
    assert added.families == {"many"}


@pytest.mark.parametrize(
    ("name", "samples", "message"),
    [
        ("a/b", {STRATUM: generated(10, 0)}, "1-64 letters"),
        ("few", {STRATUM: generated(9, 0)}, "10 to 200"),
        ("many", {STRATUM: generated(201, 0)}, "10 to 200"),
        ("none", {}, "10 to 200"),
        ("uneven", {STRATUM: generated(10, 0), "lossless/any": generated(11, 0)}, "the same 10 to 200"),
        ("lost", {"gif/any": generated(10, 0)}, "no stratum gif/any"),
        ("wide", {STRATUM: generated(10, 0)[:, 1:]}, "have shape"),
        ("nan", {STRATUM: generated(10, 0) * np.nan}, "not finite"),
    ],
)
def test_bad_samples_are_named(
    reference: SpectralReference, name: str, samples: dict[str, np.ndarray], message: str
) -> None:
    with pytest.raises(ValueError, match=message):
        few_shot.add_family(reference, name, samples)


def test_a_name_is_used_once(reference: SpectralReference) -> None:
    added, _ = few_shot.add_family(reference, "new", {STRATUM: generated(10, 0)})
    with pytest.raises(ValueError, match="there already"):
        few_shot.add_family(added, "new", {STRATUM: generated(10, 1)})
