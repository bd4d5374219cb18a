"""How the reference is trained: copies alike, a head that admits ignorance, a shipped file that loads."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

import pipeline.detection.spectral.reference as references
from pipeline.detection.spectral import strata
from pipeline.training import spectral_reference as training
from pipeline.training.dataset import Labelled

SHIPPED = Path(references.__file__).parents[1] / "bundles" / "first" / "spectral_reference.npz"


def rows(n: int) -> list[Labelled]:
    return [Labelled(Path(str(i)), "0" * 64, i % 2 == 1, f"source-{i % 2}-{i % 16 // 2}", False) for i in range(n)]


def copies(n: int, codec: str) -> training.Copies:
    return training.Copies(np.arange(n), np.full(n, codec), np.full(n, "128_383"), np.zeros((n, 1)), np.zeros((n, 64)))


def test_the_head_finds_what_carries_over_to_unseen_sources() -> None:
    labelled = rows(160)
    labels = np.array([row.synthetic for row in labelled])
    z = np.random.default_rng(0).normal(size=(160, 3))
    z[:, 1] += 3.0 * labels

    head = training.fit_head(labelled, copies(160, "lossless"), z)

    logits = z @ head.weights + head.intercept
    assert np.argmax(np.abs(head.weights)) == 1
    assert ((logits > 0) == labels).mean() > 0.85


def test_the_head_says_one_half_when_the_evidence_reverses_between_sources() -> None:
    labelled = rows(160)
    labels = np.array([row.synthetic for row in labelled])
    source = np.arange(160) % 16 // 2
    # One column a source, so that what is learned on some sources is noise on the others, and one that misleads.
    z = np.where(labels, -1.0, 1.0)[:, None] * (source % 4 == np.arange(4)[:, None]).T * 3.0
    z = z - z.sum(axis=1, keepdims=True) * 0.5

    head = training.fit_head(labelled, copies(160, "lossless"), z)

    assert head.weights.tolist() == [0.0] * 4
    assert head.intercept == 0.0


def test_logistic_regression_is_at_its_minimum() -> None:
    rng = np.random.default_rng(1)
    z, labels, mass = rng.normal(size=(80, 2)), rng.random(80) < 0.5, rng.random(80)

    w, b = training.fit_logistic(z, labels, mass, 0.1)

    pull = mass / mass.sum() * (1 / (1 + np.exp(-(z @ w + b))) - labels)
    assert pull.sum() == pytest.approx(0, abs=1e-5)
    assert z.T @ pull + 0.1 * w == pytest.approx(0, abs=1e-5)


@pytest.mark.parametrize("hide_old_grid", [False, True])
@pytest.mark.parametrize("seed", range(6))
def test_every_copy_has_the_common_size(hide_old_grid: bool, seed: int) -> None:
    rgb = np.random.default_rng(seed).integers(0, 255, (300, 420, 3), np.uint8)

    cut = training._treated(rgb, 256, np.random.default_rng(seed), hide_old_grid)
    too_small = training._treated(rgb, 512, np.random.default_rng(seed), hide_old_grid)

    assert cut is not None
    assert cut.shape == (256, 256, 3)
    assert too_small is None


def test_an_image_enters_the_pooled_lossy_stratum_once() -> None:
    masked = [codec for codec in strata.CODECS if strata.masks_jpeg_grid(codec)]
    every = training.Copies(
        np.repeat(np.arange(6), len(masked)),
        np.tile(masked, 6),
        np.full(6 * len(masked), "128_383"),
        np.zeros((6 * len(masked), 1)),
        np.zeros((6 * len(masked), 64)),
    )

    chosen = training.one_lossy_codec_each(every)

    assert chosen.image.tolist() == list(range(6))
    assert set(chosen.codec.tolist()) == set(masked)


def test_the_shipped_reference_loads_and_no_stratum_is_thin() -> None:
    shipped = references.SpectralReference.load(SHIPPED)

    assert all(stratum.photographs >= references.MIN_PHOTOGRAPHS for stratum in shipped.strata.values())
    for codec in (*strata.CODECS, strata.LOSSY_UNKNOWN):
        for size in strata.SIZES:
            assert shipped.lookup(f"{codec}/{size}")[1].calibration.size >= 19
