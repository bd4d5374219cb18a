"""w3 is 0 unless the MLLM says something that the fused score does not."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.special import expit

from pipeline.evaluation.mllm_weight import MIN_PER_CLASS, Answers, TooFewAnswers, fit_weight
from pipeline.evaluation.stacking import StackingError

CLIP = (-1.75, 1.0)
ROUNDS = 200


def answers(knows: float, repeats: float = 0.0, *, per_class: int = 150, sources: int = 5, seed: int = 0) -> Answers:
    """`knows`: separation of what the model says by its own, in standard deviations; `repeats`: of p12's logit."""
    rng = np.random.default_rng(seed)
    y = np.repeat([False, True], per_class)
    before = rng.normal(np.where(y, 1.0, -1.0), 1.5)
    said = repeats * before + rng.normal(np.where(y, knows, -knows) / 2.0, 1.0)
    source = tuple(f"{'made' if label else 'photo'}-{i % sources}" for i, label in enumerate(y.tolist()))
    return Answers(expit(before), expit(said), y, source)


def test_a_model_that_knows_more_gets_a_weight_and_lowers_the_loss_elsewhere() -> None:
    fitted = fit_weight(answers(knows=2.0), 0.5, CLIP, ROUNDS)
    assert fitted.interval.low > 0.0
    assert fitted.interval.low < fitted.weight < fitted.interval.high
    assert fitted.weight == pytest.approx(fitted.estimate, abs=1e-6)
    assert fitted.loss_with < fitted.loss_without
    assert fitted.map.probability(1.0) > fitted.map.probability(-1.0)


def test_a_model_that_only_repeats_the_fused_score_gets_none() -> None:
    weights = [fit_weight(answers(0.0, 1.0, seed=seed), 0.5, CLIP, ROUNDS).weight for seed in range(8)]
    assert weights.count(0.0) >= 7, weights


@pytest.mark.parametrize("seed", range(4))
def test_a_repeater_gets_none_where_the_fused_score_is_too_timid(seed: int) -> None:
    found = answers(0.0, seed=seed)
    true = np.log(found.p12) - np.log1p(-found.p12)
    timid = Answers(expit(0.3 * true), expit(true), found.synthetic, found.source)
    assert fit_weight(timid, 0.5, CLIP, ROUNDS).weight == 0.0


def test_a_model_at_chance_gets_none() -> None:
    rng = np.random.default_rng(3)
    found = answers(0.0)
    said = Answers(found.p12, rng.permutation(found.raw) * 0.98 + 0.01 * found.synthetic, found.synthetic, found.source)
    fitted = fit_weight(said, 0.5, CLIP, ROUNDS)
    assert fitted.weight == 0.0
    assert fitted.interval.low <= 0.0


def test_a_model_that_is_wrong_is_refused() -> None:
    with pytest.raises(ValueError, match="fall as the label rises"):
        fit_weight(answers(knows=-3.0), 0.5, CLIP, ROUNDS)


@pytest.mark.parametrize(("made", "real"), [(MIN_PER_CLASS - 1, 80), (80, MIN_PER_CLASS - 1)])
def test_fewer_than_fifty_of_a_class_are_refused(made: int, real: int) -> None:
    found = answers(2.0, per_class=80)
    kept = np.r_[0:real, 80 : 80 + made]
    few = Answers(found.p12[kept], found.raw[kept], found.synthetic[kept], tuple(found.source[i] for i in kept))
    with pytest.raises(TooFewAnswers, match=f"{MIN_PER_CLASS - 1} answers"):
        fit_weight(few, 0.5, CLIP, ROUNDS)


def test_fifty_are_enough() -> None:
    assert fit_weight(answers(3.0, per_class=MIN_PER_CLASS), 0.5, CLIP, ROUNDS).weight > 0.0


def test_one_source_of_a_class_is_refused() -> None:
    with pytest.raises(StackingError, match="1 source"):
        fit_weight(answers(2.0, sources=1), 0.5, CLIP, ROUNDS)


def test_the_same_answers_give_the_same_weight() -> None:
    assert fit_weight(answers(1.0), 0.5, CLIP, ROUNDS) == fit_weight(answers(1.0), 0.5, CLIP, ROUNDS)
