"""One image through the spectral tier."""

from __future__ import annotations

import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from pipeline.detection.spectral import features
from pipeline.detection.spectral.analyser import SpectralAnalyser
from pipeline.detection.spectral.reference import SpectralReference
from tests.support.spectral_images import decoded, power_law, small_reference, with_grid

_OTHER_PROCESS = """
from tests.support.spectral_images import power_law
from pipeline.detection.spectral import features
print([v.hex() for v in features.measure(power_law(160, 256)).values.values()])
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
    here = [value.hex() for value in features.measure(power_law(160, 256)).values.values()]

    other = subprocess.run(
        [sys.executable, "-c", _OTHER_PROCESS],
        check=True,
        capture_output=True,
        text=True,
        cwd=Path(__file__).parents[2],
    )

    assert other.stdout.strip() == str(here)
