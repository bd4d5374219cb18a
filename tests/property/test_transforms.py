"""Whatever size an image has, a variant of it is an image, the same one each time."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline.evaluation.perceptual_hash import BITS, dhash256, distance_bits
from pipeline.evaluation.protocol import EqualCodec, TraceFree, WebThumbnail, protocol_variants
from pipeline.evaluation.robustness.suites import SUITES
from pipeline.media.decode import decode_image
from pipeline.media.encode import Pixels, encode

sides = st.integers(24, 420)
DRAWN = ("screenshot", "document", "drawn")
"""Their canvas has one size, whatever is in it, and takes long to draw."""

names = [
    (suite, i)
    for suite, variants in SUITES.items()
    for i, variant in enumerate(variants)
    if not any(word in variant.name for word in DRAWN)
]


def picture(height: int, width: int, seed: int) -> Pixels:
    return np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8)


@pytest.mark.parametrize(("suite", "index"), names, ids=[SUITES[s][i].name for s, i in names])
@settings(max_examples=4)
@given(height=sides, width=sides, seed=st.integers(0, 99))
def test_any_size_gives_an_image(suite: str, index: int, height: int, width: int, seed: int) -> None:
    data = encode(picture(height, width, seed), "png")
    transform = SUITES[suite][index].transform
    once = transform(data, f"key {seed}")
    assert transform(data, f"key {seed}") == once
    assert decode_image(once).rgb.ndim == 3


@settings(max_examples=12)
@given(height=sides, width=sides, seed=st.integers(0, 99), codec=st.sampled_from(["png", "jpeg", "webp"]))
def test_the_protocol_gives_one_size_and_codec_whatever_comes_in(
    height: int, width: int, seed: int, codec: str
) -> None:
    equal = EqualCodec.model_validate({"codec": codec})
    data = encode(picture(height, width, seed), "png")
    for transform in (equal, TraceFree(equal=equal)):
        facts = decode_image(transform(data, "k")).facts
        assert (facts.width, facts.height, facts.format) == (256, 256, codec)
    thumbnail = decode_image(WebThumbnail()(data, "k")).facts
    assert max(thumbnail.width, thumbnail.height) == min(400, max(height, width))


@given(height=st.integers(256, 700), width=st.integers(256, 700), key=st.text(max_size=8))
@settings(max_examples=40)
def test_a_crop_is_native_pixels_near_the_centre(height: int, width: int, key: str) -> None:
    rows = np.arange(height, dtype=np.uint16)
    rgb = np.zeros((height, width, 3), np.uint8)
    rgb[..., 0], rgb[..., 1] = (rows % 256)[:, None], (rows // 256)[:, None]
    rgb[..., 2] = (np.arange(width) % 256)[None]
    crop = EqualCodec().crop(rgb, key)
    top = int(crop[0, 0, 0]) + 256 * int(crop[0, 0, 1])
    assert np.array_equal(crop[:, 0, 0], (rows[top : top + 256] % 256))
    play = height - 256
    assert play // 4 <= top <= play - play // 4
    assert top % 16 or play < 2


def test_protocol_names_are_unique() -> None:
    variants = [*protocol_variants(), *protocol_variants(EqualCodec(size_px=384, codec="png"))]
    assert [v.name for v in variants[:3]] == [
        "equal 256 px jpeg q90",
        "trace-free 48 px, equal 256 px jpeg q90",
        "thumbnail 400 px webp q80",
    ]
    assert variants[3].name == "equal 384 px png"


@given(height=st.integers(1, 300), width=st.integers(1, 300), seed=st.integers(0, 99))
@settings(max_examples=30)
def test_a_hash_has_256_bits_and_is_its_own_duplicate(height: int, width: int, seed: int) -> None:
    found = dhash256(picture(height, width, seed))
    assert 0 <= found < 1 << BITS
    assert distance_bits(found, found) == 0
