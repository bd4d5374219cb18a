"""Ranks, their combinations, and levels that a number of photographs cannot support."""

from __future__ import annotations

import numpy as np
import pytest
import scipy.stats

from pipeline.detection.spectral import pvalues
from pipeline.detection.spectral.fitting import fit_stratum, parts_of
from pipeline.detection.spectral.score import photograph_p_values


@pytest.mark.parametrize(
    ("distance", "expected"), [(0.5, 1.0), (1.0, 1.0), (1.5, 4 / 5), (3.0, 3 / 5), (4.0, 2 / 5), (9.0, 1 / 5)]
)
def test_a_p_value_counts_calibration_distances_at_least_as_large(distance: float, expected: float) -> None:
    assert pvalues.conformal_p_value(distance, np.array([1.0, 2.0, 3.0, 4.0])) == pytest.approx(expected)


def test_ties_count_as_at_least_as_large() -> None:
    assert pvalues.conformal_p_value(2.0, np.array([1.0, 2.0, 2.0, 2.0])) == pytest.approx(4 / 5)


def test_two_sided_values_are_small_at_both_ends() -> None:
    columns = np.arange(1.0, 100.0)[:, None]

    p = pvalues.two_sided(np.array([[0.0], [50.0], [1000.0]]), columns)

    assert p[:, 0].tolist() == [0.02, 1.0, 0.02]


def test_combinations_of_independent_uniform_p_values_are_uniform() -> None:
    p = np.random.default_rng(0).random((4000, 6))

    for combined in (pvalues.stouffer(p), pvalues.min_p(p), pvalues.cauchy(p)):
        assert scipy.stats.kstest(combined, "uniform").pvalue > 0.01


def test_combinations_equal_their_definitions() -> None:
    p = np.array([[0.01, 0.2, 0.7]])

    assert pvalues.stouffer(p)[0] == pytest.approx(scipy.stats.combine_pvalues(p[0], "stouffer").pvalue)
    assert pvalues.min_p(p)[0] == pytest.approx(1 - 0.99**3)
    assert pvalues.cauchy(np.array([[0.03, 0.03, 0.03]]))[0] == pytest.approx(0.03)


def test_the_cauchy_combination_bears_dependence_that_stouffer_does_not() -> None:
    one = np.random.default_rng(1).random((4000, 1))
    same = np.repeat(one, 8, axis=1)

    assert (pvalues.cauchy(same) < 0.05).mean() == pytest.approx(0.05, abs=0.015)
    assert (pvalues.stouffer(same) < 0.05).mean() > 0.2


def test_the_independent_subset_keeps_one_of_each_dependent_group() -> None:
    rng = np.random.default_rng(2)
    base = rng.normal(size=(500, 3))
    noisy = base[:, :1] + 0.1 * rng.normal(size=(500, 1))
    by_extremeness = (base[:, 1:2] ** 2) * rng.choice([-1.0, 1.0], size=(500, 1))

    chosen = pvalues.independent_subset(np.concatenate([base, noisy, by_extremeness], axis=1)).tolist()

    assert len(chosen) == 3
    assert 2 in chosen
    assert len({0, 3} & set(chosen)) == 1
    assert len({1, 4} & set(chosen)) == 1
    assert pvalues.independent_subset(base[:, :1]).tolist() == [0]


@pytest.mark.parametrize(("alpha", "needed"), [(0.05, 19), (0.01, 99), (0.001, 999), (0.1, 9), (0.5, 1), (0.03, 33)])
def test_photographs_needed_for_a_level(alpha: float, needed: int) -> None:
    assert pvalues.photographs_needed(alpha) == needed
    pvalues.require_level("lossless/any", needed, alpha)
    with pytest.raises(pvalues.TooFewPhotographs, match=rf"stratum lossless/any: {needed - 1} .* needs {needed}"):
        pvalues.require_level("lossless/any", needed - 1, alpha)


def test_combined_values_ranked_again_hold_their_level_for_any_distribution() -> None:
    rng = np.random.default_rng(3)
    rates = []
    for seed in range(30):
        rows = rng.standard_t(3, size=(700, 8)) @ rng.normal(size=(8, 8))
        fitted = fit_stratum(rows[:500], np.zeros((500, 64)), np.arange(500), parts_of(500, seed))
        z = np.clip((rows[500:] - fitted.median) / fitted.scale, -10, 10)
        rates.append((photograph_p_values(z, fitted) <= 0.05).mean())

    assert np.mean(rates) == pytest.approx(0.05, abs=0.01)
