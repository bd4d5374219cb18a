"""The same pixels sooner: libjpeg-turbo and libdeflate with libspng for the common files, Pillow for all others.

Pillow has opened the file already, so its checks of the header stand. A file that a decoder here refuses or warns
about is left to Pillow, which decodes it or names the error: nothing here decides that a file is bad. JPEGs go
through the library that Pillow uses, with its settings. PNG streams are inflated by libdeflate with their checksum
(libspng and most others skip it, Pillow does not), and libspng undoes the row filters of the inflated bytes.
"""

from __future__ import annotations

import struct
from collections.abc import Callable

import cv2
import deflate
import numpy as np
import pyspng
import simplejpeg
from numpy.typing import NDArray
from PIL import ImageFile

_PNG_CHANNELS = {"L": 1, "RGB": 3, "RGBA": 4}
_PNG_HEAD_BYTES = 33  # the signature and IHDR
_STORED_MAX_BYTES = 65_535  # of one block, RFC 1951, 3.2.4
_STORED_BLOCK = struct.Struct("<BHH")
_ZLIB_HEADER = b"\x78\x01"
_IEND = b"\x00\x00\x00\x00IEND\xae\x42\x60\x82"


def fast_pixels(data: bytes, opened: ImageFile.ImageFile) -> NDArray[np.uint8] | None:
    """uint8 (H, W, 3), bit by bit what Pillow makes of `data`, or None where Pillow has to decode.

    `opened` is Pillow's image of the same bytes, not loaded yet. Taken are PNG of 8-bit grey, RGB and RGBA without
    interlacing and animation, and JPEG of one or three components.
    """
    decoder = _DECODERS.get(opened.format or "")
    if decoder is None:
        return None
    try:
        return decoder(data, opened)
    except Exception:  # whatever these libraries raise on hostile bytes, Pillow has the last word
        return None


def _jpeg(data: bytes, opened: ImageFile.ImageFile) -> NDArray[np.uint8] | None:
    """None for CMYK, an exception for anything that libjpeg warns of: it has filled in missing pixels then."""
    if opened.mode == "RGB":
        rgb: NDArray[np.uint8] = simplejpeg.decode_jpeg(data, "RGB", strict=True)
        return rgb
    if opened.mode == "L":
        return _three_channels(simplejpeg.decode_jpeg(data, "GRAY", strict=True))
    return None


def _png(data: bytes, opened: ImageFile.ImageFile) -> NDArray[np.uint8] | None:
    channels = _PNG_CHANNELS.get(opened.mode)
    tile = opened.tile[0]
    # The tile's argument is the layout in the file: other than the mode for 1, 2, 4 and 16 bits.
    if channels is None or tile.args != opened.mode or opened.info.get("interlace") or _is_animated(opened):
        return None
    stream = _image_data(data, tile.offset - 8)
    if stream is None:
        return None
    width, height = opened.size
    row_bytes = 1 + channels * width
    rows = deflate.zlib_decompress(stream, height * row_bytes)
    del stream  # at most two copies of the pixels at a time, as in Pillow: the process has a limit on memory
    if len(rows) != height * row_bytes:
        return None
    stored = _stored_png(data[:_PNG_HEAD_BYTES], rows)
    del rows
    return _three_channels(pyspng.load(stored))


def _is_animated(opened: ImageFile.ImageFile) -> bool:
    return getattr(opened, "n_frames", 1) != 1


def _image_data(data: bytes, position: int) -> bytes | None:
    """The bodies of the IDAT chunks from `position` on; None unless IEND follows them at once."""
    parts: list[bytes] = []
    while position + 8 <= len(data):
        length, kind = struct.unpack_from(">I4s", data, position)
        if kind != b"IDAT":
            return b"".join(parts) if kind == b"IEND" else None
        parts.append(data[position + 8 : position + 8 + length])
        position += 12 + length
    return None


def _stored_png(head: bytes, rows: bytes) -> bytes:
    """A PNG of the same rows, not compressed, so that a decoder has only the row filters to undo."""
    view = memoryview(rows)
    parts: list[bytes | memoryview] = [b"IDAT", _ZLIB_HEADER]
    for start in range(0, len(view), _STORED_MAX_BYTES):
        block = view[start : start + _STORED_MAX_BYTES]
        is_last = start + len(block) == len(view)
        parts += (_STORED_BLOCK.pack(is_last, len(block), len(block) ^ 0xFFFF), block)
    parts.append(struct.pack(">I", deflate.adler32(rows)))
    checksum = 0
    for part in parts:
        checksum = deflate.crc32(part, checksum)
    length = sum(map(len, parts)) - 4
    return b"".join((head, struct.pack(">I", length), *parts, struct.pack(">I", checksum), _IEND))


def _three_channels(pixels: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Grey three times; alpha dropped and not blended."""
    channels = 1 if pixels.ndim == 2 else pixels.shape[2]
    if channels == 3:
        return pixels
    conversion = cv2.COLOR_GRAY2RGB if channels == 1 else cv2.COLOR_RGBA2RGB
    return np.asarray(cv2.cvtColor(pixels, conversion), np.uint8)


_DECODERS: dict[str, Callable[[bytes, ImageFile.ImageFile], NDArray[np.uint8] | None]] = {
    "PNG": _png,
    "JPEG": _jpeg,
    "MPO": _jpeg,
}
