"""Maps of crops: shape, scale, and where a trace shows."""

from __future__ import annotations

import numpy as np
import pytest

from pipeline.training.artifact_maps import CHANNELS, SHAPE, maps, neighbour_residual


def noise(size=(256, 256), seed=0):
    return np.random.default_rng(seed).normal(128, 20, size).astype(np.float32)


def test_maps_are_standardised_and_the_same_each_time():
    found = maps(noise())
    assert found.shape == SHAPE
    assert found.dtype == np.float32
    np.testing.assert_allclose(found.mean(axis=(1, 2)), 0, atol=1e-4)
    np.testing.assert_allclose(found.std(axis=(1, 2)), 1, atol=1e-3)
    np.testing.assert_array_equal(found, maps(noise()))


@pytest.mark.parametrize("size", [(64, 64), (65, 200), (128, 96)])
def test_any_size_from_one_window(size):
    assert np.isfinite(maps(noise(size))).all()


def test_a_side_below_a_window_is_refused():
    with pytest.raises(ValueError, match="63x64 px is below 64 px"):
        maps(noise((64, 63)))


def test_a_flat_crop_has_finite_maps():
    assert np.isfinite(maps(np.full((128, 128), 90, np.float32))).all()


def test_a_period_of_eight_shows_at_its_frequency():
    x = np.arange(256)
    luma = noise() + 30 * np.cos(2 * np.pi * x / 8).astype(np.float32)[None, :]
    channel = maps(luma)[CHANNELS.index("luma")]
    assert np.unravel_index(channel.argmax(), channel.shape) == (0, 64 // 8)


def test_an_image_enlarged_by_nearest_neighbour_leaves_no_neighbour_residual():
    small = noise((32, 33))
    assert not neighbour_residual(np.kron(small, np.ones((2, 2), np.float32))).any()


def test_the_neighbour_residual_is_cut_to_even_sides():
    assert neighbour_residual(noise((65, 67))).shape == (64, 66)
