from __future__ import annotations

import numpy as np
import pytest
from sklearn.metrics import average_precision_score, brier_score_loss, log_loss, roc_auc_score

from pipeline.evaluation import metrics
from pipeline.evaluation.comparison import auc_difference, delong, mcnemar
from pipeline.evaluation.intervals import Rate, cluster_bootstrap
from pipeline.evaluation.metrics import (
    WeightedAuc,
    area,
    at_threshold,
    auc_interval,
    average_precision,
    brier,
    confusion,
    ece,
    filled,
    fnr_at_fpr,
    fnr_at_frozen_fpr,
    folds_by_source,
    nll,
    reliability,
    roc_auc,
    weighted_fnr,
)


def scored(seed, reals=400, made=300, decimals=2):
    """Overlapping classes with many ties."""
    rng = np.random.default_rng(seed)
    return np.round(rng.beta(2, 4, reals), decimals), np.round(rng.beta(4, 2, made), decimals)


def labels(real, synthetic):
    return np.r_[np.zeros(real.size), np.ones(synthetic.size)], np.r_[real, synthetic]


@pytest.mark.parametrize("decimals", [1, 2, 12])
def test_auc_and_average_precision_equal_scikit_learn(decimals):
    for seed in range(5):
        real, synthetic = scored(seed, decimals=decimals)
        y, s = labels(real, synthetic)
        assert abs(roc_auc(real, synthetic) - roc_auc_score(y, s)) < 1e-9
        assert abs(average_precision(real, synthetic) - average_precision_score(y, s)) < 1e-9


def test_brier_and_log_loss_equal_scikit_learn():
    y, p = labels(*scored(0))
    p = np.clip(p, 0.001, 0.999)
    assert brier(p, y == 1) == pytest.approx(brier_score_loss(y, p), abs=1e-12)
    assert nll(p, y == 1) == pytest.approx(log_loss(y, p), abs=1e-12)
    assert nll(np.array([1.0]), np.array([False])) < 14.0


def test_auc_counts_ties_half():
    assert roc_auc(np.array([0.1, 0.5]), np.array([0.5, 0.9])) == pytest.approx((1 + 1 + 1 + 0.5) / 4)


def test_an_image_without_a_score_is_not_flagged_whatever_its_class():
    real, synthetic = filled([0.2, None]), filled([0.9, None, 0.1])
    point = at_threshold(real, synthetic, 0.0)
    assert (str(point.fnr), point.fpr.count) == (str(Rate(1, 3)), 1)
    assert (point.fnr.total, point.fpr.total) == (3, 2)
    assert roc_auc(real, synthetic) == pytest.approx((2 + 0.5 + 1) / 6)
    everything = fnr_at_fpr(real, synthetic, 1.0)
    assert (everything.fpr.count, everything.fnr.count) == (1, 1), "no cut is low enough to flag it"


def test_delong_interval_of_a_hand_made_case():
    real, synthetic = np.array([1.0, 2.0, 4.0]), np.array([3.0, 5.0])
    found = area(real, synthetic, list("abc"), list("de"))
    v10, v01 = np.array([2 / 3, 1.0]), np.array([1.0, 1.0, 0.5])
    error = 1.959964 * np.sqrt(v10.var(ddof=1) / 2 + v01.var(ddof=1) / 3)
    assert found.auc == pytest.approx(5 / 6)
    assert found.delong == (pytest.approx(5 / 6 - error), 1.0)
    assert auc_interval(real[:1], synthetic) == (0.0, 1.0)


