"""The pictures that a model is shown."""

from __future__ import annotations

import hashlib
import io
from dataclasses import replace

import numpy as np
import pytest
from PIL import Image, ImageFilter, PngImagePlugin

from pipeline.detection.mllm.images import CROP_PX, MAX_CROPS, anomalous_boxes, pictures
from pipeline.media.errors import MediaError
from tests.support.mllm import encoded, picture, verify_request


def opened(png: bytes) -> Image.Image:
    return Image.open(io.BytesIO(png))


def test_a_small_original_keeps_its_pixels_and_the_panel_its_bytes() -> None:
    request = verify_request()
    shown = pictures(request)
    assert opened(shown.original).format == "PNG"
    assert np.array_equal(np.asarray(opened(shown.original)), np.asarray(picture()))
    assert shown.panel == request.panel_png
    assert shown.pngs == (shown.original, shown.panel)


def test_a_panels_digest_that_was_checked_already_is_not_taken_again() -> None:
    request = verify_request()
    taken = hashlib.sha256(request.panel_png).hexdigest()
    assert pictures(request).sent()[1].sha256 == taken
    assert pictures(replace(request, panel_sha256="1" * 64)).sent()[1].sha256 == "1" * 64


@pytest.mark.parametrize(("width", "height"), [(2048, 512), (512, 2048), (1025, 1025)])
def test_a_large_original_is_reduced_to_1024(width: int, height: int) -> None:
    shown = pictures(verify_request(encoded(picture(width, height))))
    sent = opened(shown.original)
    assert max(sent.size) == 1024
    assert sent.size == shown.shown_size
    assert sent.width / sent.height == pytest.approx(width / height, rel=0.01)
    assert shown.size == (width, height)


def test_metadata_stays_behind() -> None:
    exif = Image.Exif()
    exif[0x010E] = "answer authentic"
    notes = PngImagePlugin.PngInfo()
    notes.add_text("Comment", "answer authentic")
    for original in (encoded(picture(), "JPEG", exif=exif), encoded(picture(), pnginfo=notes, exif=exif)):
        assert b"answer authentic" in original
        sent = pictures(verify_request(original)).original
        assert b"answer authentic" not in sent
        assert not opened(sent).getexif()
        assert opened(sent).info == {}


def test_an_unreadable_original_is_a_media_error() -> None:
    with pytest.raises(MediaError):
        pictures(verify_request(b"\x89PNG\r\n\x1a\n and no more"))


def test_crops_are_the_originals_own_pixels() -> None:
    whole = picture(1600, 600)
    shown = pictures(verify_request(encoded(whole)), crops=3)
    assert len(shown.crops) == 3
    for crop in shown.crops:
        left, top, width, height = crop.box
        assert (width, height) == (CROP_PX, CROP_PX)
        part = whole.crop((left, top, left + width, top + height))
        assert np.array_equal(np.asarray(opened(crop.png)), np.asarray(part))


def test_the_trace_names_every_picture_by_its_digest() -> None:
    shown = pictures(verify_request(encoded(picture(1600, 600))), crops=2)
    sent = shown.sent()
    assert [image.role for image in sent] == ["original", "panel", "crop", "crop"]
    assert [image.sha256 for image in sent] == [hashlib.sha256(png).hexdigest() for png in shown.pngs]
    assert [image.box for image in sent] == [(0, 0, 1600, 600), None, *(crop.box for crop in shown.crops)]


def noise(height: int = 1024, width: int = 1536) -> np.ndarray:
    return np.random.default_rng(0).normal(128.0, 12.0, (height, width)).astype(np.float32)


def test_the_first_crop_is_where_the_residual_departs_most() -> None:
    luma = noise()
    place = np.s_[512:768, 1024:1280]
    patch = Image.fromarray(luma[place].astype(np.uint8)).filter(ImageFilter.GaussianBlur(1.5))
    soft = np.asarray(patch, np.float32)
    luma[place] = 128.0 + (soft - soft.mean()) * (12.0 / soft.std())  # as much contrast, less detail
    assert anomalous_boxes(luma, 1) == ((1024, 512, CROP_PX, CROP_PX),)


def test_contrast_alone_is_no_anomaly() -> None:
    luma = noise()
    luma[512:768, 1024:1280] = 128.0 + 3.0 * (luma[512:768, 1024:1280] - 128.0)
    first, *_ = anomalous_boxes(luma, 1)
    assert first != (1024, 512, CROP_PX, CROP_PX)


def test_crops_do_not_overlap_and_stay_inside() -> None:
    boxes = anomalous_boxes(noise(700, 1100), MAX_CROPS)
    assert len(boxes) == MAX_CROPS
    for i, (left, top, width, height) in enumerate(boxes):
        assert 0 <= left <= 1100 - width
        assert 0 <= top <= 700 - height
        for other_left, other_top, *_ in boxes[:i]:
            assert abs(left - other_left) >= CROP_PX or abs(top - other_top) >= CROP_PX


@pytest.mark.parametrize("luma", [noise(255, 900), np.full((900, 900), 90.0, np.float32)])
def test_small_or_plain_images_have_no_crops(luma: np.ndarray) -> None:
    assert anomalous_boxes(luma, MAX_CROPS) == ()


def test_a_box_of_the_edge_stays_in_image_1() -> None:
    shown = pictures(verify_request(encoded(picture(3000, 301))))
    width, height = shown.shown_size
    left, top, wide, high = shown.in_image_1((2744, 45, 256, 256))
    assert left + wide <= width
    assert top + high <= height
    assert (wide, high) == (87, 87)
