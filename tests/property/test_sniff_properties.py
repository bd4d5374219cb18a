from __future__ import annotations

import io
import pickle

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from pipeline.media.decode import DecodeLimits, decode_image
from pipeline.media.errors import MediaError
from pipeline.media.sniff import Sniffed, sniff

_MAGIC = (b"\x89PNG\r\n\x1a\n", b"\xff\xd8\xff", b"II*\0", b"MM\0*", b"BM", b"RIFF\x20\0\0\0WEBPVP8X", b"RIFF")
_FORMATS = ("PNG", "JPEG", "WEBP", "TIFF", "BMP")


def _image(image_format: str) -> bytes:
    buffer = io.BytesIO()
    pixels = np.random.default_rng(3).integers(0, 256, (16, 24, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(buffer, image_format)
    return buffer.getvalue()


_VALID = {name: _image(name) for name in _FORMATS}


def _sniffed(data: bytes, declared: str | None = None) -> Sniffed | MediaError:
    try:
        return sniff(data, declared)
    except MediaError as error:
        return error


@settings(max_examples=300, deadline=None)
@given(st.sampled_from((b"", *_MAGIC)), st.binary(max_size=300), st.none() | st.text(max_size=20))
def test_arbitrary_bytes_raise_nothing_but_a_media_error(magic: bytes, rest: bytes, declared: str | None) -> None:
    found = _sniffed(magic + rest, declared)
    if isinstance(found, MediaError):
        assert found.detail
    else:
        assert min(found.width, found.height) >= 1


@settings(max_examples=300, deadline=None)
@given(st.sampled_from(_FORMATS), st.data())
def test_damaged_images_raise_nothing_but_a_media_error(image_format: str, data: st.DataObject) -> None:
    damaged = bytearray(_VALID[image_format])
    places = st.integers(0, min(len(damaged), 200) - 1)
    for place, byte in data.draw(st.dictionaries(places, st.integers(0, 255), max_size=6)).items():
        damaged[place] = byte
    cut = data.draw(st.integers(0, len(damaged)))
    _sniffed(bytes(damaged[:cut]))
    try:
        image = decode_image(bytes(damaged[:cut]), DecodeLimits(max_pixels=100_000))
    except MediaError:
        return
    assert image.rgb.shape == (image.facts.height, image.facts.width, 3)


@given(st.binary(max_size=64))
def test_the_error_survives_a_process_border(data: bytes) -> None:
    found = _sniffed(data)
    if isinstance(found, MediaError):
        copy = pickle.loads(pickle.dumps(found))
        assert (copy.code, copy.detail) == (found.code, found.detail)
