"""Features, the JPEG mask, and images that the spectrum says nothing about."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from pipeline.detection.spectral import features
from pipeline.detection.spectral.features import Measurement
from pipeline.detection.spectral.kernel import Float32
from pipeline.media.decode import bt601_luma
from pipeline.media.encode import Filter, reencode, rescale
from tests.support.spectral_images import coloured, power_law, with_grid


def measured(luma: Float32) -> Measurement:
    return features.measure(luma, coloured(luma))


def of_pixels(rgb: np.ndarray) -> Measurement:
    return features.measure(bt601_luma(rgb), rgb)


_PINNED = json.loads((Path(__file__).parents[1] / "support" / "spectral_values.json").read_text())
_PINNED_LUMA = {
    "128x144": power_law(128, 144, seed=1),
    "384x640 grid 8": with_grid(power_law(384, 640, seed=2), 8),
    "1024x1024": power_law(1024, 1024, seed=3),
    "grey 512x512": power_law(512, 512, seed=4),
}


@pytest.mark.parametrize("name", _PINNED)
def test_values_are_those_that_the_shipped_reference_was_measured_with(name: str) -> None:
    """Whoever makes the arithmetic faster: a change beyond the rounding of float32 needs a new reference."""
    luma = _PINNED_LUMA[name]
    grey = np.repeat(luma.astype(np.uint8)[..., None], 3, axis=2)
    values = features.measure(luma, grey if name.startswith("grey") else coloured(luma, 5)).values

    assert set(values) == set(_PINNED[name])
    for feature, pinned in _PINNED[name].items():
        assert abs(values[feature] - pinned) < 2e-4 * max(1.0, abs(pinned)), feature


def test_every_feature_is_measured_in_the_published_order() -> None:
    assert tuple(measured(power_law(128, 144)).values) == features.NAMES


@pytest.mark.parametrize("alpha", [1.0, 2.0, 3.0])
def test_the_slope_is_the_exponent_of_the_power_law(alpha: float) -> None:
    values = measured(power_law(512, 512, alpha)).values

    assert values["radial_slope_alpha"] == pytest.approx(alpha, abs=0.1)
    assert values["top_octave_residual"] == pytest.approx(0.0, abs=0.05)


def test_a_bump_at_high_frequency_shows_in_its_band_only() -> None:
    y, x = np.mgrid[:256, :256]
    wave = 15 * np.cos(2 * np.pi * (0.42 * x + 0.06 * y)).astype(np.float32)

    plain = measured(power_law(256, 256)).values
    bumped = measured(power_law(256, 256) + wave).values

    assert bumped["radial_0.406_0.438"] > plain["radial_0.406_0.438"] + 0.3
    assert abs(bumped["radial_0.219_0.250"] - plain["radial_0.219_0.250"]) < 0.2
    assert bumped["radial_roughness"] > plain["radial_roughness"] + 0.1


def test_the_curve_is_relative_to_a_tenth_of_a_cycle() -> None:
    luma = power_law(256, 256)

    assert measured(luma).radial[12:14].mean() == pytest.approx(0.0, abs=1e-9)
    assert measured(luma * 0.5).radial == pytest.approx(measured(luma).radial, abs=1e-2)


def test_an_eight_pixel_grid_shows_in_peaks_and_autocorrelation() -> None:
    plain = measured(power_law(256, 256)).values
    grid = measured(with_grid(power_law(256, 256), 8)).values

    assert grid["log_peak_median_1_8"] > 1 > plain["log_peak_median_1_8"]
    assert grid["autocorrelation_period_8"] > plain["autocorrelation_period_8"] + 0.02


def test_a_sixteen_pixel_grid_is_told_from_an_eight_pixel_one() -> None:
    eight = measured(with_grid(power_law(256, 256), 8)).values
    sixteen = measured(with_grid(power_law(256, 256), 16)).values

    assert sixteen["log_peak_median_1_16"] > eight["log_peak_median_1_16"] + 1
    assert sixteen["autocorrelation_period_16"] > eight["autocorrelation_period_16"] + 0.02


def test_masking_keeps_the_odd_sixteenths_and_drops_the_jpeg_period() -> None:
    kept, everything = features.names_for(True), features.names_for(False)

    assert everything == features.NAMES
    assert set(everything) - set(kept) == set(features.JPEG_PERIOD)
    odd = {"log_peak_max_1_16", "log_peak_median_1_16", "autocorrelation_period_16", "phase_peak_odd_16_x"}
    assert odd <= set(kept)
    assert not [name for name in kept if name.startswith(("colour_peak", "harmonic_"))]


def test_an_image_without_colour_has_no_value_of_colour() -> None:
    luma = power_law(256, 256)
    grey = features.measure(luma, np.repeat(luma.astype(np.uint8)[..., None], 3, axis=2))

    assert grey.colourless
    assert not measured(luma).colourless
    assert {grey.values[name] for name in features.COLOUR} == {0.0}
    luma_only = [name for name in features.NAMES if name not in features.COLOUR]
    assert [grey.values[name] for name in luma_only] == [measured(luma).values[name] for name in luma_only]


@pytest.mark.parametrize("kind", ["bilinear", "bicubic", "lanczos", "nearest"])
def test_a_twofold_enlargement_is_flagged(kind: Filter) -> None:
    assert of_pixels(rescale(coloured(power_law(200, 200)), 2.0, kind)).upscaled


@pytest.mark.parametrize("quality", [95, 90, 75, 50, 30])
@pytest.mark.parametrize("factor", [1.0, 0.8, 1.5])
def test_jpeg_and_other_scales_are_not_flagged_as_twofold(quality: int, factor: float) -> None:
    rgb = rescale(coloured(power_law(400, 400)), factor)

    assert not of_pixels(reencode(rgb, "jpeg", quality)).upscaled


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
