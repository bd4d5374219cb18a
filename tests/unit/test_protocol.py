from __future__ import annotations

import pickle

import numpy as np
import pytest
from pydantic import ValidationError

from pipeline.evaluation.protocol import EqualCodec, TraceFree, WebThumbnail
from pipeline.evaluation.robustness.transform import NotTransformable, generator_for
from pipeline.media.decode import decode_image
from pipeline.media.encode import Pixels, encode
from pipeline.media.errors import MediaError


def noise(height: int, width: int) -> Pixels:
    return np.random.default_rng(0).integers(0, 256, (height, width, 3), dtype=np.uint8)


def test_a_lossless_crop_is_found_in_the_original() -> None:
    rgb = noise(300, 400)
    crop = decode_image(EqualCodec(codec="png")(encode(rgb, "png"), "k")).rgb
    matches = [
        (top, left)
        for top in range(300 - 256 + 1)
        for left in range(400 - 256 + 1)
        if np.array_equal(rgb[top, left : left + 256], crop[0])
    ]
    assert len(matches) == 1
    top, left = matches[0]
    assert np.array_equal(rgb[top : top + 256, left : left + 256], crop)
    assert top % 16
    assert left % 16


def test_the_crop_depends_on_the_key_and_on_nothing_else() -> None:
    data, equal = encode(noise(500, 500), "png"), EqualCodec()
    assert equal(data, "a") == pickle.loads(pickle.dumps(equal))(data, "a")
    assert len({equal(data, key) for key in "abcdefgh"}) > 4


def test_both_classes_come_out_in_one_form() -> None:
    equal = EqualCodec(size_px=384, quality=85)
    from_photo = decode_image(equal(encode(noise(480, 640), "jpeg", 70), "real")).facts
    from_generator = decode_image(equal(encode(noise(1024, 1024), "png"), "ai")).facts
    for field in ("format", "width", "height", "jpeg_quality", "chroma_subsampling"):
        assert getattr(from_photo, field) == getattr(from_generator, field)
    assert from_photo.jpeg_quality == 85


def test_a_small_image_is_reflected_or_refused() -> None:
    data = encode(noise(200, 300), "png")
    crop = decode_image(EqualCodec(codec="png")(data, "k")).rgb
    assert np.array_equal(crop[:28][::-1], crop[29:57])
    with pytest.raises(NotTransformable, match="300x200 px, smaller than the crop of 256 px"):
        EqualCodec(too_small="skip")(data, "k")


def test_the_control_keeps_the_picture_and_loses_the_traces() -> None:
    rgb = np.repeat(np.repeat(noise(8, 8), 40, axis=0), 40, axis=1)
    checkered = rgb.copy()
    checkered[::2, ::2] //= 2
    equal = EqualCodec(codec="png")
    plain, control = (decode_image(t(encode(checkered, "png"), "k")).luma for t in (equal, TraceFree(equal=equal)))
    power = [np.abs(np.fft.rfft2(luma - luma.mean())) for luma in (plain, control)]
    assert power[0][128, 128] > 100 * power[1][128, 128]
    assert np.corrcoef(plain.ravel(), control.ravel())[0, 1] > 0.7


def test_a_thumbnail_shrinks_and_never_enlarges() -> None:
    for (height, width), expected in (((800, 600), (400, 300)), ((300, 200), (300, 200))):
        facts = decode_image(WebThumbnail()(encode(noise(height, width), "png"), "k")).facts
        assert (facts.height, facts.width, facts.format, facts.lossless) == (*expected, "webp", False)


@pytest.mark.parametrize("transform", [EqualCodec(), TraceFree(), WebThumbnail()], ids=lambda t: t.name)
def test_what_cannot_be_decoded_is_a_media_error(transform: EqualCodec | TraceFree | WebThumbnail) -> None:
    with pytest.raises(MediaError):
        transform(b"\x89PNG\r\n\x1a\n", "k")


def test_only_the_sizes_of_the_protocol_are_taken() -> None:
    with pytest.raises(ValidationError, match="size_px"):
        EqualCodec.model_validate({"size_px": 300})


def test_random_numbers_belong_to_key_and_purpose() -> None:
    draws = {generator_for(key, purpose).random() for key in ("a", "b") for purpose in ("p", "q")}
    assert len(draws) == 4
    assert generator_for("a", "p").random() == generator_for("a", "p").random()
