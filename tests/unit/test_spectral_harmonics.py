"""Harmonic points: a grid raises those of its period, and nothing else raises any."""

from __future__ import annotations

import numpy as np
import pytest

from pipeline.detection.spectral import harmonics, kernel
from pipeline.detection.spectral.residuals import cross_difference
from tests.support.spectral_images import power_law, with_grid
from tests.unit.test_spectral_kernel import full_plane_power


@pytest.mark.parametrize(("period", "strongest"), [(8, (2, 4, 8)), (16, (2, 4, 8, 16)), (4, (2, 4))])
def test_a_grid_raises_the_points_of_its_period_and_no_others(period: int, strongest: tuple[int, ...]) -> None:
    field = cross_difference(with_grid(power_law(256, 256), period))

    ratios, orders = harmonics.peak_ratios(kernel.power_spectrum(field)), harmonics.POINT_ORDERS

    for order in (2, 4, 8, 16):
        assert (np.median(ratios[orders == order]) > 3) == (order in strongest)


def test_scale_free_noise_has_no_peaks() -> None:
    ratios = harmonics.peak_ratios(kernel.power_spectrum(cross_difference(power_law(512, 512))))

    assert np.median(ratios) == pytest.approx(1.0, abs=0.2)
    assert ratios.max() < 5


def test_every_distinct_harmonic_point_is_listed_once() -> None:
    points = harmonics.points()
    full = {(m % 16, n % 16) for m, n, _ in points} | {(-m % 16, -n % 16) for m, n, _ in points}

    assert len(points) == len({(m, n) for m, n, _ in points}) == 129
    assert full == {(m, n) for m in range(16) for n in range(16)} - {(0, 0)}


def test_neighbourhoods_near_the_half_planes_edge_use_its_mirror_image() -> None:
    field = power_law(128, 128)
    full = full_plane_power(field)
    ratios = harmonics.peak_ratios(kernel.power_spectrum(field))
    listed = harmonics.points()

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


def test_a_folded_grid_keeps_its_height() -> None:
    field = cross_difference(with_grid(power_law(512, 512), 16, amplitude=4.0))

    whole = harmonics.peak_ratios(kernel.power_spectrum(field))
    folded = harmonics.peak_ratios(kernel.power_spectrum(field, (2, 2)))

    odd = harmonics.POINT_ORDERS == 16
    assert np.median(whole[odd]) > 1.5
    assert np.median(folded[odd]) == pytest.approx(np.median(whole[odd]), rel=0.2)


def test_classes_of_eighths_pool_signs_and_axes() -> None:
    log_ratios = np.zeros(129)
    listed = harmonics.points()
    for m, n in ((2, 6), (-2, 6), (6, 2), (-6, 2)):
        log_ratios[[(a, b) for a, b, _ in listed].index((m, n))] = 1.0

    means = harmonics.eighth_means(log_ratios)

    assert means[harmonics.EIGHTHS.index((1, 3))] == 1.0
    assert means.sum() == 1.0
    assert len(harmonics.EIGHTHS) == 14


def test_maximum_and_median_go_by_order() -> None:
    log_ratios = np.arange(129.0)

    for order, (largest, median) in zip(harmonics.ORDERS, harmonics.max_and_median(log_ratios), strict=True):
        of_order = log_ratios[order == harmonics.POINT_ORDERS]
        assert largest == of_order.max()
        assert median == np.median(of_order)
