from __future__ import annotations

import hashlib
import io
import struct
import subprocess
import sys
import zlib
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from pipeline.media.decode import DecodeLimits, bt601_luma, decode_image
from pipeline.media.errors import MediaError
from schemas.decision import ReasonCode

_PIXELS = np.random.default_rng(5).integers(0, 256, (24, 36, 3), dtype=np.uint8)
_ORIENTATION = 274


def encoded(image: Image.Image, image_format: str, **options: Any) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, image_format, **options)
    return buffer.getvalue()


def png(width: int, height: int, bit_depth: int, colour_type: int, rows: bytes) -> bytes:
    def chunk(kind: bytes, body: bytes) -> bytes:
        return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))

    header = struct.pack(">IIBBBBB", width, height, bit_depth, colour_type, 0, 0, 0)
    idat = chunk(b"IDAT", zlib.compress(rows))
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + idat + chunk(b"IEND", b"")


def code_of(data: bytes, limits: DecodeLimits | None = None, declared: str | None = None) -> ReasonCode:
    with pytest.raises(MediaError) as caught:
        decode_image(data, limits, declared)
    return caught.value.code


@pytest.mark.parametrize(
    ("image_format", "options"), [("PNG", {}), ("WEBP", {"lossless": True}), ("TIFF", {}), ("BMP", {})]
)
def test_lossless_pixels_come_back_bit_by_bit(image_format: str, options: dict[str, Any]) -> None:
    data = encoded(Image.fromarray(_PIXELS), image_format, **options)
    image = decode_image(data)
    assert image.rgb.dtype == np.uint8
    assert image.rgb.flags.c_contiguous
    np.testing.assert_array_equal(image.rgb, _PIXELS)
    assert image.facts.sha256 == hashlib.sha256(data).hexdigest()
    assert (image.facts.width, image.facts.height, image.facts.size_bytes) == (36, 24, len(data))


def test_luma_is_bt601_in_float32_without_rounding() -> None:
    luma = bt601_luma(_PIXELS)
    exact = _PIXELS.astype(np.float64) @ np.array([0.299, 0.587, 0.114])
    assert luma.dtype == np.float32
    np.testing.assert_allclose(luma, exact, atol=1e-4)
    assert np.abs(luma - np.round(luma)).max() > 0.4
    assert bt601_luma(np.full((8, 8, 3), 255, np.uint8)).max() <= 255.0


def test_a_sixteen_bit_grey_png_keeps_its_high_byte() -> None:
    samples = np.linspace(0, 65_535, 24 * 36).astype(np.uint16).reshape(24, 36)
    rows = b"".join(b"\0" + row.astype(">u2").tobytes() for row in samples)
    image = decode_image(png(36, 24, 16, 0, rows))
    for channel in range(3):
        np.testing.assert_array_equal(image.rgb[..., channel], samples >> 8)


def test_a_sixteen_bit_rgb_png_keeps_its_high_bytes() -> None:
    samples = np.random.default_rng(2).integers(0, 65_536, (24, 36, 3)).astype(np.uint16)
    rows = b"".join(b"\0" + row.astype(">u2").tobytes() for row in samples)
    np.testing.assert_array_equal(decode_image(png(36, 24, 16, 2, rows)).rgb, samples >> 8)


def test_a_sixteen_bit_tiff_keeps_its_high_byte_and_white_is_zero_is_inverted() -> None:
    samples = np.linspace(0, 65_535, 24 * 36).astype(np.uint16).reshape(24, 36)
    data = encoded(Image.fromarray(samples), "TIFF")
    np.testing.assert_array_equal(decode_image(data).rgb[..., 0], samples >> 8)
    inverted = encoded(Image.fromarray(samples), "TIFF", tiffinfo={262: 0})
    np.testing.assert_array_equal(decode_image(inverted).rgb[..., 0], 255 - (samples >> 8))


def test_floating_point_pixels_are_unsupported() -> None:
    data = encoded(Image.fromarray(np.ones((24, 36), np.float32)), "TIFF")
    assert code_of(data) is ReasonCode.MEDIA_UNSUPPORTED


@pytest.mark.parametrize("image_format", ["JPEG", "PNG", "WEBP", "TIFF"])
@pytest.mark.parametrize("orientation", range(1, 9))
def test_orientation_is_not_applied(image_format: str, orientation: int) -> None:
    exif = Image.Exif()
    exif[_ORIENTATION] = orientation
    image = Image.fromarray(_PIXELS)
    turned = decode_image(encoded(image, image_format, exif=exif))
    plain = decode_image(encoded(image, image_format))
    np.testing.assert_array_equal(turned.rgb, plain.rgb)


def test_alpha_is_dropped_and_not_blended() -> None:
    alpha = np.zeros((24, 36, 1), np.uint8)
    data = encoded(Image.fromarray(np.concatenate([_PIXELS, alpha], axis=2)), "PNG")
    np.testing.assert_array_equal(decode_image(data).rgb, _PIXELS)


