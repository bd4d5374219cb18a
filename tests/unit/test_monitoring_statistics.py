"""The paired tests of the weekly run against oracles, and how often they raise a false alarm on few images."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.stats import binomtest, norm

from pipeline.detection.calibration import Floats
from pipeline.evaluation.comparison import delong, mcnemar
from pipeline.evaluation.monitoring.weekly import LEAST_OF_A_CLASS, SIGNIFICANCE


def kernel(real: Floats, made: Floats) -> Floats:
    """1 where a generated image scores above a real one, a half for a tie, (M, N)."""
    return np.greater.outer(made, real) + 0.5 * np.equal.outer(made, real)


def by_the_paper(real: Floats, made: Floats) -> tuple[Floats, float]:
    """Both AUC and the two-sided p of their difference, from the whole covariance matrix; scores are (2, N)."""
    both = [kernel(r, m) for r, m in zip(real, made, strict=True)]
    auc = np.array([k.mean() for k in both])
    of_made = np.cov(np.stack([k.mean(axis=1) for k in both])) / made.shape[1]
    of_real = np.cov(np.stack([k.mean(axis=0) for k in both])) / real.shape[1]
    contrast = np.array([-1.0, 1.0])
    error = np.sqrt(contrast @ (of_made + of_real) @ contrast)
    return auc, float(2 * norm.sf(abs(contrast @ auc) / error))


@pytest.mark.parametrize(("reals", "mades", "decimals"), [(12, 30, 1), (200, 50, 2), (40, 40, 6)])
def test_paired_delong_is_the_papers_with_ties_and_uneven_classes(reals: int, mades: int, decimals: int) -> None:
    rng = np.random.default_rng(reals)
    real, made = rng.normal(0, 1, (2, reals)).round(decimals), rng.normal(0.8, 1, (2, mades)).round(decimals)
    found = delong(real[0], made[0], real[1], made[1])
    auc, p_value = by_the_paper(real, made)
    assert (found.auc_a, found.auc_b) == pytest.approx(tuple(auc))
    assert found.p_value == pytest.approx(p_value)


@pytest.mark.parametrize(("only_a", "only_b"), [(0, 0), (3, 0), (8, 1), (20, 31)])
def test_mcnemar_is_the_sign_test(only_a: int, only_b: int) -> None:
    both = 50
    wrong_a = np.r_[np.ones(only_a, bool), np.zeros(only_b + both, bool)]
    wrong_b = np.r_[np.zeros(only_a, bool), np.ones(only_b, bool), np.zeros(both, bool)]
    count = only_a + only_b
    expected = binomtest(only_a, count).pvalue if count else 1.0
    assert mcnemar(wrong_a, wrong_b).p_value == pytest.approx(expected)


@pytest.mark.parametrize("separation", [0.5, 1.5, 3.0])
def test_two_detectors_of_one_worth_seldom_regress_on_the_fewest_images_that_are_tested(separation: float) -> None:
    rng, rounds, alarms = np.random.default_rng(4), 1000, 0
    for _ in range(rounds):
        real, made = rng.normal(0, 1, LEAST_OF_A_CLASS), rng.normal(separation, 1, LEAST_OF_A_CLASS)
        a, b = ((x + rng.normal(0, 0.5, x.size) for x in (real, made)) for _ in "ab")
        found = delong(*a, *b)
        alarms += found.difference < 0 and found.p_value < SIGNIFICANCE
    assert alarms / rounds <= SIGNIFICANCE
