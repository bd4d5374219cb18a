"""The fast decoders and Pillow are one decoder to everyone who calls: the same pixels, the same errors."""

from __future__ import annotations

import io
import re
import struct
import zlib
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image, PngImagePlugin

from pipeline.media import decode, decode_fast
from pipeline.media.decode import DecodeLimits, decode_image
from pipeline.media.errors import MediaError
from schemas.decision import ReasonCode

_LIMITS = DecodeLimits(max_pixels=100_000)
_ICC = bytes(range(256)) * 3
_EXIF_ROTATED = Image.Exif()
_EXIF_ROTATED[274] = 6
_SIGNATURE = b"\x89PNG\r\n\x1a\n"
_COLOUR_TYPES = {0: 1, 2: 3, 6: 4}

sides = st.integers(8, 70)


def pixels(height: int, width: int, channels: int, seed: int) -> np.ndarray:
    """Half noise, half ramp, so that rows are best filtered in different ways."""
    rng = np.random.default_rng(seed)
    noise = rng.integers(0, 256, (height, width, channels))
    ramp = np.add.outer(np.arange(height) * 3, np.arange(width) * 2)[:, :, None] + noise % 4
    made = np.where(np.arange(height)[:, None, None] < height // 2, noise, ramp)
    return made.astype(np.uint8)


def of_mode(mode: str, height: int, width: int, seed: int) -> Image.Image:
    four = Image.fromarray(pixels(height, width, 4, seed), "RGBA")
    return four.convert("RGB").convert(mode) if mode in ("1", "P", "CMYK", "I;16") else four.convert(mode)


def encoded(image: Image.Image, image_format: str, **options: Any) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, image_format, **options)
    return buffer.getvalue()


def chunk(kind: bytes, body: bytes) -> bytes:
    return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))


def png(
    stream: bytes, shape: tuple[int, int], colour_type: int = 2, *, before: bytes = b"", after: bytes = b""
) -> bytes:
    """PNG of 8 bits from a zlib stream, and chunks around its image data."""
    header = struct.pack(">IIBBBBB", shape[1], shape[0], 8, colour_type, 0, 0, 0)
    return _SIGNATURE + chunk(b"IHDR", header) + before + chunk(b"IDAT", stream) + after + chunk(b"IEND", b"")


def outcome(data: bytes) -> np.ndarray | tuple[ReasonCode, str]:
    try:
        return decode_image(data, _LIMITS).rgb
    except MediaError as error:
        return error.code, re.sub("0x[0-9a-f]+", "", error.detail)  # Pillow's errors tell addresses


def by_pillow(data: bytes) -> np.ndarray | tuple[ReasonCode, str]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(decode, "fast_pixels", lambda data, opened: None)
        return outcome(data)


def is_fast(data: bytes) -> bool:
    with Image.open(io.BytesIO(data)) as opened:
        return decode_fast.fast_pixels(data, opened) is not None


def assert_same(data: bytes) -> None:
    fast, slow = outcome(data), by_pillow(data)
    if isinstance(slow, tuple):
        assert fast == slow
    else:
        assert isinstance(fast, np.ndarray), fast
        assert fast.flags.c_contiguous
        assert fast.flags.writeable
        assert fast.dtype == np.uint8
        np.testing.assert_array_equal(fast, slow)


_METADATA = st.fixed_dictionaries({}, optional={"icc_profile": st.just(_ICC), "exif": st.just(_EXIF_ROTATED)})
_JPEG_OPTIONS = st.fixed_dictionaries(
    {
        "quality": st.integers(1, 100),
        "subsampling": st.sampled_from(("4:4:4", "4:2:2", "4:2:0")),
        "progressive": st.booleans(),
        "optimize": st.booleans(),
        "restart_marker_blocks": st.integers(0, 5),
    }
)


@settings(max_examples=150, deadline=None)
@given(
    mode=st.sampled_from(("1", "L", "LA", "P", "RGB", "RGBA", "I;16")),
    size=st.tuples(sides, sides),
    level=st.integers(0, 9),
    metadata=_METADATA,
)
def test_png_of_every_mode_is_pillows(mode: str, size: tuple[int, int], level: int, metadata: dict[str, Any]) -> None:
    data = encoded(of_mode(mode, *size, seed=level), "PNG", compress_level=level, **metadata)
    assert is_fast(data) == (mode in ("L", "RGB", "RGBA"))
    assert_same(data)


