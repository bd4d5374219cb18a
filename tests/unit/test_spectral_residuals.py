"""Differences between neighbours, their phases, combs of resized grids, colour, and the spectral residual."""

from __future__ import annotations

import numpy as np
import pytest

from pipeline.detection.spectral import colour, comb, kernel, residuals
from pipeline.detection.spectral.log_spectrum import residual_moments
from pipeline.media.encode import rescale
from tests.support.spectral_images import coloured, power_law, with_grid


@pytest.mark.parametrize(("height", "width"), [(64, 96), (576, 256), (240, 288), (960, 576)])
def test_differences_are_the_textbook_ones(height: int, width: int) -> None:
    area = power_law(height, width)
    x = area.astype(np.float64)

    found = residuals.differences(area)

    cross = np.abs(x[:-1, :-1] + x[1:, 1:] - x[:-1, 1:] - x[1:, :-1])
    assert found.across_x == pytest.approx(np.abs(np.diff(x, axis=1)).mean(axis=0), rel=1e-5)
    assert found.across_y == pytest.approx(np.abs(np.diff(x, axis=0)).mean(axis=1), rel=1e-5)
    assert found.cross_x == pytest.approx(cross.mean(axis=0), rel=1e-5)
    assert found.cross_y == pytest.approx(cross.mean(axis=1), rel=1e-5)
    assert found.cross_square == pytest.approx(np.square(cross).mean(), rel=1e-5)
    padded = residuals.cross_difference(area)
    assert padded[:-1, :-1] == pytest.approx(cross, abs=1e-3)
    assert not padded[-1].any()
    assert not padded[:, -1].any()
    assert found.cross_power == pytest.approx(
        kernel.power_spectrum(padded, (kernel.folds(height), kernel.folds(width))), rel=1e-3, abs=1e-3
    )
    assert residuals.cross_mean(area) == pytest.approx(cross.mean(), rel=1e-5)


def test_the_phase_profile_finds_the_column_where_blocks_meet() -> None:
    blocks = np.repeat(np.random.default_rng(0).normal(128, 20, (1, 32)), 8, axis=1)
    area = np.repeat(blocks, 64, axis=0).astype(np.float32) + power_law(64, 256) * 0.05
    across = residuals.differences(area).across_x

    eight = residuals.phase_profiles(across)[8]

    assert int(np.argmax(eight)) == 7
    assert residuals.phase_peak(eight) > 3
    assert residuals.phase_peak_odd(residuals.phase_profiles(across)[16]) < residuals.phase_peak(eight)


def test_a_period_of_sixteen_is_odd_and_one_of_eight_is_not() -> None:
    across = np.ones(256)
    across[7::16] = 3.0
    sixteen = residuals.phase_peak_odd(residuals.phase_profiles(across)[16])
    across[15::16] = 3.0
    eight = residuals.phase_peak_odd(residuals.phase_profiles(across)[16])

    assert sixteen > 1
    assert eight == 0.0


def test_neighbouring_pixels_are_those_of_the_two_by_two_blocks() -> None:
    noise = np.random.default_rng(0).normal(0, 2, (256, 256)).astype(np.float32)

    npr = residuals.neighbouring_pixels(noise)

    # Differences of independent pixels are normal, of variance 8: E[d^4] = 3 E[d^2]^2.
    assert npr.log_variance == pytest.approx(np.log(8), abs=0.05)
    assert npr.log_kurtosis == pytest.approx(np.log(3), abs=0.05)
    assert npr.log_diagonal_ratio == pytest.approx(0, abs=0.05)
    doubled = residuals.neighbouring_pixels(np.kron(noise[:128, :128], np.ones((2, 2), np.float32)))
    assert doubled.log_variance < -10


def test_variance_that_changes_from_place_to_place_is_seen() -> None:
    noise = np.random.default_rng(0).normal(0, 2, (256, 256)).astype(np.float32)
    half_loud = noise * np.where(np.arange(256) < 128, 1, 10)[None].astype(np.float32)

    even, uneven = residuals.neighbouring_pixels(noise), residuals.neighbouring_pixels(half_loud)

    assert uneven.variance_spread > even.variance_spread + 1
    assert uneven.log_kurtosis > even.log_kurtosis + 0.3


