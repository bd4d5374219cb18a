"""Cross-fitting and heads on synthetic features, where what can be learned is known."""

from __future__ import annotations

import numpy as np
import pytest

from pipeline.evaluation.metrics import roc_auc
from pipeline.training.probe.ablation import Result, nested
from pipeline.training.probe.content_free import content_free
from pipeline.training.probe.crossfit import Channel, Images, Recipe, crossfit, mine, train
from pipeline.training.probe.discriminant import Examples, Linear, balanced, fit, logistic_fit
from pipeline.training.probe.pair_store import PairFeatures
from pipeline.training.probe.views import VIEWS, lattice_crops, rng_of, textured_crops, thumbnail
from pipeline.training.splits import FOLDS

DIMENSIONS = 12


def two_classes(count, *, trace=1.5, between=4.0, seed=0):
    """Feature 0 holds the trace; features 1.. hold each source's own offset, far larger than the trace."""
    rng = np.random.default_rng(seed)
    names = ["photo a", "photo b", "photo c", "made a", "made b", "made c"]
    x, synthetic, unit = [], [], []
    for name in names:
        made = name.startswith("made")
        values = rng.normal(0, 1, (count, DIMENSIONS))
        values[:, 1:] += rng.normal(0, between, DIMENSIONS - 1)
        values[:, 0] += trace * made
        x.append(values)
        synthetic.append(np.full(count, made))
        unit.append(np.full(count, name))
    return np.concatenate(x).astype(np.float32), np.concatenate(synthetic), np.concatenate(unit)


def test_the_discriminant_rests_on_what_is_steady_within_sources():
    x, synthetic, unit = two_classes(200)
    (head,) = fit(Examples(x, synthetic, unit, np.ones(len(x))), (0.03,))
    other, label, _ = two_classes(200, seed=1)
    trace_only = roc_auc(other[~label, 0].astype(float), other[label, 0].astype(float))
    scores = other.astype(np.float64)
    scores[:, 1:] = 0.0  # what a new source's offsets are worth: nothing
    assert abs(head.weights[0]) > 0.0
    assert roc_auc(scores[~label] @ head.weights, scores[label] @ head.weights) == pytest.approx(trace_only)


@pytest.mark.parametrize("count", [5, 400])  # more features than images, and fewer
def test_a_head_gives_equal_logits_whichever_gram_matrix_it_used(count):
    rng = np.random.default_rng(3)
    x = rng.normal(0, 1, (2 * count, 40)).astype(np.float32)
    label = np.arange(2 * count) % 2 == 0
    x[label, 0] += 3.0
    head = fit(Examples(x, label, np.where(label, "made", "photo"), np.ones(2 * count)), (1.0,))[0]
    logits = head.logits(x)
    assert roc_auc(logits[~label], logits[label]) > 0.9
    assert logits == pytest.approx(x.astype(np.float64) @ head.weights + head.bias, abs=1e-3)


def test_one_class_is_refused():
    x = np.zeros((4, 3), np.float32)
    with pytest.raises(ValueError, match="both classes"):
        fit(Examples(x, np.zeros(4, bool), np.array(["a"] * 4), np.ones(4)))


def test_balanced_weights_give_classes_and_units_their_share():
    unit = np.array(["a"] * 8 + ["b"] * 2 + ["c"] * 5)
    synthetic = unit == "c"
    weights = balanced(unit, synthetic, 1.0)
    assert weights[synthetic].sum() == pytest.approx(weights[~synthetic].sum())
    assert weights[unit == "a"].sum() == pytest.approx(weights[unit == "b"].sum())
    even = balanced(unit, synthetic, 0.0)
    assert len(set(even[~synthetic].round(12))) == 1


def study(seed=0, packaged=0):
    """Four folds, each with a source of photographs and a family of its own, and a trace in feature 0."""
    rng = np.random.default_rng(seed)
    rows = []
    for fold in range(FOLDS):
        rows += [(f"p{fold}", False, fold, False)] * 30 + [(f"m{fold}", True, fold, False)] * 20
    rows += [("m0", True, -1, True)] * 5 + [("m9", True, 3, True)] * packaged
    source = np.array([r[0] for r in rows])
    synthetic = np.array([r[1] for r in rows])
    fold = np.array([r[2] for r in rows])
    images = Images(np.arange(len(rows)).astype(str), synthetic, source, source, fold, np.array([r[3] for r in rows]))
    x = rng.normal(0, 1, (len(rows), 6))
    x[synthetic, 0] += 2.0
    return images, x.astype(np.float32)


