from __future__ import annotations

import numpy as np
import pytest

from pipeline.detection.classifier.preprocess import CropSpec, crops

SPEC = CropSpec(size_px=32, max_crops=4)


def numbered(height, width):
    """Every pixel says where it lies."""
    y, x = np.mgrid[:height, :width]
    return np.stack([y, x, y + x], axis=2).astype(np.uint8)


def test_centre_first_then_corners():
    cut = crops(numbered(100, 120), SPEC)
    assert [tuple(int(v) for v in c[0, 0, :2]) for c in cut] == [(34, 44), (0, 0), (68, 88), (0, 88)]


def test_pixels_are_native():
    image = numbered(100, 120)
    assert np.array_equal(crops(image, SPEC)[0], image[34:66, 44:76])


def test_an_image_of_one_crop_gives_one():
    image = numbered(32, 32)
    cut = crops(image, SPEC)
    assert cut.shape == (1, 32, 32, 3)
    assert np.array_equal(cut[0], image)


def test_corners_that_show_little_new_are_left_out():
    assert len(crops(numbered(40, 40), SPEC)) == 1
    assert len(crops(numbered(32, 96), SPEC)) == 3


@pytest.mark.parametrize(("height", "width"), [(1, 1), (5, 300), (31, 31), (300, 2)])
def test_small_images_are_reflected(height, width):
    cut = crops(numbered(height, width), SPEC)
    assert cut.shape[1:] == (32, 32, 3)
    assert cut.dtype == np.uint8
    assert cut.flags.c_contiguous


def test_reflection_mirrors_about_the_border():
    image = numbered(32, 30)
    cut = crops(image, SPEC)[0]
    assert np.array_equal(cut[:, 1:31], image)
    assert np.array_equal(cut[:, 0], image[:, 1])
    assert np.array_equal(cut[:, 31], image[:, 28])


def test_one_crop_is_the_centre():
    image = numbered(100, 120)
    assert np.array_equal(crops(image, CropSpec(size_px=32, max_crops=1)), crops(image, SPEC)[:1])


@pytest.mark.parametrize(
    "wrong",
    [
        np.zeros((8, 8), np.uint8),
        np.zeros((8, 8, 4), np.uint8),
        np.zeros((8, 8, 3), np.float32),
        np.zeros((0, 8, 3), np.uint8),
    ],
)
def test_what_is_no_rgb_image_is_refused(wrong):
    with pytest.raises(ValueError, match="rgb"):
        crops(wrong, SPEC)
