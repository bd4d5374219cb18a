"""One image through the spectral tier."""

from __future__ import annotations

import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from pipeline.detection.spectral import features
from pipeline.detection.spectral.analyser import DELIVERY_SHIFT, SpectralAnalyser, _canonical_copy
from pipeline.detection.spectral.reference import SpectralReference
from pipeline.media.decode import DecodedImage, bt601_luma
from pipeline.media.encode import rescale
from tests.support.spectral_images import coloured, decoded, facts, power_law, small_reference, with_grid

_OTHER_PROCESS = """
from tests.support.spectral_images import coloured, power_law
from pipeline.detection.spectral import features
luma = power_law(160, 256)
print([v.hex() for v in features.measure(luma, coloured(luma)).values.values()])
"""


@pytest.fixture(scope="module")
def analyser(tmp_path_factory: pytest.TempPathFactory) -> SpectralAnalyser:
    path = tmp_path_factory.mktemp("reference") / "reference.npz"
    small = small_reference()
    weighted = {
        name: replace(stratum, weights=np.full(stratum.weights.shape, 0.1)) for name, stratum in small.strata.items()
    }
    SpectralReference(weighted).save(path)
    return SpectralAnalyser(path)


def test_an_ordinary_image_is_scored_with_every_feature(analyser: SpectralAnalyser) -> None:
    analysis = analyser.analyse(decoded(power_law(128, 128, seed=99)))

    assert analysis.not_applicable is None
    assert analysis.stratum == "lossless/128_383"
    assert analysis.reference_stratum == "lossless/any"
    assert analysis.score is not None
    assert 0 < analysis.score < 1
    assert analysis.p_value is not None
    assert analysis.p_value > 0.05
    assert tuple(f.name for f in analysis.features) == features.NAMES
    assert all(f.percentile is not None for f in analysis.features)


def test_a_grid_is_anomalous_and_named(analyser: SpectralAnalyser) -> None:
    analysis = analyser.analyse(decoded(with_grid(power_law(128, 128, seed=99), 8)))

    assert analysis.p_value == pytest.approx(1 / 31)
    assert any(f.name.startswith("log_peak_median_1_") for f in analysis.top_features(6))


def test_a_jpegs_own_grid_is_no_evidence(analyser: SpectralAnalyser) -> None:
    luma = with_grid(power_law(128, 128, seed=99), 8)

    analysis = analyser.analyse(decoded(luma, jpeg_quality=80))

    assert not features.JPEG_PERIOD & {f.name for f in analysis.features}
    assert analysis.reference_stratum == "jpeg_70_84/any"


@pytest.mark.parametrize("luma", [power_law(100, 300), power_law(8, 8), np.full((200, 200), 7, np.float32)])
def test_not_applicable_has_no_score_at_all(analyser: SpectralAnalyser, luma: np.ndarray) -> None:
    analysis = analyser.analyse(decoded(luma))

    assert analysis.not_applicable
    assert analysis.score is analysis.p_value is None
    assert analysis.features == analysis.top_features(5) == ()


def test_an_image_without_colour_is_scored_by_its_luma(analyser: SpectralAnalyser) -> None:
    image = decoded(power_law(128, 128, seed=99))
    grey = replace(image, rgb=np.repeat(image.rgb[..., 1:2], 3, axis=2))

    of_colour = {
        name: contribution
        for name, contribution in zip(features.NAMES, analyser.analyse(grey).contributions, strict=True)
        if name in features.COLOUR
    }

    assert set(of_colour.values()) == {0.0}
    assert analyser.analyse(image).contributions != analyser.analyse(grey).contributions


def test_an_enlargement_is_a_flag_and_no_evidence(analyser: SpectralAnalyser) -> None:
    rgb = rescale(coloured(power_law(128, 128, seed=99)), 2.0)
    luma = bt601_luma(rgb)
    image = DecodedImage(rgb, luma, facts(luma))

    analysis = analyser.analyse(image)

    assert analysis.upscaled
    assert analysis.flags == ("enlarged",)
    assert not analyser.analyse(decoded(power_law(256, 256))).upscaled


def test_delivery_is_scored_only_when_asked(analyser: SpectralAnalyser) -> None:
    image = decoded(power_law(128, 128, seed=99))

    plain, checked = analyser.analyse(image), analyser.analyse(image, delivery=True)

    assert plain.delivery_sensitive is None
    assert checked.delivery_sensitive is not None
    assert (checked.score, checked.features) == (plain.score, plain.features)
    assert analyser.analyse(decoded(power_law(100, 100)), delivery=True).delivery_sensitive is None


def test_a_score_that_re_encoding_moves_is_delivery_sensitive(analyser: SpectralAnalyser) -> None:
    noisy = power_law(128, 128, seed=99) + np.random.default_rng(0).normal(0, 12, (128, 128)).astype(np.float32)
    canonical = analyser._analyse(_canonical_copy(decoded(noisy))).score
    own = analyser.analyse(decoded(noisy), delivery=True)

    assert own.score is not None
    assert canonical is not None
    assert own.delivery_sensitive == (abs(own.score - canonical) > DELIVERY_SHIFT)


def test_the_canonical_copy_is_a_jpeg_of_the_same_size() -> None:
    copied = _canonical_copy(decoded(power_law(128, 160)))

    assert (copied.facts.format, copied.facts.jpeg_quality, copied.facts.lossless) == ("jpeg", 90, False)
    assert copied.rgb.shape == (128, 160, 3)
    assert copied.luma == pytest.approx(bt601_luma(copied.rgb))


def test_the_deviation_is_from_the_strata_median_curve(analyser: SpectralAnalyser) -> None:
    analysis = analyser.analyse(decoded(power_law(128, 128, seed=99)))

    assert analysis.measurement is not None
    assert analysis.radial_deviation is not None
    assert analysis.radial_deviation == pytest.approx(analysis.measurement.radial - analysis.radial_band[2])
    assert analyser.analyse(decoded(power_law(100, 100))).radial_deviation is None


def test_top_features_are_the_farthest_from_the_middle(analyser: SpectralAnalyser) -> None:
    analysis = analyser.analyse(decoded(power_law(128, 128, seed=98)))
    distances = [abs((f.percentile or 0.0) - 50) for f in analysis.top_features(len(features.NAMES))]

    assert distances == sorted(distances, reverse=True)
    assert len(analysis.top_features(3)) == 3


def test_analysing_changes_nothing(analyser: SpectralAnalyser) -> None:
    image = decoded(power_law(128, 160, seed=5))
    before = image.luma.copy()

    first = analyser.analyse(image)
    analyser.analyse(decoded(power_law(256, 128, seed=6), jpeg_quality=50))
    second = analyser.analyse(image)

    assert np.array_equal(image.luma, before)
    assert (first.score, first.p_value, first.features) == (second.score, second.p_value, second.features)


def test_features_are_bit_equal_in_another_process() -> None:
    luma = power_law(160, 256)
    here = [value.hex() for value in features.measure(luma, coloured(luma)).values.values()]

    other = subprocess.run(
        [sys.executable, "-c", _OTHER_PROCESS],
        check=True,
        capture_output=True,
        text=True,
        cwd=Path(__file__).parents[2],
    )

    assert other.stdout.strip() == str(here)
