"""The ablation of the artifact network: who is held out, how both are fused, and when the network is kept."""

from __future__ import annotations

import numpy as np
import pytest

pytest.importorskip("torch", reason="needs the [torch] extra")

from pipeline.training.artifact_ablation import (
    METHODS,
    TESTS,
    compare,
    crossfit,
    fuse,
    is_kept,
    table,
    training_pairs,
    training_rows,
)
from pipeline.training.dataset import Labelled
from pipeline.training.probe.crossfit import Images
from pipeline.training.splits import FOLDS

pytestmark = pytest.mark.torch

PER_FOLD = 60


@pytest.fixture
def images():
    count = FOLDS * PER_FOLD
    fold = np.repeat(np.arange(FOLDS), PER_FOLD)
    synthetic = np.arange(count) % 2 == 1
    unit = np.array([f"{'ai' if s else 'photo'} {f}" for s, f in zip(synthetic, fold, strict=True)])
    return Images(np.array([f"{i:064x}" for i in range(count)]), synthetic, unit, unit, fold, np.zeros(count, np.bool_))


@pytest.fixture
def rows(images, tmp_path):
    return [
        Labelled(tmp_path, sha, bool(s), str(source), False)
        for sha, s, source in zip(images.sha256, images.synthetic, images.source, strict=True)
    ]


def evidence(images, strength, seed):
    """A scorer whose logits hold so much evidence, and that notes what was held out."""
    noise = np.random.default_rng(seed).normal(size=len(images.fold))
    asked = []

    def scored(held_out):
        asked.append(tuple(held_out))
        logits = noise + strength * images.synthetic
        return dict.fromkeys(TESTS, logits)

    return scored, asked


def test_a_source_of_a_held_out_fold_is_not_trained_on(images):
    source = images.source.copy()
    source[-1] = source[1]  # an image of the last fold from a repository of the first
    shared = Images(images.sha256, images.synthetic, images.unit, source, images.fold, images.packaged)
    rows = training_rows(shared, (0,))
    assert not rows[:PER_FOLD].any()
    assert not rows[-1]
    assert rows[PER_FOLD:-1].all()


def test_the_final_split_is_not_trained_on(images):
    fold = images.fold.copy()
    fold[-1] = -1
    final = Images(images.sha256, images.synthetic, images.unit, images.source, fold, images.packaged)
    assert not training_rows(final, (0,))[-1]


def test_pairs_of_a_held_out_family_or_source_are_left_out():
    unit = np.array(["SDXL", "FLUX", "FLUX", "SD3"])
    source = np.array(["BIDS/BSDS500", "BIDS/BSDS500", "EliSchwartz/imagenet-sample-images", "google/dreambooth"])
    assert training_pairs(unit, source, (0,)).tolist() == [False, True, False, True]
    assert training_pairs(unit, source, (1, 3)).tolist() == [False, False, True, False]


def test_every_score_is_by_a_network_that_did_not_see_the_fold(images):
    scored, asked = evidence(images, 1.0, 0)
    found = crossfit(scored, images, TESTS)
    assert sorted(asked) == [(0,), (0, 1), (0, 2), (0, 3), (1,), (1, 2), (1, 3), (2,), (2, 3), (3,)]
    assert not np.isnan(found.outer["q90"]).any()
    for fold in range(FOLDS):
        assert np.isnan(found.inner[fold]["q90"][images.fold == fold]).all()
        assert not np.isnan(found.inner[fold]["q90"][images.fold != fold]).any()


@pytest.mark.parametrize(("strength", "kept"), [(2.0, True), (0.0, False)])
def test_a_network_is_kept_when_its_evidence_is_new(images, rows, strength, kept):
    first = crossfit(evidence(images, 1.0, 0)[0], images, TESTS)
    second = crossfit(evidence(images, strength, 1)[0], images, TESTS)
    found = []
    for view in TESTS:
        fused = fuse(first, second, images, rows, view)
        logits = dict(zip(METHODS, (first.outer[view], second.outer[view], fused), strict=True))
        found += compare(logits, images, view)
    assert is_kept([found]) is kept
    assert found[0].real + found[0].synthetic == PER_FOLD
    assert table(found).count("| macro |") == len(TESTS)


def test_statistics_that_say_nothing_leave_the_network_alone(images, rows):
    silent = crossfit(lambda held_out: {view: np.zeros(len(images.fold)) for view in TESTS}, images, TESTS)
    second = crossfit(evidence(images, 2.0, 1)[0], images, TESTS)
    fused = fuse(silent, second, images, rows, "q90")
    mine = images.fold == 0
    assert (np.argsort(fused[mine]) == np.argsort(second.outer["q90"][mine])).all()
