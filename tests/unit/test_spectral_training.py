"""How the reference is trained: copies alike, a head that admits ignorance, a shipped file that loads."""

from __future__ import annotations

from dataclasses import replace
from functools import partial
from pathlib import Path

import numpy as np
import pytest

import pipeline.detection.spectral.reference as references
from pipeline.detection.spectral import features, strata
from pipeline.detection.spectral.fitting import MIN_PHOTOGRAPHS
from pipeline.detection.spectral.pvalues import TooFewPhotographs
from pipeline.training import spectral_copies, spectral_head, spectral_rates, spectral_reference
from pipeline.training.dataset import Labelled
from pipeline.training.spectral_copies import ALIKE, DELIVERED, Copies

SHIPPED = Path(references.__file__).parents[1] / "bundles" / "default" / "spectral_reference.npz"


def rows(n: int) -> list[Labelled]:
    return [Labelled(Path(str(i)), "0" * 64, i % 2 == 1, f"source-{i % 2}-{i % 16 // 2}", False) for i in range(n)]


def copies(image: np.ndarray, codec: np.ndarray, kind: str = ALIKE, values: np.ndarray | None = None) -> Copies:
    n = image.size
    return Copies(
        image,
        np.full(n, kind),
        codec,
        np.full(n, "128_383"),
        np.full(n, "jpeg q85"),
        np.ones(n),
        np.zeros((n, 1)) if values is None else values,
        np.zeros((n, 64)),
        np.full(n, -1),
    )


def test_the_head_finds_what_carries_over_to_unseen_sources() -> None:
    labelled = rows(160)
    labels = np.array([row.synthetic for row in labelled])
    z = np.random.default_rng(0).normal(size=(160, 3))
    z[:, 1] += 3.0 * labels

    head = spectral_head.fit_head(labelled, z, range(z.shape[1]), l2=0.02)

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

    head = spectral_head.fit_head(labelled, z, range(z.shape[1]), l2=0.02)

    assert head.weights.tolist() == [0.0] * 4
    assert head.intercept == 0.0


def test_logistic_regression_is_at_its_minimum() -> None:
    rng = np.random.default_rng(1)
    z, labels, mass = rng.normal(size=(80, 2)), rng.random(80) < 0.5, rng.random(80)

    w, b = spectral_head.fit_logistic(z, labels, mass, 0.1)

    pull = mass / mass.sum() * (1 / (1 + np.exp(-(z @ w + b))) - labels)
    assert pull.sum() == pytest.approx(0, abs=1e-5)
    assert z.T @ pull + 0.1 * w == pytest.approx(0, abs=1e-5)


@pytest.mark.parametrize("hide_old_grid", [False, True])
@pytest.mark.parametrize("seed", range(6))
def test_every_copy_has_the_common_size(hide_old_grid: bool, seed: int) -> None:
    rgb = np.random.default_rng(seed).integers(0, 255, (300, 420, 3), np.uint8)

    cut = spectral_copies.treated(rgb, 256, np.random.default_rng(seed), hide_old_grid)
    too_small = spectral_copies.treated(rgb, 512, np.random.default_rng(seed), hide_old_grid)

    assert cut is not None
    assert cut.shape == (256, 256, 3)
    assert too_small is None


def test_an_image_enters_the_pooled_lossy_stratum_once() -> None:
    masked = [codec for codec in strata.CODECS if strata.masks_jpeg_grid(codec)]
    every = copies(np.repeat(np.arange(6), len(masked)), np.tile(masked, 6))

    chosen = spectral_reference.one_lossy_codec_each(every)

    assert chosen.image.tolist() == list(range(6))
    assert set(chosen.codec.tolist()) == set(masked)


def photographs_of(n: int) -> tuple[list[Labelled], Copies]:
    """Two copies of each in every codec, features random; 90 photographs are large as well."""
    rng = np.random.default_rng(0)
    codecs = np.tile(np.repeat(strata.CODECS, 2), n)
    image = np.repeat(np.arange(n), 2 * len(strata.CODECS))
    made = copies(image, codecs, DELIVERED, rng.normal(size=(image.size, len(features.NAMES))))
    made.size[(image < 90) & (np.arange(image.size) % 2 == 0)] = "384_767"
    return [replace(row, synthetic=False) for row in rows(n)], made


def test_thin_strata_are_pooled_and_photographs_are_counted_once() -> None:
    labelled, made = photographs_of(240)

    fitted = spectral_reference.fit_photographs(labelled, made)

    assert {name for name in fitted if name.endswith("384_767")} == set()
    assert fitted["lossless/any"].photographs == fitted["lossless/128_383"].photographs == 240
    assert fitted["lossy/any"].calibration.size == 60


def test_too_few_photographs_for_the_level_are_an_error() -> None:
    labelled, made = photographs_of(240)

    with pytest.raises(TooFewPhotographs, match="stratum lossless/any: 60 ranked photographs"):
        spectral_reference.fit_photographs(labelled, made, alpha=0.01)


def test_rates_count_photographs_and_not_copies() -> None:
    image = np.repeat(np.arange(10), 3)

    found = spectral_rates.false_positives(image, image == 0)
    split = spectral_rates.false_positives(image, np.arange(30) % 3 == 0)

    assert (found.photographs, found.share) == (10, 0.1)
    assert split.share == pytest.approx(1 / 3)
    assert split.low == split.high == pytest.approx(1 / 3)
    assert found.low < 0.1 < found.high


def test_cross_fitted_photographs_are_flagged_at_the_nominal_rate_and_never_by_their_own_copies() -> None:
    labelled, made = photographs_of(300)

    def fit(train: Copies) -> spectral_rates.PValues:
        seen = set(train.image.tolist())
        return lambda test: np.array([float(i in seen) for i in test.image.tolist()])

    assert not spectral_rates.cross_fitted(labelled, made, fit, seed=0).any()
    p = spectral_rates.cross_fitted(labelled, made, partial(spectral_rates.compensated, labelled, 0), seed=0)
    assert spectral_rates.false_positives(made.image, p <= 0.05).share == pytest.approx(0.05, abs=0.02)


def test_the_shipped_reference_loads_and_no_stratum_is_thin() -> None:
    shipped = references.SpectralReference.load(SHIPPED)

    assert all(stratum.photographs >= MIN_PHOTOGRAPHS for stratum in shipped.strata.values())
    shipped.require_level(0.05)
    for codec in (*strata.CODECS, strata.LOSSY_UNKNOWN):
        for size in strata.SIZES:
            assert shipped.lookup(f"{codec}/{size}")[1].calibration.size >= 19