def test_cross_fitting_scores_every_fold_and_nothing_of_the_final_split():
    images, x = study()
    found = crossfit(Channel({"q90": x}), images, Recipe("r"), ("q90",))
    outer = found.outer["q90"]
    assert np.isnan(outer[images.fold < 0]).all()
    assert not np.isnan(outer[images.fold >= 0]).any()
    for fold in range(FOLDS):
        inner = found.inner[fold]["q90"]
        assert np.isnan(inner[images.fold == fold]).all()
        rows = images.fold == fold
        assert roc_auc(outer[rows & ~images.synthetic], outer[rows & images.synthetic]) > 0.8


def test_no_held_out_image_nor_one_of_its_source_touches_a_head():
    images, x = study()
    spoiled = x.copy()
    spoiled[(images.fold == 1) | (images.fold < 0)] = 1e6
    one, other = (train(Channel({"q90": values}), images, Recipe("r"), (1,)) for values in (x, spoiled))
    for a, b in zip(one, other, strict=True):
        assert a.weights.tolist() == b.weights.tolist()


def test_a_source_that_spans_folds_is_left_out_of_training():
    images, x = study()
    source = images.source.copy()
    source[images.fold == 2] = "m1"  # one repository with images of two families
    spanning = Images(images.sha256, images.synthetic, images.unit, source, images.fold, images.packaged)
    spoiled = x.copy()
    spoiled[images.fold == 2] = 1e6
    one, other = (train(Channel({"q90": v}), spanning, Recipe("r"), (1,))[0] for v in (x, spoiled))
    assert one.weights.tolist() == other.weights.tolist()


def test_unusable_images_are_tested_and_never_trained_on():
    images, x = study()
    unusable = images.source == "p2"
    spoiled = x.copy()
    spoiled[unusable] = 1e6
    marked = Images(**{**vars(images), "unusable": unusable})
    one, other = (train(Channel({"q90": v}), marked, Recipe("r"), (0,))[0] for v in (x, spoiled))
    assert one.weights.tolist() == other.weights.tolist()


def test_the_plain_probe_learns_the_trace_too():
    images, x = study()
    found = crossfit(Channel({"q90": x}), images, Recipe("r"), ("q90",), logistic=True)
    rows = images.fold >= 0
    outer = found.outer["q90"]
    assert roc_auc(outer[rows & ~images.synthetic], outer[rows & images.synthetic]) > 0.8
    head = logistic_fit(Examples(x[rows], images.synthetic[rows], images.unit[rows], np.ones(rows.sum())))[-1]
    assert head.weights[0] > np.abs(head.weights[1:]).max()


def test_pairs_are_judged_by_unseen_weights_and_unseen_sources():
    rng = np.random.default_rng(0)
    sources = np.array(["BIDS/BSDS500", "alexeygrigorev/clothing-dataset-small"] * 60)
    units = np.repeat(["SD1/2", "SDXL", "FLUX"], 40)
    real = rng.normal(0, 1, (120, 8)).astype(np.float32)
    made = real + np.array([1.5] + [0.0] * 7, np.float32)
    pairs = PairFeatures(real, made, real + rng.normal(0, 0.1, real.shape).astype(np.float32), units, sources)
    found = content_free(pairs)
    assert set(found.auc) == {"SD1/2", "SDXL", "FLUX"}
    assert found.worst > 0.75
    nothing = PairFeatures(real, rng.permutation(real), real, units, sources)
    assert content_free(nothing).macro < 0.65


def test_views_are_the_same_each_time_and_native():
    rgb = np.random.default_rng(0).integers(0, 256, (300, 420, 3), np.uint8)
    for name, view in VIEWS.items():
        crops = view(rgb, "key")
        side = 384 if name == "q90-384" else 256
        assert (crops.shape, crops.dtype) == ((9, side, side, 3), np.uint8), name
        assert np.array_equal(crops, view(rgb, "key"))
    png = VIEWS["png"](rgb, "key")
    windows = np.lib.stride_tricks.sliding_window_view(rgb[..., 0], (256, 256))
    assert all((windows == crop[..., 0]).all(axis=(2, 3)).any() for crop in png[[0, 8]])