def test_bootstrap_by_source_is_wider_when_images_of_a_source_agree():
    rng = np.random.default_rng(0)
    shifts = rng.normal(0, 1.5, 8)
    real = np.concatenate([rng.normal(s, 0.1, 40) for s in shifts])
    synthetic = np.concatenate([rng.normal(1 + s, 0.1, 40) for s in shifts])
    sources = [str(i // 40) for i in range(320)]
    found = area(real, synthetic, sources, sources)
    assert np.diff(found.by_cluster) > 1.5 * np.diff(found.delong)


def test_the_weighted_statistics_are_those_of_the_repeated_images():
    real, synthetic = scored(1, 60, 40)
    rng = np.random.default_rng(0)
    w, v = rng.integers(0, 4, 60), rng.integers(0, 4, 40)
    repeated = np.repeat(real, w), np.repeat(synthetic, v)
    assert WeightedAuc(real, synthetic)(w.astype(float), v.astype(float)) == pytest.approx(roc_auc(*repeated))
    missed = at_threshold(*repeated, 0.6).fnr.share
    assert weighted_fnr(synthetic, 0.6)(w.astype(float), v.astype(float)) == pytest.approx(missed)


def test_bootstrap_needs_two_clusters_a_class_and_repeats_with_its_seed():
    real, synthetic = scored(2, 50, 50)
    names = [str(i % 10) for i in range(50)]
    statistic = WeightedAuc(real, synthetic)
    assert cluster_bootstrap(statistic, ["one"] * 50, names) is None
    first = cluster_bootstrap(statistic, names, names, rounds=50)
    assert first == cluster_bootstrap(statistic, names, names, rounds=50)
    assert first != cluster_bootstrap(statistic, names, names, rounds=50, seed=1)


def test_clopper_pearson_against_published_values():
    assert Rate(100, 1000).interval == pytest.approx((0.082, 0.120), abs=5e-4)
    assert Rate(140, 1000).interval == pytest.approx((0.119, 0.163), abs=5e-4)
    assert Rate(28, 200).interval == pytest.approx((0.095, 0.196), abs=5e-4)
    assert Rate(14, 100).interval == pytest.approx((0.079, 0.224), abs=5e-4)
    assert Rate(10, 1000).interval == pytest.approx((0.005, 0.018), abs=5e-4)
    assert Rate(0, 10).interval[0] == 0.0
    assert Rate(10, 10).interval[1] == 1.0
    assert Rate(0, 0).interval == (0.0, 1.0)
    assert Rate(0, 299).upper_limit < 0.01 < Rate(0, 297).upper_limit


def test_the_cut_at_a_false_alarm_rate_never_exceeds_it():
    real = np.arange(100) / 100.0
    missed, flagged, cut = fnr_at_fpr(real, np.array([0.5, 0.885, 0.905, 0.99]), 0.10)
    assert (flagged.count, missed.count) == (10, 2)
    assert 0.89 < cut <= 0.90
    tied = np.full(100, 0.5)
    assert fnr_at_fpr(tied, np.array([0.5, 0.6]), 0.10).fpr.count == 0


def test_a_frozen_cut_shows_what_an_oracle_cut_hides():
    """Fold 1 scores its photographs higher: cut by fold 0 it exceeds the rate, and fold 0 cut by it falls below."""
    real = np.r_[np.linspace(0.0, 0.5, 100), np.linspace(0.3, 0.8, 100)]
    synthetic = np.linspace(0.4, 1.0, 60)
    fold = np.repeat([0, 1], 100)
    made_fold = np.arange(60) % 2
    frozen = fnr_at_frozen_fpr(real, synthetic, fold, made_fold, 0.10)
    low, high = 0.45, 0.75
    assert frozen.thresholds == pytest.approx((low, high), abs=0.01)
    assert frozen.fpr == Rate(int((real[100:] > real[89]).sum()), 200)
    assert frozen.fpr.share > 0.3
    assert frozen.fnr.total == 60
    assert fnr_at_frozen_fpr(real, synthetic, np.zeros(200), made_fold, 0.1) is None


def test_folds_keep_a_source_together_and_alike_in_size():
    folds = folds_by_source(["a"] * 5 + ["b"] * 3 + ["c"] * 3 + ["d"], 2)
    assert folds.tolist() == [0] * 5 + [1] * 6 + [0]


def test_a_score_at_the_cut_is_flagged():
    missed, flagged, _ = at_threshold(np.array([0.3]), np.array([0.3, 0.29]), 0.3)
    assert (missed.count, flagged.count) == (1, 1)


def test_the_confusion_matrix_counts_every_image():
    found = confusion(np.array([0.1, 0.6, 0.2]), np.array([0.9, 0.4]), 0.5)
    assert (found.true_positives, found.false_negatives, found.false_positives, found.true_negatives) == (1, 1, 1, 2)
    assert found.accuracy == Rate(3, 5)
    assert (found.real_accuracy, found.synthetic_accuracy) == (Rate(2, 3), Rate(1, 2))
    assert found.balanced_accuracy == pytest.approx((2 / 3 + 1 / 2) / 2)


def test_ece_of_a_calibrated_and_of_a_shifted_score():
    rng = np.random.default_rng(0)
    p = rng.random(30_000)
    y = rng.random(30_000) < p
    assert ece(p, y) < 0.015
    assert ece(np.clip(p + 0.2, 0, 1), y) == pytest.approx(0.18, abs=0.02)
    bins = reliability(p, y)
    assert [b.images for b in bins] == [2000] * 15
    assert sum(b.synthetic_share * b.images for b in bins) == pytest.approx(y.sum())


def test_ece_does_not_depend_on_the_order_of_equal_scores():
    p, y = np.full(100, 0.5), np.arange(100) < 50
    assert ece(p, y) == pytest.approx(0.0)
    assert np.isnan(ece(np.array([]), np.array([], bool)))


def test_delong_paired_equals_the_bootstrap_and_finds_a_better_detector():
    rng = np.random.default_rng(3)
    truth_real, truth_made = rng.normal(0, 1, 300), rng.normal(1, 1, 300)
    a = truth_real + rng.normal(0, 1.0, 300), truth_made + rng.normal(0, 1.0, 300)
    b = truth_real + rng.normal(0, 0.2, 300), truth_made + rng.normal(0, 0.2, 300)
    found = delong(*a, *b)
    each = [str(i) for i in range(300)]
    assert found.difference == pytest.approx(roc_auc(*b) - roc_auc(*a))
    assert found.p_value < 0.01
    assert found.interval == pytest.approx(auc_difference(a, b, each, each, rounds=600), abs=0.01)
    same = delong(*a, *a)
    assert (same.difference, same.p_value, same.interval) == (0.0, 1.0, (0.0, 0.0))
    with pytest.raises(ValueError, match="same images"):
        delong(*a, b[0][:10], b[1])


def test_mcnemar_is_exact():
    wrong_a = np.r_[np.ones(9, bool), np.zeros(41, bool)]
    wrong_b = np.r_[np.zeros(8, bool), np.ones(2, bool), np.zeros(40, bool)]
    found = mcnemar(wrong_a, wrong_b)
    assert (found.only_a_wrong, found.only_b_wrong) == (8, 1)
    assert found.p_value == pytest.approx(2 * (1 + 9) / 2**9)
    assert found.difference == pytest.approx(-7 / 50)
    assert mcnemar(wrong_a, wrong_a).p_value == 1.0


def test_an_auc_by_clusters_is_the_auc_by_images():
    rng = np.random.default_rng(1)
    real, synthetic = rng.integers(0, 30, 400) / 30.0, rng.integers(5, 35, 300) / 30.0
    real_cluster, cluster = rng.integers(0, 7, 400), rng.integers(0, 5, 300)
    statistic = WeightedAuc(real, synthetic)
    condensed = statistic.by_cluster(real_cluster, cluster)
    for _ in range(20):
        w, v = (rng.integers(0, 3, count).astype(float) for count in (7, 5))
        assert condensed(w, v) == pytest.approx(statistic(w[real_cluster], v[cluster]), abs=1e-12, nan_ok=True)


def test_an_auc_of_many_clusters_is_left_to_the_images(monkeypatch):
    monkeypatch.setattr(metrics, "MAX_CLUSTER_PAIRS", 10)
    scores = np.linspace(0.0, 1.0, 8)
    statistic = WeightedAuc(scores, scores)
    assert statistic.by_cluster(np.arange(8), np.arange(8)) is None
    assert cluster_bootstrap(statistic, np.arange(8), np.arange(8), rounds=20) is not None
