from __future__ import annotations

import math

import numpy as np
import pytest
from pydantic import ValidationError

from pipeline.detection.calibration import (
    ISOTONIC_FROM,
    LOGIT_LIMIT,
    Calibration,
    Knot,
    fit,
    fit_bias,
    fit_calibration,
    fit_isotonic,
    logit,
    sigmoid,
)


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


def bent(count, seed=0):
    """Scores whose slope differs on both sides of 0: no temperature and bias fit them."""
    rng = np.random.default_rng(seed)
    raw = rng.normal(0.0, 3.0, count)
    p = 1 / (1 + np.exp(-np.where(raw > 0, 0.3 * raw, 2.0 * raw)))
    return raw, rng.random(count) < p, p


def test_many_items_get_a_table_that_fits_what_a_temperature_cannot():
    raw, synthetic, p = bent(20_000)
    prior = float(synthetic.mean())
    found = fit_calibration(raw, synthetic, prior)
    assert found.table
    error = np.abs(found.probabilities(raw) - p).mean()
    assert error < 0.02
    assert error < np.abs(fit(raw, synthetic, prior).probabilities(raw) - p).mean() / 2


def test_few_items_get_a_temperature_and_no_table():
    raw, synthetic, _ = bent(ISOTONIC_FROM - 1)
    assert fit_calibration(raw, synthetic) == fit(raw, synthetic)
    with pytest.raises(ValueError, match="isotonic needs 1000 items, got 999"):
        fit_calibration(raw, synthetic, method="isotonic")


def test_a_bias_alone_meets_the_prior_at_temperature_one():
    raw, synthetic, _ = bent(300)
    found = fit_calibration(raw + 4.0, synthetic, method="bias")
    assert found.temperature == 1.0
    assert found.bias == pytest.approx(fit_bias(raw, synthetic).bias - 4.0, abs=1e-6)
    p = found.probabilities(raw + 4.0)
    assert (p[synthetic].mean() + p[~synthetic].mean()) / 2 == pytest.approx(0.5, abs=0.01)


def test_a_table_survives_json_and_the_old_form_loads():
    raw, synthetic, _ = bent(2000)
    found = fit_isotonic(raw, synthetic)
    assert Calibration.model_validate_json(found.model_dump_json()) == found
    assert Calibration.model_validate_json('{"temperature": 1.5, "bias": 0.25}') == Calibration(
        temperature=1.5, bias=0.25
    )
    assert Calibration().model_dump() == {"temperature": 1.0, "bias": 0.0}


def test_a_table_keeps_the_order_of_scores_and_goes_on_beyond_its_ends():
    raw, synthetic, _ = bent(5000)
    found = fit_isotonic(raw, synthetic)
    p = found.probabilities(np.linspace(-40.0, 40.0, 4001))
    assert (np.diff(p) >= 0).all()
    assert p[0] < p[400] < p[-400] < p[-1]
    assert math.isnan(found.probability(math.nan))


def test_separable_and_tied_scores_give_a_table_of_finite_steps():
    raw = np.repeat([-2.0, 3.0], 600)
    found = fit_isotonic(raw, raw > 0)
    assert 0.99 < found.probability(3.0) < 1.0
    assert 0.0 < found.probability(-2.0) < 0.01


@pytest.mark.parametrize("table", [[(0.0, 1.0), (0.0, 2.0)], [(0.0, 1.0), (1.0, 0.5)]])
def test_a_table_must_be_monotone(table):
    with pytest.raises(ValidationError, match="must rise"):
        Calibration(table=tuple(Knot(x=x, y=y) for x, y in table))
