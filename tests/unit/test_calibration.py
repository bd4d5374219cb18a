from __future__ import annotations

import math

import numpy as np
import pytest
from pydantic import ValidationError

from pipeline.detection.calibration import LOGIT_LIMIT, Calibration, fit, logit, sigmoid


def test_extreme_logits_do_not_overflow():
    assert sigmoid(-1e6) == 0.0
    assert sigmoid(1e6) == 1.0
    assert math.isnan(sigmoid(math.nan))


def test_certainty_is_clipped():
    assert logit(0.0) == -LOGIT_LIMIT
    assert logit(1.0) == LOGIT_LIMIT
    assert logit(1e-300) == -LOGIT_LIMIT


@pytest.mark.parametrize("wrong", [math.nan, -0.01, 1.01, math.inf])
def test_what_is_no_probability_has_no_logit(wrong):
    with pytest.raises(ValueError, match=r"within \[0, 1\]"):
        logit(wrong)


def test_calibration_divides_before_it_adds():
    assert Calibration(temperature=2.0, bias=1.0).probability(4.0) == pytest.approx(1 / (1 + math.exp(-3.0)))


@pytest.mark.parametrize("fields", [{"temperature": 0.0}, {"temperature": -1.0}, {"bias": math.nan}])
def test_calibration_refuses_senseless_numbers(fields):
    with pytest.raises(ValidationError):
        Calibration(**fields)


def test_fit_finds_the_temperature_and_bias_that_made_the_labels():
    rng = np.random.default_rng(0)
    raw = rng.normal(0.0, 6.0, 40_000)
    synthetic = rng.random(raw.size) < 1 / (1 + np.exp(-(raw / 3.0)))
    found = fit(raw, synthetic)
    assert found.temperature == pytest.approx(3.0, rel=0.05)
    assert found.bias == pytest.approx(0.0, abs=0.05)


def test_fit_is_for_the_prior_and_not_for_the_mix_of_the_sample():
    rng = np.random.default_rng(1)
    raw = np.concatenate([rng.normal(-1.0, 1.0, 20_000), rng.normal(1.0, 1.0, 2_000)])
    synthetic = np.arange(raw.size) >= 20_000
    balanced, rare = fit(raw, synthetic), fit(raw, synthetic, prior=0.01)
    assert balanced.probability(0.0) == pytest.approx(0.5, abs=0.03)
    assert rare.probability(0.0) == pytest.approx(0.01, abs=0.005)


def test_separable_scores_get_a_finite_temperature():
    raw = np.concatenate([np.full(9, -4.0), np.full(9, 4.0)])
    found = fit(raw, raw > 0)
    assert found.probability(4.0) == pytest.approx(10 / 11, abs=1e-3)
    assert found.probability(-4.0) == pytest.approx(1 / 11, abs=1e-3)


def test_fit_refuses_one_class_and_reversed_scores():
    raw = np.linspace(-1.0, 1.0, 10)
    with pytest.raises(ValueError, match="both classes"):
        fit(raw, np.ones(10, bool))
    with pytest.raises(ValueError, match="fall as the label rises"):
        fit(np.append(raw, raw), np.append(raw < 0, raw < 0.5))
