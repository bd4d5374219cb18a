from __future__ import annotations

import io
import struct
import zlib
from typing import Any

import numpy as np
import pytest
from PIL import Image

from pipeline.media.errors import MediaError
from pipeline.media.jpeg_header import estimate_quality
from pipeline.media.sniff import sniff
from schemas.decision import ReasonCode

_PIXELS = np.random.default_rng(7).integers(0, 256, (40, 56, 3), dtype=np.uint8)
PHOTO = Image.fromarray(_PIXELS)


def encoded(image: Image.Image, image_format: str, **options: Any) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, image_format, **options)
    return buffer.getvalue()


def code_of(data: bytes, declared: str | None = None) -> ReasonCode:
    with pytest.raises(MediaError) as caught:
        sniff(data, declared)
    return caught.value.code


@pytest.mark.parametrize(
    ("image_format", "options", "name", "lossless"),
    [
        ("PNG", {}, "png", True),
        ("JPEG", {}, "jpeg", False),
        ("JPEG", {"progressive": True}, "jpeg", False),
        ("WEBP", {}, "webp", False),
        ("WEBP", {"lossless": True}, "webp", True),
        ("WEBP", {"exif": b"Exif\0\0"}, "webp", False),
        ("WEBP", {"lossless": True, "exif": b"Exif\0\0"}, "webp", True),
        ("TIFF", {}, "tiff", True),
        ("TIFF", {"compression": "tiff_lzw"}, "tiff", True),
        ("TIFF", {"compression": "jpeg"}, "tiff", False),
        ("BMP", {}, "bmp", True),
    ],
)
def test_it_reads_format_size_and_losslessness(
    image_format: str, options: dict[str, Any], name: str, lossless: bool
) -> None:
    found = sniff(encoded(PHOTO, image_format, **options))
    assert (found.format, found.lossless, found.width, found.height) == (name, lossless, 56, 40)


def test_an_animated_webp_is_read_by_its_first_frame() -> None:
    frames = {"save_all": True, "append_images": [Image.fromarray(255 - _PIXELS)]}
    assert not sniff(encoded(PHOTO, "WEBP", **frames)).lossless
    assert sniff(encoded(PHOTO, "WEBP", lossless=True, **frames)).lossless


def test_a_top_down_bmp_has_a_positive_height() -> None:
    data = bytearray(encoded(PHOTO, "BMP"))
    data[22:26] = struct.pack("<i", -40)
    assert sniff(bytes(data)).height == 40


@pytest.mark.parametrize("quality", [1, 2, 10, 25, 49, 50, 51, 75, 85, 90, 95, 98, 99, 100])
def test_the_quality_of_a_libjpeg_file_is_exact(quality: int) -> None:
    assert sniff(encoded(PHOTO, "JPEG", quality=quality)).jpeg_quality == quality


def test_the_quality_of_other_tables_is_the_nearest() -> None:
    data = encoded(PHOTO, "JPEG", quality=80)
    at = data.index(b"\xff\xdb") + 5
    table = np.frombuffer(data[at : at + 64], np.uint8).astype(np.float64)
    assert estimate_quality(table) == 80
    assert estimate_quality(table * 1.1) == 78
    assert estimate_quality(table * 0.5) == 90


@pytest.mark.parametrize(
    ("mode", "options", "subsampling"),
    [
        ("RGB", {"subsampling": 0}, "4:4:4"),
        ("RGB", {"subsampling": 1}, "4:2:2"),
        ("RGB", {"subsampling": 2}, "4:2:0"),
        ("L", {}, None),
    ],
)
def test_chroma_subsampling(mode: str, options: dict[str, int], subsampling: str | None) -> None:
    assert sniff(encoded(PHOTO.convert(mode), "JPEG", **options)).chroma_subsampling == subsampling


@pytest.mark.parametrize(
    ("data", "looks_like"),
    [
        (encoded(PHOTO, "GIF"), "gif"),
        (b"\x00\x00\x00\x18ftypheic\x00\x00\x00\x00", "heic"),
        (b"\x00\x00\x00\x18ftypavif\x00\x00\x00\x00", "avif"),
        (b"\x00\x00\x00\x18ftypisom\x00\x00\x00\x00", "video"),
        (b"%PDF-1.7\n", "pdf"),
        (b"PK\x03\x04\x14\x00", "zip"),
        (b"<!DOCTYPE html><html>", "html"),
        (b"<svg xmlns='...'>", "svg"),
        ("Gr\u00fc\u00dfe, this is no image".encode(), "text"),
        (b"BM is how this text begins, though it is no bitmap", "text"),
        (b"\x07\x01\x02\xfe\xfd\x00\x00\x00\x00", "an unknown format"),
    ],
)
def test_what_is_unsupported_is_named(data: bytes, looks_like: str) -> None:
    with pytest.raises(MediaError, match=f"looks like {looks_like}") as caught:
        sniff(data)
    assert caught.value.code is ReasonCode.MEDIA_UNSUPPORTED