@settings(max_examples=150, deadline=None)
@given(
    mode=st.sampled_from(("L", "RGB", "CMYK")),
    size=st.tuples(sides, sides),
    options=_JPEG_OPTIONS,
    metadata=_METADATA,
)
def test_jpeg_of_every_kind_is_pillows(
    mode: str, size: tuple[int, int], options: dict[str, Any], metadata: dict[str, Any]
) -> None:
    data = encoded(of_mode(mode, *size, seed=options["quality"]), "JPEG", **options, **metadata)
    assert is_fast(data) == (mode != "CMYK")
    assert_same(data)


@pytest.mark.parametrize("sampling", [(1, 2), (4, 1), (4, 2), (2, 1), (3, 1)])
@pytest.mark.parametrize("transform", [None, 0, 1])
def test_other_samplings_and_colour_transforms_are_pillows(sampling: tuple[int, int], transform: int | None) -> None:
    """Frame headers changed by hand: the coefficients no longer make a picture, yet both decoders read them alike."""
    data = bytearray(encoded(of_mode("RGB", 64, 64, 1), "JPEG", subsampling="4:4:4", quality=90))
    frame = data.index(b"\xff\xc0")
    data[frame + 11] = sampling[0] << 4 | sampling[1]
    if transform is not None:
        adobe = b"Adobe\x00\x64\x00\x00\x00\x00" + bytes([transform])
        data[2:2] = b"\xff\xee" + struct.pack(">H", 2 + len(adobe)) + adobe
    assert_same(bytes(data))


def test_components_named_rgb_are_pillows() -> None:
    data = encoded(of_mode("RGB", 40, 56, 2), "JPEG", subsampling="4:4:4", keep_rgb=True)
    assert is_fast(data)
    assert_same(data)


@settings(max_examples=300, deadline=None)
@given(
    source=st.sampled_from(("png", "jpeg", "progressive", "grey png", "rgba png")),
    changes=st.dictionaries(st.floats(0, 1, exclude_max=True), st.integers(0, 255), max_size=4),
    kept=st.floats(0.05, 1) | st.just(1.0),
)
def test_damaged_files_come_back_as_pillow_has_them(source: str, changes: dict[float, int], kept: float) -> None:
    data = bytearray(_DAMAGED[source])
    for place, byte in changes.items():
        data[int(place * len(data))] = byte
    assert_same(bytes(data[: int(kept * len(data))]))


_DAMAGED = {
    "png": encoded(of_mode("RGB", 24, 40, 3), "PNG"),
    "grey png": encoded(of_mode("L", 24, 40, 3), "PNG"),
    "rgba png": encoded(of_mode("RGBA", 24, 40, 3), "PNG"),
    "jpeg": encoded(of_mode("RGB", 24, 40, 3), "JPEG", restart_marker_blocks=2),
    "progressive": encoded(of_mode("RGB", 24, 40, 3), "JPEG", progressive=True),
}


@settings(max_examples=60, deadline=None)
@given(colour_type=st.sampled_from(tuple(_COLOUR_TYPES)), size=st.tuples(sides, sides), filters=st.binary(min_size=70))
def test_every_row_filter_is_undone_as_by_pillow(colour_type: int, size: tuple[int, int], filters: bytes) -> None:
    height, width = size
    rows = np.random.default_rng(4).integers(0, 256, (height, 1 + width * _COLOUR_TYPES[colour_type]), dtype=np.uint8)
    rows[:, 0] = np.frombuffer(filters, np.uint8)[:height] % 5
    data = png(zlib.compress(rows.tobytes()), size, colour_type)
    assert is_fast(data)
    assert_same(data)


def test_a_large_png_has_many_stored_blocks_and_is_pillows() -> None:
    data = encoded(of_mode("RGB", 200, 300, 5), "PNG")
    assert len(np.asarray(Image.open(io.BytesIO(data))).tobytes()) > 2 * 65_535
    assert is_fast(data)
    assert_same(data)


_SHAPE = (20, 30)
_ROWS = b"".join(b"\0" + row.tobytes() for row in pixels(*_SHAPE, 3, 6))
_STREAM = zlib.compress(_ROWS)
_ROW_BYTES = len(_ROWS) // _SHAPE[0]


