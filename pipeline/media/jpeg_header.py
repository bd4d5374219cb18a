"""What a JPEG's marker segments say: size, chroma subsampling, quantisation, and where the image ends."""

from __future__ import annotations

import re
import struct
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from pipeline.media.errors import MediaError
from schemas.decision import ReasonCode
from schemas.types import ChromaSubsampling

_SOI, _EOI, _SOS, _DQT, _APP2 = 0xD8, 0xD9, 0xDA, 0xDB, 0xE2
_STANDALONE = frozenset({0x01, *range(0xD0, 0xD8)})
_SOF = frozenset(range(0xC0, 0xD0)) - {0xC4, 0xC8, 0xCC}
_DECODABLE_SOF = frozenset({0xC0, 0xC1, 0xC2, 0xC9, 0xCA})
# One literal byte first, which re finds with memchr: 120 times as fast as with the fill bytes in the pattern.
_AFTER_SCAN = re.compile(rb"\xff[^\x00\xd0-\xd7\xff]")
_SUBSAMPLING: dict[tuple[int, int], ChromaSubsampling] = {
    (1, 1): "4:4:4",
    (2, 1): "4:2:2",
    (2, 2): "4:2:0",
    (1, 2): "4:4:0",
    (4, 1): "4:1:1",
    (4, 2): "4:1:0",
}
# ITU-T T.81 table K.1, in zigzag order as a DQT segment holds it.
_LUMA_K1 = np.array(
    (
        *(16, 11, 12, 14, 12, 10, 16, 14, 13, 14, 18, 17, 16, 19, 24, 40),
        *(26, 24, 22, 22, 24, 49, 35, 37, 29, 40, 58, 51, 61, 60, 57, 51),
        *(56, 55, 64, 72, 92, 78, 64, 68, 87, 69, 55, 56, 80, 109, 81, 87),
        *(95, 98, 103, 104, 103, 62, 77, 113, 121, 112, 100, 120, 92, 101, 103, 99),
    ),
    dtype=np.int64,
)


