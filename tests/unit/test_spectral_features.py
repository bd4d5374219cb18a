"""Features, the JPEG mask, and images that the spectrum says nothing about."""

from __future__ import annotations

import numpy as np
import pytest

from pipeline.detection.spectral import features
from tests.support.spectral_images import power_law, with_grid


def test_every_feature_is_measured_in_the_published_order() -> None:
    assert tuple(features.measure(power_law(128, 144)).values) == features.NAMES


@pytest.mark.parametrize("alpha", [1.0, 2.0, 3.0])
def test_the_slope_is_the_exponent_of_the_power_law(alpha: float) -> None:
    values = features.measure(power_law(512, 512, alpha)).values

    assert values["radial_slope_alpha"] == pytest.approx(alpha, abs=0.1)
    assert values["top_octave_residual"] == pytest.approx(0.0, abs=0.05)


def test_a_bump_at_high_frequency_shows_in_its_band_only() -> None:
    y, x = np.mgrid[:256, :256]
    wave = 15 * np.cos(2 * np.pi * (0.42 * x + 0.06 * y)).astype(np.float32)

    plain = features.measure(power_law(256, 256)).values
    bumped = features.measure(power_law(256, 256) + wave).values

    assert bumped["radial_residual_0.40_0.45"] > plain["radial_residual_0.40_0.45"] + 0.3
    assert abs(bumped["radial_residual_0.20_0.25"] - plain["radial_residual_0.20_0.25"]) < 0.2


def test_the_curve_is_relative_to_a_tenth_of_a_cycle() -> None:
    luma = power_law(256, 256)

    assert features.measure(luma).radial[12:14].mean() == pytest.approx(0.0, abs=1e-9)
    assert features.measure(luma * 0.5).radial == pytest.approx(features.measure(luma).radial, abs=1e-2)


def test_an_eight_pixel_grid_shows_in_peaks_and_autocorrelation() -> None:
    plain = features.measure(power_law(256, 256)).values
    grid = features.measure(with_grid(power_law(256, 256), 8)).values

    assert grid["log_peak_median_1_8"] > 1 > plain["log_peak_median_1_8"]
    assert grid["autocorrelation_period_8"] > plain["autocorrelation_period_8"] + 0.02


def test_a_sixteen_pixel_grid_is_told_from_an_eight_pixel_one() -> None:
    eight = features.measure(with_grid(power_law(256, 256), 8)).values
    sixteen = features.measure(with_grid(power_law(256, 256), 16)).values

    assert sixteen["log_peak_median_1_16"] > eight["log_peak_median_1_16"] + 1
    assert sixteen["autocorrelation_period_16"] > eight["autocorrelation_period_16"] + 0.02


def test_masking_keeps_the_odd_sixteenths_and_drops_the_jpeg_period() -> None:
    kept, everything = features.names_for(True), features.names_for(False)

    assert everything == features.NAMES
    assert set(everything) - set(kept) == set(features.JPEG_PERIOD)
    assert {"log_peak_max_1_16", "log_peak_median_1_16", "autocorrelation_period_16"} <= set(kept)


@pytest.mark.parametrize(
    ("luma", "reason"),
    [
        (power_law(127, 400), "127 px, below 128"),
        (np.full((256, 256), 90, np.float32), "flat"),
        (np.pad(power_law(160, 256), ((48, 48), (0, 0))), "letterboxed: 38% of the rows"),
        (np.pad(power_law(256, 160), ((0, 0), (96, 0)), constant_values=255), "letterboxed: 38% of the columns"),
    ],
)
def test_images_without_evidence_say_why(luma: np.ndarray, reason: str) -> None:
    assert reason in str(features.not_applicable(luma))


def test_a_thin_border_is_no_letterbox() -> None:
    framed = np.pad(power_law(240, 240), 8).astype(np.float32)

    assert features.not_applicable(framed) is None
    assert features.not_applicable(power_law(128, 128)) is None