@pytest.mark.parametrize("factor", [0.75, 1.25, 1.6])
def test_the_comb_finds_the_factor_of_a_resized_grid(factor: float) -> None:
    gridded = with_grid(power_law(512, 512), 8, 20.0)
    rgb = np.repeat(np.clip(gridded, 0, 255).astype(np.uint8)[..., None], 3, axis=2)
    resized = kernel.analysed_area(rescale(rgb, factor)[..., 0].astype(np.float32))
    plain = residuals.differences(power_law(*resized.shape))
    found = residuals.differences(resized)

    best = comb.search(found.cross_x, found.cross_y)

    assert best.factor == pytest.approx(factor, rel=0.01)
    assert best.off_grid > comb.search(plain.cross_x, plain.cross_y).off_grid + 1


def test_a_grid_that_was_not_resized_is_no_comb_off_the_grid() -> None:
    gridded = residuals.differences(with_grid(power_law(256, 256), 8))

    best = comb.search(gridded.cross_x, gridded.cross_y)

    assert best.strength > 6
    assert best.off_grid < 5


def test_colour_detail_falls_when_colour_is_smooth() -> None:
    luma = power_law(256, 256)
    smooth = coloured(luma)
    noise = np.random.default_rng(0).integers(-20, 21, (256, 256, 2))
    noisy = np.clip(smooth + np.stack([noise[..., 0], 0 * noise[..., 0], noise[..., 1]], axis=2), 0, 255)

    plain, loud = (
        dict(zip(colour.NAMES, colour.measure(rgb.astype(np.uint8), luma)[1] or [], strict=True))
        for rgb in (smooth, noisy)
    )

    assert loud["red_green_detail_1px"] > plain["red_green_detail_1px"] + 1
    assert loud["blue_yellow_0.40_0.50"] > plain["blue_yellow_0.40_0.50"] + 1


def test_colour_that_repeats_every_eight_pixels_peaks() -> None:
    luma = power_law(256, 256)
    tile = np.random.default_rng(0).integers(-30, 31, (8, 8))
    rgb = coloured(luma).astype(np.int64)
    rgb[..., 0] += np.tile(tile, (32, 32))

    of_grid = dict(zip(colour.NAMES, colour.measure(np.clip(rgb, 0, 255).astype(np.uint8), luma)[1] or [], strict=True))

    assert of_grid["colour_peak_median_grid_8"] > 1 > of_grid["colour_peak_median_odd_16"]


def test_crops_are_central_and_bounded() -> None:
    assert colour.crop_slices(512, 240) == (slice(128, 384), slice(0, 240))
    assert colour.crop_slices(1024, 768) == (slice(320, 704), slice(192, 576))


def test_a_line_in_the_spectrum_raises_the_spectral_residual() -> None:
    y, x = np.mgrid[:256, :256]
    wave = 10 * np.cos(2 * np.pi * (0.3 * x + 0.11 * y)).astype(np.float32)
    plain, lined = (
        residual_moments(kernel.cell_power(field), field.shape)
        for field in (power_law(256, 256), power_law(256, 256) + wave)
    )

    assert lined[2] > plain[2] + 2
    # ln of an exponentially distributed power: standard deviation pi/sqrt(6), skewness -1.14.
    assert plain[0] == pytest.approx(1.28, abs=0.1)
    assert plain[1] == pytest.approx(-1.14, abs=0.2)


def test_blocks_cover_all_rows_and_none_is_the_last_row_alone() -> None:
    sides = sorted({kernel.analysed_area(np.broadcast_to(np.float32(0), (n, n))).shape[0] for n in range(128, 1025)})

    for rows in sides:
        for columns in sides:
            high = rows // kernel.folds(rows)
            blocks = list(residuals._blocks(rows, columns, high))
            assert [stop for _, stop in blocks] == [*(top for top, _ in blocks[1:]), rows]
            assert all(stop - top >= 2 and top // high == (stop - 1) // high for top, stop in blocks)
