"""The half plane is exact, and finds grids and nothing else."""

from __future__ import annotations

import numpy as np
import pytest

from pipeline.detection.spectral import kernel
from tests.support.spectral_images import power_law, with_grid


def full_plane_power(field: kernel.Float32) -> kernel.Float64:
    """float64 throughout, all frequencies, no symmetry used."""
    height, width = field.shape
    rows = 0.5 - 0.5 * np.cos(2 * np.pi * np.arange(height) / height)
    columns = 0.5 - 0.5 * np.cos(2 * np.pi * np.arange(width) / width)
    windowed = (field.astype(np.float64) - field.mean(dtype=np.float64)) * rows[:, None] * columns[None]
    return np.abs(np.fft.fft2(windowed)) ** 2 / (np.square(rows).sum() * np.square(columns).sum())


def full_plane_radial(power: kernel.Float64) -> kernel.Float64:
    fy, fx = np.fft.fftfreq(power.shape[0])[:, None], np.fft.fftfreq(power.shape[1])[None]
    index = (np.hypot(fy, fx) * 128).astype(int)
    return np.array([power[index == j].mean() for j in range(64)])


@pytest.mark.parametrize(("height", "width"), [(256, 256), (128, 320), (336, 160)])
def test_radial_means_of_the_half_plane_equal_those_of_the_full_plane(height: int, width: int) -> None:
    field = power_law(height, width)

    half = kernel.profiles(kernel.power_spectrum(field)).radial
    full = full_plane_radial(full_plane_power(field))

    assert np.abs(np.log(half) - np.log(full)).mean() < 3.1e-5


def test_unweighted_edge_columns_would_be_noticed() -> None:
    field = power_law(256, 256)
    power = kernel.power_spectrum(field)
    power[:, [0, -1]] *= 2.0

    wrong = kernel.profiles(power).radial
    full = full_plane_radial(full_plane_power(field))

    assert np.abs(np.log(wrong) - np.log(full)).mean() > 1e-3


def test_float32_power_is_within_a_thousandth_of_float64() -> None:
    field = power_law(512, 512)
    exact = full_plane_power(field)[:, :257]

    power = kernel.power_spectrum(field)

    assert power.dtype == np.float32
    significant = exact > exact.max() * 1e-9
    assert np.median(np.abs(power - exact)[significant] / exact[significant]) < 1e-5
    profile, reference = kernel.profiles(power).radial, kernel.profiles(exact.astype(np.float32)).radial
    assert np.abs(profile / reference - 1).max() < 1e-3


def test_white_noise_of_variance_nine_has_power_nine_everywhere() -> None:
    noise = np.random.default_rng(0).normal(0, 3, (512, 512)).astype(np.float32)

    profiles = kernel.profiles(kernel.power_spectrum(noise))

    assert profiles.radial[4:] == pytest.approx(9.0, rel=0.25)
    assert profiles.angular == pytest.approx(9.0, rel=0.1)


@pytest.mark.parametrize(("sector", "fy", "fx"), [(0, 0, 64), (4, 64, 64), (8, 64, 0), (12, -64, 64)])
def test_a_wave_falls_into_the_sector_of_its_direction(sector: int, fy: int, fx: int) -> None:
    y, x = np.mgrid[:256, :256]
    wave = np.cos(2 * np.pi * (fy * y + fx * x) / 256).astype(np.float32)

    angular = kernel.profiles(kernel.power_spectrum(wave)).angular

    assert int(np.argmax(angular)) == sector


def test_the_log_plane_is_the_shifted_full_transform() -> None:
    field = power_law(64, 96)
    exact = np.sqrt(full_plane_power(field) * 64 * 96)

    plane = kernel.log_magnitude_plane(kernel.power_spectrum(field))

    assert plane.shape == (64, 96)
    assert plane == pytest.approx(np.fft.fftshift(np.log1p(exact)), abs=2e-2)


@pytest.mark.parametrize(("period", "strongest"), [(8, (2, 4, 8)), (16, (2, 4, 8, 16)), (4, (2, 4))])
def test_a_grid_raises_the_points_of_its_period_and_no_others(period: int, strongest: tuple[int, ...]) -> None:
    field = kernel.cross_difference(with_grid(power_law(256, 256), period))

    ratios, orders = kernel.peak_ratios(kernel.power_spectrum(field))

    for order in (2, 4, 8, 16):
        assert (np.median(ratios[orders == order]) > 3) == (order in strongest)


def test_scale_free_noise_has_no_peaks() -> None:
    ratios, _ = kernel.peak_ratios(kernel.power_spectrum(kernel.cross_difference(power_law(512, 512))))

    assert np.median(ratios) == pytest.approx(1.0, abs=0.2)
    assert ratios.max() < 5


def test_every_distinct_harmonic_point_is_listed_once() -> None:
    points = kernel.harmonic_points()
    full = {(m % 16, n % 16) for m, n, _ in points} | {(-m % 16, -n % 16) for m, n, _ in points}

    assert len(points) == len({(m, n) for m, n, _ in points}) == 129
    assert full == {(m, n) for m in range(16) for n in range(16)} - {(0, 0)}


def test_neighbourhoods_near_the_half_planes_edge_use_its_mirror_image() -> None:
    field = power_law(128, 128)
    full = full_plane_power(field)
    ratios, _ = kernel.peak_ratios(kernel.power_spectrum(field))
    listed = kernel.harmonic_points()

    for m, n in ((3, 0), (5, 8), (-8, 8), (-7, 1)):
        y, x = m * 8, n * 8
        around = [
            full[(y + dy) % 128, (x + dx) % 128]
            for dy in range(-6, 7)
            for dx in range(-6, 7)
            if max(abs(dy), abs(dx)) > 1
        ]
        expected = np.sqrt(full[y % 128, x % 128] / np.median(around))
        position = [(a, b) for a, b, _ in listed].index((m, n))
        assert ratios[position] == pytest.approx(expected, rel=1e-3)


def test_axis_autocorrelation_is_that_of_the_pixels() -> None:
    wave = np.cos(2 * np.pi * np.arange(256) / 8).astype(np.float32)
    field = np.tile(wave, (128, 1)) + power_law(128, 256) * 1e-3

    along_x, along_y = kernel.axis_autocorrelation(kernel.power_spectrum(field))

    assert along_x[0] == along_y[0] == 1.0
    assert along_x[8] > 0.9
    assert along_x[4] < -0.9
    assert along_x.shape == (129,)
    assert along_y.shape == (65,)


def test_only_native_pixels_of_the_centre_are_analysed() -> None:
    luma = np.arange(1500 * 1100, dtype=np.float32).reshape(1500, 1100)

    area = kernel.analysed_area(luma)

    assert area.shape == (1024, 1024)
    assert area[0, 0] == luma[238, 38]
    assert kernel.analysed_area(luma[:200, :137]).shape == (192, 128)


def test_cached_tables_cannot_be_written_to() -> None:
    kernel.profiles(kernel.power_spectrum(power_law(128, 128)))

    assert not any(table.flags.writeable for table in kernel._polar_table(128, 65))
    assert not any(table.flags.writeable for table in kernel._harmonic_table(128, 65))