def _ijg_tables() -> NDArray[np.float64]:
    quality = np.arange(1, 101, dtype=np.int64)
    scale = np.where(quality < 50, 5000 // quality, 200 - 2 * quality)
    return np.clip((_LUMA_K1 * scale[:, None] + 50) // 100, 1, 255).astype(np.float64)


_LOG_IJG = np.log(_ijg_tables())


@dataclass(slots=True)
class JpegHeader:
    """`scan` is the offset of the first scan's segment; `has_mpf` tells of further pictures in the file."""

    width: int
    height: int
    quality: int | None
    chroma_subsampling: ChromaSubsampling | None
    scan: int
    has_mpf: bool


@dataclass(slots=True)
class _Seen:
    frame: bytes | None = None
    tables: dict[int, NDArray[np.float64]] = field(default_factory=dict)
    has_mpf: bool = False


def read_header(data: bytes) -> JpegHeader:
    """Walk the segments up to the first scan.

    Raises:
        MediaError: MEDIA_TRUNCATED, MEDIA_UNSUPPORTED (lossless, arithmetic-hierarchical or 12-bit frames) or
            MEDIA_UNDECODABLE.
    """
    seen = _Seen()
    position = 2
    while True:
        marker, body, end = _segment(data, position)
        if marker == _SOS:
            return _summary(seen, position)
        if marker == _EOI:
            raise MediaError(ReasonCode.MEDIA_UNDECODABLE, "JPEG ends before its first scan")
        if marker == _DQT:
            _read_tables(body, seen.tables)
        elif marker in _SOF:
            _check_frame(marker, body)
            seen.frame = body
        elif marker == _APP2 and body.startswith(b"MPF\0"):
            seen.has_mpf = True
        position = end


def end_of_image(data: bytes, scan: int) -> int | None:
    """The offset behind the EOI marker, from the offset of a scan's segment; None when there is no EOI."""
    position = scan
    while True:
        try:
            marker, _, end = _segment(data, position)
        except MediaError:
            return None
        if marker == _EOI:
            return end
        if marker == _SOS:
            found = _AFTER_SCAN.search(data, end)
            if found is None:
                return None
            end = found.start()
        position = end


def estimate_quality(luma_table: NDArray[np.float64]) -> int:
    """The IJG quality, 1-100, whose luma table is nearest; float64 (64,) in zigzag order.

    libjpeg scales table K.1 of ITU-T T.81 by 5000/q below q = 50 and by 200 - 2q from there on (jcparam.c),
    rounded and clamped to 1-255. The nearest of the 100 tables is the one of least squared difference of
    logarithms, so that being a ratio off counts the same at every frequency. Exact for libjpeg's tables, an
    equivalent for others.
    """
    return int(np.argmin(np.square(_LOG_IJG - np.log(luma_table)).sum(axis=1))) + 1


def _segment(data: bytes, position: int) -> tuple[int, bytes, int]:
    """Marker, body, and the offset behind the segment that starts at `position`."""
    if position + 2 > len(data):
        raise MediaError(ReasonCode.MEDIA_TRUNCATED, f"JPEG header ends after {len(data)} bytes")
    if data[position] != 0xFF:
        raise MediaError(ReasonCode.MEDIA_UNDECODABLE, f"JPEG has no marker at byte {position}")
    while data[position + 1 : position + 2] == b"\xff":
        position += 1
    if position + 2 > len(data):
        raise MediaError(ReasonCode.MEDIA_TRUNCATED, f"JPEG header ends after {len(data)} bytes")
    marker = data[position + 1]
    position += 2
    if marker == _EOI or marker in _STANDALONE:
        return marker, b"", position
    if position + 2 > len(data):
        raise MediaError(ReasonCode.MEDIA_TRUNCATED, f"JPEG header ends after {len(data)} bytes")
    (length,) = struct.unpack_from(">H", data, position)
    end = position + length
    if length < 2 or marker in (0x00, _SOI):
        raise MediaError(ReasonCode.MEDIA_UNDECODABLE, f"JPEG segment {marker:#04x} is malformed")
    if end > len(data):
        raise MediaError(ReasonCode.MEDIA_TRUNCATED, f"JPEG segment {marker:#04x} ends behind the data")
    return marker, data[position + 2 : end], end


def _read_tables(body: bytes, tables: dict[int, NDArray[np.float64]]) -> None:
    position = 0
    while position < len(body):
        wide, number = body[position] >> 4, body[position] & 15
        raw = np.frombuffer(body, ">u2" if wide else "u1", offset=position + 1)[:64] if _fits(body, position) else ()
        if len(raw) < 64:
            raise MediaError(ReasonCode.MEDIA_UNDECODABLE, "JPEG quantisation table is too short")
        # A step of 0 is invalid, yet decoders take it; 1 is the finest that exists.
        tables[number] = np.maximum(np.asarray(raw, dtype=np.float64), 1.0)
        position += 1 + 64 * (2 if wide else 1)


def _fits(body: bytes, position: int) -> bool:
    return position + 1 + 64 * (2 if body[position] >> 4 else 1) <= len(body)


def _check_frame(marker: int, body: bytes) -> None:
    if len(body) < 6 or len(body) < 6 + 3 * body[5]:
        raise MediaError(ReasonCode.MEDIA_UNDECODABLE, "JPEG frame header is too short")
    if marker not in _DECODABLE_SOF or body[0] != 8:
        raise MediaError(
            ReasonCode.MEDIA_UNSUPPORTED,
            f"JPEG frame type {marker:#04x} of {body[0]} bits; send baseline or progressive, 8 bits",
        )


def _summary(seen: _Seen, scan: int) -> JpegHeader:
    frame = seen.frame
    if frame is None:
        raise MediaError(ReasonCode.MEDIA_UNDECODABLE, "JPEG has a scan before its frame header")
    height, width = struct.unpack_from(">HH", frame, 1)
    components = [frame[6 + 3 * i : 9 + 3 * i] for i in range(frame[5])]
    if not components:
        raise MediaError(ReasonCode.MEDIA_UNDECODABLE, "JPEG frame has no components")
    luma_table = seen.tables.get(components[0][2])
    quality = None if luma_table is None else estimate_quality(luma_table)
    return JpegHeader(width, height, quality, _subsampling(components), scan, seen.has_mpf)


def _subsampling(components: list[bytes]) -> ChromaSubsampling | None:
    """Luma samples per chroma sample, across and down; None without chroma."""
    if len(components) < 3:
        return None
    factors = [(c[1] >> 4, c[1] & 15) for c in components]
    (across, down), chroma = factors[0], factors[1]
    if 0 in chroma or factors[2] != chroma or across % chroma[0] or down % chroma[1]:
        return "other"
    return _SUBSAMPLING.get((across // chroma[0], down // chroma[1]), "other")
