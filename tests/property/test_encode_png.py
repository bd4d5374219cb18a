"""What `encode_png` writes is a PNG that Pillow reads back bit for bit."""

from __future__ import annotations

import io

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as npst
from PIL import Image

from pipeline.media.encode_png import encode_png

SIDE = st.integers(1, 40)


@given(st.tuples(SIDE, SIDE).flatmap(lambda side: npst.arrays(np.uint8, (*side, 3))))
def test_every_pixel_comes_back(rgb):
    with Image.open(io.BytesIO(encode_png(rgb))) as image:
        image.verify()
    with Image.open(io.BytesIO(encode_png(rgb))) as image:
        assert (image.format, image.mode, image.info) == ("PNG", "RGB", {})
        assert np.array_equal(np.asarray(image), rgb)


def test_a_view_with_other_strides_is_the_same_picture():
    rgb = np.random.default_rng(0).integers(0, 256, (30, 40, 3), np.uint8)
    assert encode_png(rgb[::-1, ::2]) == encode_png(np.ascontiguousarray(rgb[::-1, ::2]))


@pytest.mark.parametrize("wrong", [np.zeros((4, 4), np.uint8), np.zeros((4, 4, 3)), np.zeros((0, 4, 3), np.uint8)])
def test_anything_else_is_named(wrong):
    with pytest.raises(ValueError, match="expected uint8"):
        encode_png(wrong)
