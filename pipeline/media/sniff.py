"""What bytes are, from their header alone: format, size, and whether they agree with the declared type."""

from __future__ import annotations

import struct
from collections.abc import Callable
from dataclasses import dataclass

from pipeline.media import jpeg_header
from pipeline.media.errors import MediaError
from schemas.decision import ReasonCode
from schemas.types import ChromaSubsampling, MediaFormat

_MAX_TRAILING_BYTES = 65_536
_FOREIGN = (b"PK\x03\x04", b"PK\x05\x06", b"%PDF-", b"<html", b"<!doctype html", b"<script")
_UNSPECIFIC = frozenset(
    {
        "application/octet-stream",
        "binary/octet-stream",
        "application/download",
        "application/x-download",
        "application/force-download",
    }
)
_DECLARED: dict[str, str] = {
    **dict.fromkeys(("image/jpeg", "image/jpg", "image/pjpeg"), "jpeg"),
    **dict.fromkeys(("image/png", "image/x-png", "image/apng"), "png"),
    "image/webp": "webp",
    **dict.fromkeys(("image/tiff", "image/tif", "image/x-tiff"), "tiff"),
    **dict.fromkeys(("image/bmp", "image/x-bmp", "image/x-ms-bmp", "image/x-windows-bmp"), "bmp"),
    "image/gif": "gif",
    **dict.fromkeys(("image/heic", "image/heif"), "heic"),
    "image/avif": "avif",
    "image/svg+xml": "svg",
    "image/jxl": "jpeg xl",
    "image/jp2": "jpeg 2000",
}
_MAGIC: tuple[tuple[bytes, str], ...] = (
    (b"\x89PNG\r\n\x1a\n", "png"),
    (b"\xff\xd8\xff", "jpeg"),
    (b"II*\x00", "tiff"),
    (b"MM\x00*", "tiff"),
    (b"II+\x00", "bigtiff"),
    (b"MM\x00+", "bigtiff"),
    (b"GIF87a", "gif"),
    (b"GIF89a", "gif"),
    (b"%PDF-", "pdf"),
    (b"PK\x03\x04", "zip"),
    (b"PK\x05\x06", "zip"),
    (b"\xff\x0a", "jpeg xl"),
    (b"\x00\x00\x00\x0cJXL \r\n\x87\n", "jpeg xl"),
    (b"\x00\x00\x00\x0cjP  \r\n\x87\n", "jpeg 2000"),
    (b"\x1f\x8b", "gzip"),
)
_BRANDS = {
    b"heic": "heic",
    b"heix": "heic",
    b"heif": "heic",
    b"mif1": "heic",
    b"msf1": "heic",
    b"hevc": "heic",
}
_BMP_HEADERS = frozenset({12, 16, 40, 52, 56, 64, 108, 124})
_LOSSY_TIFF = frozenset({6, 7, 33003, 33005, 34712, 34892, 50001, 50002})


@dataclass(frozen=True, slots=True)
class Sniffed:
    """Sizes in pixels as the header gives them, orientation not applied."""

    format: MediaFormat
    lossless: bool
    width: int
    height: int
    jpeg_quality: int | None = None
    chroma_subsampling: ChromaSubsampling | None = None


def sniff(data: bytes, declared_content_type: str | None = None) -> Sniffed:
    """Recognise PNG, JPEG, WebP, TIFF and BMP by their magic bytes and read their headers.

    A declared `image/*` must be the format found; `application/octet-stream` and its like say nothing; any
    other declared type contradicts image bytes. Bytes behind the end of a JPEG, PNG or WebP are refused when
    there are more than 64 KiB of them or when they hold a ZIP, PDF or HTML signature; further JPEGs that an MPF
    segment announces (CIPA DC-007) belong to the image.

    Raises:
        MediaError: MEDIA_TRUNCATED, MEDIA_UNSUPPORTED, MEDIA_TYPE_MISMATCH or MEDIA_UNDECODABLE.
    """
    kind = _kind(data)
    _check_declared(kind, declared_content_type)
    reader = _READERS.get(kind)
    if reader is None:
        raise MediaError(ReasonCode.MEDIA_UNSUPPORTED, f"looks like {kind}; send JPEG, PNG, WebP, TIFF or BMP")
    try:
        sniffed = reader(data)
    except struct.error as error:
        raise MediaError(ReasonCode.MEDIA_TRUNCATED, f"{kind} header ends after {len(data)} bytes") from error
    if sniffed.width < 1 or sniffed.height < 1:
        raise MediaError(ReasonCode.MEDIA_UNDECODABLE, f"{kind} header says {sniffed.width}x{sniffed.height} pixels")
    return sniffed


