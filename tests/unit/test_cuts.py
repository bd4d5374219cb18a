"""Thresholds that keep a budget with 95 % confidence."""

from __future__ import annotations

import numpy as np
import pytest

from pipeline.evaluation.cuts import Budget, allowed_errors, cut_above, cut_below, images_needed
from pipeline.evaluation.intervals import Rate

FIFTY = np.arange(50) / 50
NONE = np.array([])


@pytest.mark.parametrize(("rate", "needed"), [(0.05, 59), (0.01, 299), (0.005, 598)])
def test_without_an_error_so_many_images_support_a_budget(rate: float, needed: int) -> None:
    assert images_needed(rate) == needed
    assert Budget("x", rate, Rate(0, needed)).supported
    assert not Budget("x", rate, Rate(0, needed - 1)).supported


@pytest.mark.parametrize(("total", "rate", "allowed"), [(145, 0.05, 2), (598, 0.005, 0), (10, 0.05, 0), (0, 0.1, 0)])
def test_as_many_errors_as_the_upper_limit_leaves_room_for(total: int, rate: float, allowed: int) -> None:
    assert allowed_errors(total, rate) == allowed
    assert Rate(allowed + 1, total).upper_limit > rate


def test_more_errors_need_more_images_and_too_many_need_an_infinity() -> None:
    needed = images_needed(0.05, 0.02)
    assert needed is not None
    assert needed > 59
    assert Rate(round(0.02 * needed), needed).upper_limit <= 0.051
    assert images_needed(0.05, 0.05) is None


def test_the_threshold_lies_between_scores() -> None:
    cut = cut_below("FNR", np.array([0.4, 0.5, 0.6]), np.array([0.1, 0.2, 0.7]), 0.05, "abc")
    assert cut.value == 0.3, "midway between the highest score below and the lowest generated image"
    assert cut.budget.errors == Rate(0, 3)
    cut = cut_above("FPR", np.array([0.1, 0.2, 0.3]), np.array([0.4, 0.9]), 0.05, "abc")
    assert cut.value == 0.35
    assert cut.budget.errors == Rate(0, 3)


def test_the_allowed_errors_are_used_up() -> None:
    below = cut_below("FNR", FIFTY, NONE, 0.2, ["a"] * 50)
    above = cut_above("FPR", FIFTY, NONE, 0.2, ["a"] * 50)
    assert below.budget.errors == above.budget.errors == Rate(allowed_errors(50, 0.2), 50)
    assert below.budget.errors.count > 0
    assert below.budget.supported


def test_tied_scores_stay_on_one_side() -> None:
    cut = cut_above("FPR", np.array([0.5] * 100), np.array([0.9]), 0.5, ["a"] * 100)
    assert cut.value > 0.5
    assert cut.budget.errors.count == 0


def test_an_image_without_a_score_is_an_error_that_no_threshold_prevents() -> None:
    cut = cut_below("FNR", np.array([-np.inf, 0.4, 0.8]), np.array([0.2]), 0.01, "aaa")
    assert cut.budget.errors == Rate(1, 3)
    assert 0.2 < cut.value <= 0.4


def test_a_real_image_with_the_highest_score_is_flagged_by_every_threshold() -> None:
    cut = cut_above("FPR", np.array([0.1, 1.0]), NONE, 0.01, "aa")
    assert (cut.value, cut.budget.errors) == (1.0, Rate(1, 2))


def test_without_images_nothing_passes_and_nothing_is_supported() -> None:
    cut = cut_above("FPR", NONE, np.array([0.4]), 0.1, [])
    assert cut.value <= 0.4
    assert not cut.budget.supported
    assert "29 would do" in str(cut.budget)


def test_the_intervals_hold_the_threshold_and_one_source_says_nothing_of_others() -> None:
    scores = np.random.default_rng(0).uniform(size=400)
    names = [f"s{i % 8}" for i in range(400)]
    cut = cut_below("FNR", scores, NONE, 0.2, names)
    assert cut.by_source is not None
    assert cut.interval.low < cut.value < cut.interval.high
    assert cut.by_source.low < cut.value < cut.by_source.high
    assert cut.interval.high - cut.interval.low < 0.12
    assert cut_below("FNR", scores, NONE, 0.2, ["one"] * 400).by_source is None


def test_sources_that_differ_widen_the_interval_by_source() -> None:
    scores = np.concatenate([np.random.default_rng(i).uniform(i / 10, i / 10 + 0.1, size=80) for i in range(10)])
    cut = cut_below("FNR", scores, NONE, 0.2, [f"s{i // 80}" for i in range(800)])
    assert cut.by_source is not None
    assert cut.by_source.high - cut.by_source.low > 2 * (cut.interval.high - cut.interval.low)