def test_small_images_are_reflected_and_thumbnails_keep_their_shape():
    small = np.random.default_rng(0).integers(0, 256, (90, 200, 3), np.uint8)
    assert lattice_crops(small, rng_of("a")).shape == (9, 256, 256, 3)
    assert thumbnail(np.zeros((1000, 500, 3), np.uint8)).shape == (400, 200, 3)
    assert thumbnail(small).shape == small.shape


def test_half_of_the_textured_crops_lie_where_the_texture_is():
    rgb = np.zeros((256, 2048, 3), np.uint8)
    rgb[:, 1500:1800] = np.random.default_rng(0).integers(0, 256, (256, 300, 3), np.uint8)
    crops = textured_crops(rgb, rng_of("a"))
    assert crops.shape == (9, 256, 256, 3)
    busy = [bool(crop.any()) for crop in crops]
    assert busy[:5] == [True] * 5
    assert busy.count(True) < 9


def packaged_study():
    """Photographs out of packages beside those of `study`, in fold 2, with a trace of their own."""
    images, x = study(packaged=8)
    count = 20
    more = Images(
        np.append(images.sha256, [f"k{i}" for i in range(count)]),
        np.append(images.synthetic, np.zeros(count, bool)),
        np.append(images.unit, np.full(count, "kit")),
        np.append(images.source, np.full(count, "kit")),
        np.append(images.fold, np.full(count, 2)),
        np.append(images.packaged, np.ones(count, bool)),
    )
    return more, np.concatenate([x, np.full((count, 6), 1e3, np.float32)])


def test_packaged_photographs_are_trained_on_only_when_asked_for():
    images, x = packaged_study()
    usual = np.where(images.source[:, None] == "kit", 0.0, x).astype(np.float32)

    def head(values, **settings):
        return train(Channel({"q90": values}), images, Recipe("r", **settings), (0,))[0].weights.tolist()

    assert head(x) == head(usual)
    assert head(x, packaged_photographs=True) != head(usual, packaged_photographs=True)


def test_photograph_views_add_photographs_and_no_generated_image():
    images, x = packaged_study()
    hard = x.copy()
    hard[images.synthetic] = np.nan  # the view does not exist for them
    channel = Channel({"q90": x, "hard": hard})
    heads = train(channel, images, Recipe("r", photograph_views=("hard",)), (0,))
    assert np.isfinite(heads[0].weights).all()


def test_mined_photographs_weigh_more_and_generated_images_do_not():
    images, x = study()
    examples = Examples(x, images.synthetic, images.unit, np.ones(len(x)))
    found = mine(examples, Linear(np.eye(6)[0], 0.0), 3.0)
    heavy = found.weight == 3.0
    assert not (heavy & images.synthetic).any()
    assert heavy.sum() == pytest.approx(0.1 * (~images.synthetic).sum(), abs=1)
    assert x[heavy, 0].min() >= x[~heavy & ~images.synthetic, 0].max()


def test_crops_of_an_image_are_pooled_by_their_highest_third():
    images, x = study()
    crops = np.repeat(x[:, None], 9, axis=1)
    marked = crops.copy()
    marked[images.synthetic, :6, 0] -= 1.0  # six of nine crops show nothing
    found = crossfit(Channel({"q90": marked}), images, Recipe("r"), ("q90",))
    rows = images.fold == 0
    head = found.heads[0]
    expected = head.logits(crops[rows & images.synthetic, 0])
    assert found.outer["q90"][rows & images.synthetic] == pytest.approx(expected)


def result(name, auc, thumbnails=(0.5,) * FOLDS):
    return Result("1", name, "b", auc, (), (), (), thumbnails, (0.5,) * FOLDS)


def test_the_row_of_a_fold_is_chosen_by_the_other_folds():
    steady, lucky = result("steady", (0.8, 0.8, 0.8, 0.8)), result("lucky", (1.0, 0.75, 0.75, 0.75))
    untested = result("not tested on thumbnails", (1.0, 1.0, 1.0, 1.0), ())
    chosen = nested([steady, lucky, untested])
    assert [best.name for best, _, _ in chosen] == ["steady", "lucky", "lucky", "lucky"]
    assert [auc for _, auc, _ in chosen] == [0.8, 0.75, 0.75, 0.75]