def _kind(data: bytes) -> str:
    for magic, kind in _MAGIC:
        if data.startswith(magic):
            return kind
    if data[:4] == b"RIFF" and data[8:12] == b"WEBP":
        return "webp"
    if data[4:8] == b"ftyp":
        return _BRANDS.get(data[8:12], "avif" if data[8:12] in (b"avif", b"avis") else "video")
    if data[:2] == b"BM" and (len(data) < 18 or int.from_bytes(data[14:18], "little") in _BMP_HEADERS):
        return "bmp"
    return _text_kind(data)


def _text_kind(data: bytes) -> str:
    if len(data) < 8 and any(magic.startswith(data) for magic, _ in _MAGIC[:4]):
        raise MediaError(ReasonCode.MEDIA_TRUNCATED, f"only {len(data)} bytes")
    head = data[:512].lstrip(b"\xef\xbb\xbf \t\r\n").lower()
    if head.startswith((b"<svg", b"<?xml")):
        return "svg"
    if head.startswith((b"<!doctype html", b"<html", b"<head", b"<body", b"<script")):
        return "html"
    printable = all(byte >= 0x20 or byte in b"\t\r\n" for byte in head)
    return "text" if printable and _is_utf8(data[:512]) else "an unknown format"


def _is_utf8(head: bytes) -> bool:
    try:
        head.decode()
    except UnicodeDecodeError as error:
        # A character cut by the end of the excerpt is still text.
        return error.start >= len(head) - 3
    return True


def _check_declared(kind: str, declared_content_type: str | None) -> None:
    declared = (declared_content_type or "").partition(";")[0].strip().lower()
    if not declared or declared in _UNSPECIFIC:
        return
    found = "tiff" if kind == "bigtiff" else kind
    if (declared.startswith("image/") or found in _READERS) and _DECLARED.get(declared) != found:
        raise MediaError(ReasonCode.MEDIA_TYPE_MISMATCH, f"declared {declared[:64]}, the bytes look like {kind}")


def _png(data: bytes) -> Sniffed:
    length, kind, width, height = struct.unpack_from(">I4sII", data, 8)
    if kind != b"IHDR" or length != 13:
        raise MediaError(ReasonCode.MEDIA_UNDECODABLE, "PNG does not begin with IHDR")
    if len(data) < 33:
        raise MediaError(ReasonCode.MEDIA_TRUNCATED, f"PNG header ends after {len(data)} bytes")
    position = 8
    while position + 8 <= len(data):
        length, kind = struct.unpack_from(">I4s", data, position)
        position += 12 + length
        if kind == b"IEND":
            _check_trailing(data, position, "PNG")
            break
    return Sniffed("png", True, width, height)


def _jpeg(data: bytes) -> Sniffed:
    header = jpeg_header.read_header(data)
    end = jpeg_header.end_of_image(data, header.scan)
    if end is not None:
        _check_trailing(data, _end_of_pictures(data, end) if header.has_mpf else end, "JPEG")
    return Sniffed("jpeg", False, header.width, header.height, header.quality, header.chroma_subsampling)


def _end_of_pictures(data: bytes, end: int) -> int:
    while True:
        start = data.find(b"\xff\xd8\xff", end)
        if start < 0 or data[end:start].strip(b"\0"):
            return end
        try:
            following = jpeg_header.end_of_image(data, jpeg_header.read_header(data[start:]).scan + start)
        except MediaError:
            return end
        if following is None:
            return end
        end = following