def test_a_transparent_palette_entry_keeps_its_colour() -> None:
    image = Image.new("P", (16, 16), 1)
    image.putpalette([0, 0, 0, 10, 200, 30])
    data = encoded(image, "PNG", transparency=b"\xff\x00")
    assert (decode_image(data).rgb == (10, 200, 30)).all()


@pytest.mark.parametrize("mode", ["1", "L", "LA", "P", "CMYK"])
def test_every_mode_becomes_rgb(mode: str) -> None:
    image_format = "TIFF" if mode == "CMYK" else "PNG"
    image = Image.fromarray(_PIXELS).convert(mode)
    decoded = decode_image(encoded(image, image_format)).rgb
    expected = image.convert("L").convert("RGB") if mode == "LA" else image.convert("RGB")
    np.testing.assert_array_equal(decoded, np.asarray(expected))


def test_of_an_animation_the_first_frame_is_decoded() -> None:
    frames = [Image.fromarray(255 - _PIXELS)]
    data = encoded(Image.fromarray(_PIXELS), "PNG", save_all=True, append_images=frames)
    np.testing.assert_array_equal(decode_image(data).rgb, _PIXELS)


def test_of_a_jpeg_with_further_pictures_the_first_is_decoded() -> None:
    frames = [Image.fromarray(255 - _PIXELS)]
    first = decode_image(encoded(Image.fromarray(_PIXELS), "JPEG")).rgb
    data = encoded(Image.fromarray(_PIXELS), "MPO", save_all=True, append_images=frames)
    np.testing.assert_array_equal(decode_image(data, None, "image/jpeg").rgb, first)


def test_a_bomb_is_refused_by_its_header() -> None:
    data = png(60_000, 60_000, 8, 2, bytes(100))
    assert len(data) < 200
    assert code_of(data) is ReasonCode.MEDIA_TOO_LARGE


def test_the_side_and_the_pixels_are_capped_each() -> None:
    data = encoded(Image.fromarray(_PIXELS), "PNG")
    assert code_of(data, DecodeLimits(max_side_px=35)) is ReasonCode.MEDIA_TOO_LARGE
    assert code_of(data, DecodeLimits(max_pixels=24 * 36 - 1)) is ReasonCode.MEDIA_TOO_LARGE
    assert decode_image(data, DecodeLimits(max_side_px=36, max_pixels=24 * 36)).facts.width == 36


def test_a_tiny_image_is_unsupported() -> None:
    assert code_of(encoded(Image.new("RGB", (7, 100)), "PNG")) is ReasonCode.MEDIA_UNSUPPORTED


@pytest.mark.parametrize("image_format", ["JPEG", "PNG", "WEBP", "BMP"])
def test_cut_pixels_are_truncated(image_format: str) -> None:
    data = encoded(Image.fromarray(_PIXELS), image_format)
    assert code_of(data[: len(data) * 2 // 3]) is ReasonCode.MEDIA_TRUNCATED


def test_a_text_file_named_png_is_a_mismatch() -> None:
    assert code_of(b"this is text", None, "image/png") is ReasonCode.MEDIA_TYPE_MISMATCH


def test_broken_pixels_are_undecodable() -> None:
    data = bytearray(encoded(Image.fromarray(_PIXELS), "PNG"))
    at = data.index(b"IDAT") + 8
    data[at : at + 40] = bytes(40)
    assert code_of(bytes(data)) is ReasonCode.MEDIA_UNDECODABLE


def test_decoding_opens_no_file_once_the_module_is_imported(tmp_path: Path) -> None:
    image = Image.fromarray(_PIXELS)
    exif = Image.Exif()
    exif[_ORIENTATION] = 6
    for image_format in ("PNG", "JPEG", "WEBP", "TIFF"):
        (tmp_path / image_format).write_bytes(encoded(image, image_format, exif=exif))
    (tmp_path / "BMP").write_bytes(encoded(image, "BMP"))
    (tmp_path / "LZW").write_bytes(encoded(image, "TIFF", compression="tiff_lzw"))
    (tmp_path / "MPO").write_bytes(encoded(image, "MPO", save_all=True, append_images=[image]))
    (tmp_path / "P").write_bytes(encoded(image.convert("P"), "PNG"))
    (tmp_path / "CUT").write_bytes(encoded(image, "PNG")[:200])
    code = """
import pathlib, resource, sys
from pipeline.media.decode import decode_image
from pipeline.media.errors import MediaError
files = {path.name: path.read_bytes() for path in pathlib.Path(sys.argv[1]).iterdir()}
resource.setrlimit(resource.RLIMIT_NOFILE, (0, 0))
for name, data in files.items():
    try:
        decode_image(data)
        print(name)
    except MediaError as error:
        print(name, error.code)
"""
    command = [sys.executable, "-c", code, str(tmp_path)]
    done = subprocess.run(command, check=True, capture_output=True, text=True)
    expected = ["BMP", "CUT media_truncated", "JPEG", "LZW", "MPO", "P", "PNG", "TIFF", "WEBP"]
    assert sorted(done.stdout.splitlines()) == expected