@pytest.mark.parametrize(
    ("name", "data"),
    [
        ("checksum wrong", png(_STREAM[:-1] + bytes([_STREAM[-1] ^ 1]), _SHAPE)),
        ("checksum missing", png(_STREAM[:-4], _SHAPE)),
        ("row too many", png(zlib.compress(_ROWS + _ROWS[:_ROW_BYTES]), _SHAPE)),
        ("row missing", png(zlib.compress(_ROWS[:-_ROW_BYTES]), _SHAPE)),
        ("byte missing", png(zlib.compress(_ROWS[:-1]), _SHAPE)),
        ("bytes behind the stream", png(_STREAM + b"junk", _SHAPE)),
        ("unknown row filter", png(zlib.compress(b"\x07" + _ROWS[1:]), _SHAPE)),
        ("not deflate", png(b"\x78\x9c" + bytes(100), _SHAPE)),
        ("window too large", png(b"\x88\x1c" + _STREAM[2:], _SHAPE)),
        ("preset dictionary", png(b"\x78\xbb" + bytes(4) + _STREAM[2:], _SHAPE)),
        (
            "text between image data",
            png(_STREAM[:50], _SHAPE, after=chunk(b"tEXt", b"a\0b") + chunk(b"IDAT", _STREAM[50:])),
        ),
        ("text behind image data", png(_STREAM, _SHAPE, after=chunk(b"tEXt", b"a\0b"))),
        ("broken text behind", png(_STREAM, _SHAPE, after=chunk(b"tEXt", b"a\0b")[:-1] + b"x")),
        ("broken text before", png(_STREAM, _SHAPE, before=chunk(b"tEXt", b"a\0b")[:-1] + b"x")),
        ("text too long", png(_STREAM, _SHAPE, before=chunk(b"zTXt", b"a\0\0" + zlib.compress(bytes(2 << 20))))),
        ("two image data chunks", png(_STREAM[:50], _SHAPE, after=chunk(b"IDAT", _STREAM[50:]))),
        ("empty image data", png(b"", _SHAPE, after=chunk(b"IDAT", _STREAM))),
        ("no end", png(_STREAM, _SHAPE)[:-12]),
        ("transparent colour", png(_STREAM, _SHAPE, before=chunk(b"tRNS", bytes(_ROWS[1:2] * 6)))),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_odd_png_streams_are_judged_as_by_pillow(name: str, data: bytes) -> None:
    assert_same(data)


def test_an_interlaced_png_is_left_to_pillow() -> None:
    rows = b"".join(b"\0" + bytes(3 * 8) for _ in range(15 + 8))
    header = struct.pack(">IIBBBBB", 8, 8, 8, 2, 0, 0, 1)
    data = _SIGNATURE + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(rows)) + chunk(b"IEND", b"")
    assert not is_fast(data)
    assert_same(data)


@pytest.mark.parametrize("default_image", [False, True])
def test_an_animated_png_is_left_to_pillow(default_image: bool) -> None:
    first, second = of_mode("RGB", 20, 20, 1), of_mode("RGB", 20, 20, 2)
    data = encoded(first, "PNG", save_all=True, append_images=[second], default_image=default_image)
    assert not is_fast(data)
    assert_same(data)


def test_a_jpeg_with_further_pictures_is_pillows_first() -> None:
    first, second = of_mode("RGB", 40, 40, 1), of_mode("RGB", 40, 40, 2)
    data = encoded(first, "MPO", save_all=True, append_images=[second])
    assert is_fast(data)
    assert_same(data)


def test_memory_that_the_fast_way_lacks_is_pillows_to_ask_for(monkeypatch: pytest.MonkeyPatch) -> None:
    def exhausted(*_: object) -> bytes:
        raise MemoryError

    data = encoded(of_mode("RGB", 20, 20, 1), "PNG")
    expected = by_pillow(data)
    monkeypatch.setattr(decode_fast.deflate, "zlib_decompress", exhausted)
    np.testing.assert_array_equal(outcome(data), expected)


def test_metadata_of_pngs_is_no_hindrance() -> None:
    text = PngImagePlugin.PngInfo()
    text.add_text("parameters", "a cat, 20 steps")
    data = encoded(of_mode("RGB", 20, 20, 1), "PNG", pnginfo=text, dpi=(72, 72))
    assert is_fast(data)
    assert_same(data)