def _webp(data: bytes) -> Sniffed:
    (riff_bytes,) = struct.unpack_from("<I", data, 4)
    end = 8 + riff_bytes
    if end > len(data):
        raise MediaError(ReasonCode.MEDIA_TRUNCATED, f"WebP announces {end} bytes, {len(data)} are there")
    _check_trailing(data, end + (end & 1), "WebP")
    kind = data[12:16]
    if kind == b"VP8X":
        struct.unpack_from("<20x10x", data)
        width = 1 + int.from_bytes(data[24:27], "little")
        height = 1 + int.from_bytes(data[27:30], "little")
        lossless = _webp_is_lossless(data, 30)
        return Sniffed("webp", lossless, width, height, None, None if lossless else "4:2:0")
    if kind == b"VP8L":
        signature, packed = struct.unpack_from("<BI", data, 20)
        if signature != 0x2F:
            raise MediaError(ReasonCode.MEDIA_UNDECODABLE, "WebP lossless signature is missing")
        return Sniffed("webp", True, 1 + (packed & 0x3FFF), 1 + (packed >> 14 & 0x3FFF))
    if kind == b"VP8 ":
        start_code, width, height = struct.unpack_from("<3x3sHH", data, 20)
        if start_code != b"\x9d\x01\x2a":
            raise MediaError(ReasonCode.MEDIA_UNDECODABLE, "WebP key frame start code is missing")
        return Sniffed("webp", False, width & 0x3FFF, height & 0x3FFF, None, "4:2:0")
    raise MediaError(ReasonCode.MEDIA_UNDECODABLE, f"WebP begins with an unknown chunk {kind!r}")


def _webp_is_lossless(data: bytes, position: int) -> bool:
    """Whether the first picture of an extended WebP is VP8L; an animation's first frame lies inside ANMF."""
    while position + 8 <= len(data):
        kind, length = struct.unpack_from("<4sI", data, position)
        if kind in (b"VP8 ", b"VP8L"):
            return bool(kind == b"VP8L")
        position += 24 if kind == b"ANMF" else 8 + length + (length & 1)
    raise MediaError(ReasonCode.MEDIA_UNDECODABLE, "WebP holds no picture")


def _tiff(data: bytes) -> Sniffed:
    order = "<" if data[:2] == b"II" else ">"
    (directory,) = struct.unpack_from(f"{order}I", data, 4)
    (count,) = struct.unpack_from(f"{order}H", data, directory)
    tags: dict[int, int] = {}
    for entry in range(directory + 2, directory + 2 + 12 * count, 12):
        tag, kind = struct.unpack_from(f"{order}HH", data, entry)
        if tag in (256, 257, 259) and kind in (3, 4):
            (tags[tag],) = struct.unpack_from(f"{order}{'H' if kind == 3 else 'I'}", data, entry + 8)
    if 256 not in tags or 257 not in tags:
        raise MediaError(ReasonCode.MEDIA_UNDECODABLE, "TIFF directory has no width and height")
    return Sniffed("tiff", tags.get(259, 1) not in _LOSSY_TIFF, tags[256], tags[257])


def _bmp(data: bytes) -> Sniffed:
    (header_bytes,) = struct.unpack_from("<I", data, 14)
    if header_bytes == 12:
        width, height = struct.unpack_from("<HH", data, 18)
        return Sniffed("bmp", True, width, height)
    width, height, _, compression = struct.unpack_from("<iiIi", data, 18)
    if header_bytes >= 40 and compression in (4, 5):
        raise MediaError(ReasonCode.MEDIA_UNSUPPORTED, "BMP holds an embedded JPEG or PNG; send that instead")
    return Sniffed("bmp", True, width, abs(height))


def _check_trailing(data: bytes, end: int, name: str) -> None:
    extra = len(data) - end
    if extra <= 0:
        return
    if extra > _MAX_TRAILING_BYTES:
        raise MediaError(ReasonCode.MEDIA_TYPE_MISMATCH, f"{extra} bytes follow the end of the {name}")
    tail = data[end:].lower()
    found = next((signature for signature in _FOREIGN if signature.lower() in tail), None)
    if found is not None:
        detail = f"{found!r} follows the end of the {name}: two formats in one file"
        raise MediaError(ReasonCode.MEDIA_TYPE_MISMATCH, detail)


_READERS: dict[str, Callable[[bytes], Sniffed]] = {
    "png": _png,
    "jpeg": _jpeg,
    "webp": _webp,
    "tiff": _tiff,
    "bmp": _bmp,
}