@pytest.mark.parametrize("declared", [None, "image/png", "IMAGE/PNG; q=1", "image/x-png", "application/octet-stream"])
def test_agreeing_and_unspecific_declarations_pass(declared: str | None) -> None:
    assert sniff(encoded(PHOTO, "PNG"), declared).format == "png"


@pytest.mark.parametrize("declared", ["image/jpeg", "image/unheard-of", "text/plain", "application/pdf"])
def test_a_contradicting_declaration_is_a_mismatch(declared: str) -> None:
    assert code_of(encoded(PHOTO, "PNG"), declared) is ReasonCode.MEDIA_TYPE_MISMATCH


def test_a_text_file_named_png_is_a_mismatch() -> None:
    assert code_of(b"just some text\n", "image/png") is ReasonCode.MEDIA_TYPE_MISMATCH


def test_an_honest_gif_is_unsupported_rather_than_a_mismatch() -> None:
    assert code_of(encoded(PHOTO, "GIF"), "image/gif") is ReasonCode.MEDIA_UNSUPPORTED


@pytest.mark.parametrize(("image_format", "size"), [("PNG", 20), ("JPEG", 30), ("TIFF", 12), ("BMP", 22)])
def test_a_cut_header_is_truncated(image_format: str, size: int) -> None:
    assert code_of(encoded(PHOTO, image_format)[:size]) is ReasonCode.MEDIA_TRUNCATED


def test_a_cut_webp_is_truncated() -> None:
    assert code_of(encoded(PHOTO, "WEBP")[:-10]) is ReasonCode.MEDIA_TRUNCATED


@pytest.mark.parametrize("data", [b"", b"\x89", b"\xff\xd8", b"II"])
def test_the_first_bytes_alone_are_truncated(data: bytes) -> None:
    assert code_of(data) is ReasonCode.MEDIA_TRUNCATED


@pytest.mark.parametrize("image_format", ["PNG", "JPEG", "WEBP"])
@pytest.mark.parametrize("tail", [bytes(65_537), b"PK\x03\x04rest", b"\n%PDF-1.4", b"<HTML><script>", b"<ScRiPt>x"])
def test_a_second_format_behind_the_image_is_refused(image_format: str, tail: bytes) -> None:
    assert code_of(encoded(PHOTO, image_format) + tail) is ReasonCode.MEDIA_TYPE_MISMATCH


@pytest.mark.parametrize("image_format", ["PNG", "JPEG", "WEBP"])
def test_a_little_padding_is_no_polyglot(image_format: str) -> None:
    assert sniff(encoded(PHOTO, image_format) + bytes(4096)).width == 56


def test_a_progressive_jpeg_is_walked_over_all_its_scans() -> None:
    data = encoded(PHOTO, "JPEG", progressive=True)
    assert sniff(data).width == 56
    assert code_of(data + b"%PDF-") is ReasonCode.MEDIA_TYPE_MISMATCH


def test_pictures_that_an_mpf_segment_announces_belong_to_the_image() -> None:
    first = encoded(PHOTO, "JPEG", quality=100)
    big = Image.fromarray(np.random.default_rng(1).integers(0, 256, (300, 300, 3), dtype=np.uint8))
    second = encoded(big, "JPEG", quality=100)
    assert len(second) > 65_536
    mpf = b"\xff\xe2" + struct.pack(">H", 2 + 4) + b"MPF\0"
    assert sniff(first[:2] + mpf + first[2:] + bytes(10) + second).width == 56
    assert code_of(first + second) is ReasonCode.MEDIA_TYPE_MISMATCH
    assert code_of(first[:2] + mpf + first[2:] + second + b"PK\x03\x04") is ReasonCode.MEDIA_TYPE_MISMATCH


def test_a_twelve_bit_jpeg_is_unsupported() -> None:
    data = bytearray(encoded(PHOTO, "JPEG"))
    data[data.index(b"\xff\xc0") + 4] = 12
    assert code_of(bytes(data)) is ReasonCode.MEDIA_UNSUPPORTED


def test_a_png_of_no_width_is_undecodable() -> None:
    header = struct.pack(">II", 0, 9) + b"\x08\x02\x00\x00\x00"
    crc = struct.pack(">I", zlib.crc32(b"IHDR" + header))
    data = b"\x89PNG\r\n\x1a\n" + struct.pack(">I", 13) + b"IHDR" + header + crc
    assert code_of(data) is ReasonCode.MEDIA_UNDECODABLE
