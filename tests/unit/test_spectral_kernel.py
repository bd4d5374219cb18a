"""The half plane is exact, and finds grids and nothing else."""

from __future__ import annotations

import numpy as np
import pytest

from pipeline.detection.spectral import harmonics, kernel
from pipeline.detection.spectral.autocorrelation import axis_autocorrelation
from tests.support.spectral_images import power_law


def full_plane_power(field: kernel.Float32) -> kernel.Float64:
    """float64 throughout, all frequencies, no symmetry used."""
    height, width = field.shape
    rows = 0.5 - 0.5 * np.cos(2 * np.pi * np.arange(height) / height)
    columns = 0.5 - 0.5 * np.cos(2 * np.pi * np.arange(width) / width)
    windowed = field.astype(np.float64) * rows[:, None] * columns[None]
    # The weighted mean goes, so that the windowed field has none.
    windowed -= windowed.sum() / (rows.sum() * columns.sum()) * rows[:, None] * columns[None]
    power: kernel.Float64 = np.abs(np.fft.fft2(windowed)) ** 2 / (np.square(rows).sum() * np.square(columns).sum())
    return power


def radial(field: kernel.Float32) -> kernel.Float64:
    return kernel.profiles(kernel.cell_power(field), field.shape).radial


def full_plane_radial(power: kernel.Float64) -> kernel.Float64:
    fy, fx = np.fft.fftfreq(power.shape[0])[:, None], np.fft.fftfreq(power.shape[1])[None]
    index = (np.hypot(fy, fx) * 128).astype(int)
    return np.array([power[index == j].mean() for j in range(64)])


@pytest.mark.parametrize(("height", "width"), [(256, 256), (128, 320), (336, 160)])
def test_radial_means_of_the_half_plane_equal_those_of_the_full_plane(height: int, width: int) -> None:
    field = power_law(height, width)

    half = radial(field)
    full = full_plane_radial(full_plane_power(field))

    assert np.abs(np.log(half) - np.log(full)).mean() < 3.1e-5


@pytest.mark.parametrize(("height", "width"), [(512, 512), (1024, 640)])
def test_cells_of_large_images_keep_the_radial_means(height: int, width: int) -> None:
    field = power_law(height, width)

    cells, full = radial(field), full_plane_radial(full_plane_power(field))

    assert np.abs(np.log(cells / full))[4:].max() < 0.1
    assert np.log(cells / full)[12:].mean() == pytest.approx(0.0, abs=0.005)


@pytest.mark.parametrize(("height", "width"), [(128, 192), (512, 320), (1024, 512)])
def test_cells_hold_all_of_the_half_plane_but_its_last_column(height: int, width: int) -> None:
    field = power_law(height, width)
    power = kernel.power_spectrum(field)[:, :-1].astype(np.float64)
    power[:, 0] *= 0.5

    cells = kernel.cell_power(field)

    assert cells.shape == kernel.cell_weights(height, width).shape
    assert cells.sum(dtype=np.float64) == pytest.approx(power.sum(), rel=1e-5)
    assert kernel.cell_weights(height, width).sum() == height * (width - 1) / 2
    assert cells[0, 1:].sum(dtype=np.float64) == pytest.approx(
        power[: height // cells.shape[0], width // 2 // cells.shape[1] :].sum(), rel=1e-4
    )


def test_unweighted_edge_columns_would_be_noticed() -> None:
    field = power_law(256, 256)
    cells = kernel.cell_power(field)
    cells[:, 0] *= 2.0

    wrong = kernel.profiles(cells, field.shape).radial
    full = full_plane_radial(full_plane_power(field))

    assert np.abs(np.log(wrong) - np.log(full)).mean() > 1e-3


@pytest.mark.parametrize("parts", [(1, 2), (2, 2), (4, 1)])
def test_folding_samples_the_whole_fields_spectrum(parts: tuple[int, int]) -> None:
    field = power_law(512, 512)
    whole = kernel.power_spectrum(field)[:: parts[0], :: parts[1]]

    folded = kernel.power_spectrum(field, parts)

    assert folded.shape == (512 // parts[0], 512 // parts[1] // 2 + 1)
    floor = 1e-6 * float(whole.max())
    assert (
        np.abs(folded[3:-3, 3:] / (whole[3:-3, 3:] + floor) - whole[3:-3, 3:] / (whole[3:-3, 3:] + floor)).max() < 0.01
    )


def test_sides_that_transform_fast_are_kept() -> None:
    for side in range(128, 1400):
        kept = kernel.analysed_area(np.broadcast_to(np.float32(0), (side, side))).shape[0]
        assert kept % kernel.GRID == 0
        assert kept > 0.82 * min(side - side % 16, 1024)
        parts = kernel.folds(kept)
        assert kept // parts % kernel.GRID == 0
        assert kept // parts >= min(kept, 256)
        assert kept // parts < 512


def test_float32_power_is_within_a_thousandth_of_float64() -> None:
    field = power_law(512, 512)
    exact = full_plane_power(field)[:, :257]

    power = kernel.power_spectrum(field)

    assert power.dtype == np.float32
    significant = exact > exact.max() * 1e-9
    assert np.median(np.abs(power - exact)[significant] / exact[significant]) < 1e-5
    assert np.abs(radial(field) / radial(field.astype(np.float64)) - 1).max() < 1e-3


def test_white_noise_of_variance_nine_has_power_nine_everywhere() -> None:
    noise = np.random.default_rng(0).normal(0, 3, (512, 512)).astype(np.float32)

    profiles = kernel.profiles(kernel.cell_power(noise), noise.shape)

    assert profiles.radial[4:] == pytest.approx(9.0, rel=0.25)
    assert profiles.angular == pytest.approx(9.0, rel=0.1)


@pytest.mark.parametrize(("sector", "fy", "fx"), [(0, 0, 64), (4, 64, 64), (8, 64, 0), (12, -64, 64)])
def test_a_wave_falls_into_the_sector_of_its_direction(sector: int, fy: int, fx: int) -> None:
    y, x = np.mgrid[:256, :256]
    wave = np.cos(2 * np.pi * (fy * y + fx * x) / 256).astype(np.float32)

    angular = kernel.profiles(kernel.cell_power(wave), wave.shape).angular

    assert int(np.argmax(angular)) == sector


def test_the_log_plane_is_the_shifted_full_transform() -> None:
    field = power_law(64, 96)
    exact = np.sqrt(full_plane_power(field) * 64 * 96)

    plane = kernel.log_magnitude_plane(kernel.power_spectrum(field))

    assert plane.shape == (64, 96)
    assert plane == pytest.approx(np.fft.fftshift(np.log1p(exact)), abs=2e-2)


def test_axis_autocorrelation_is_that_of_the_pixels() -> None:
    wave = np.cos(2 * np.pi * np.arange(256) / 8).astype(np.float32)
    field = np.tile(wave, (128, 1)) + power_law(128, 256) * 1e-3

    along_x, along_y = axis_autocorrelation(kernel.power_spectrum(field))

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
    assert kernel.analysed_area(luma[:980, :600]).shape == (960, 576)


def test_cached_tables_cannot_be_written_to() -> None:
    bins, totals, _, _ = kernel._polar_table(128, 128, "f")

    tables = (bins.data, totals.radial, totals.angular, kernel.window(128, 128, "f"), *harmonics._table(128, 65))
    assert not any(table.flags.writeable for table in tables)
