"""What must hold for any image and any reference."""

from __future__ import annotations

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline.detection.spectral import features, kernel
from pipeline.detection.spectral.pvalues import conformal_p_value
from tests.support.spectral_images import coloured, power_law

sides = st.integers(128, 200)


@given(
    calibration=st.lists(st.floats(0, 100), min_size=1, max_size=50),
    distances=st.tuples(st.floats(0, 200), st.floats(0, 200)),
)
def test_p_values_are_bounded_and_fall_with_the_distance(
    calibration: list[float], distances: tuple[float, float]
) -> None:
    ordered = np.sort(np.array(calibration))
    near, far = (conformal_p_value(d, ordered) for d in sorted(distances))

    assert 1 / (len(calibration) + 1) <= far <= near <= 1


@settings(max_examples=20)
@given(height=sides, width=sides, seed=st.integers(0, 1000))
def test_power_is_conserved_by_the_half_plane(height: int, width: int, seed: int) -> None:
    area = kernel.analysed_area(power_law(height, width, seed=seed))
    rows, columns = (0.5 - 0.5 * np.cos(2 * np.pi * np.arange(n) / n) for n in area.shape)
    window = rows[:, None] * columns[None]
    windowed = (area - (area * window).sum() / window.sum()) * window

    power = kernel.power_spectrum(area)

    # Parseval: the weighted half plane holds the energy of the windowed pixels.
    total = 2 * power[:, 1:-1].sum(dtype=np.float64) + power[:, [0, -1]].sum(dtype=np.float64)
    scale = area.size / (np.square(rows).sum() * np.square(columns).sum())
    assert np.isclose(total, np.square(windowed).sum() * scale, rtol=1e-4)


@settings(max_examples=20)
@given(height=sides, width=sides, seed=st.integers(0, 1000), shift=st.floats(-20, 20))
def test_brightness_moves_no_feature(height: int, width: int, seed: int, shift: float) -> None:
    luma = power_law(height, width, seed=seed)

    rgb = coloured(luma)
    plain, brighter = (features.measure(field, rgb).values for field in (luma, luma + np.float32(shift)))

    assert all(np.isfinite(value) for value in plain.values())
    assert np.allclose(list(plain.values()), list(brighter.values()), atol=5e-2)


@settings(max_examples=20)
@given(height=sides, width=sides, seed=st.integers(0, 1000), alpha=st.floats(0.5, 3.0))
def test_features_of_float32_are_within_a_thousandth_of_float64(
    height: int, width: int, seed: int, alpha: float
) -> None:
    luma = power_law(height, width, alpha, seed)
    rgb = coloured(luma, seed)

    single, double = (features.measure(field, rgb).values for field in (luma, luma.astype(np.float64)))

    for name in features.NAMES:
        # Logarithms and ratios near 0 have no relative error worth the name: there the bound is absolute.
        assert abs(single[name] - double[name]) < 1e-3 * max(1.0, abs(double[name])), name


@given(height=st.integers(1, 1400), width=st.integers(1, 1400))
def test_the_analysed_area_lies_within_the_image(height: int, width: int) -> None:
    area = kernel.analysed_area(np.broadcast_to(np.float32(0), (height, width)))

    assert all(side % kernel.GRID == 0 and side <= kernel.MAX_SIDE_PX for side in area.shape)
    assert all(side >= 0.8 * min(given - 15, 1024) for given, side in zip((height, width), area.shape, strict=True))
