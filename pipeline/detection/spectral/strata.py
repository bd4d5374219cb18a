"""Strata: images whose codec, quality and size make their spectra comparable."""

from __future__ import annotations

from schemas.media import MediaFacts

LOSSLESS = "lossless"
JPEG_95 = "jpeg_95_100"
JPEG_85 = "jpeg_85_94"
JPEG_70 = "jpeg_70_84"
JPEG_LOW = "jpeg_0_69"
WEBP = "webp_lossy"
LOSSY_UNKNOWN = "lossy_unknown"

CODECS = (LOSSLESS, JPEG_95, JPEG_85, JPEG_70, JPEG_LOW, WEBP)
"""The codec buckets that have references of their own; `lossy_unknown` borrows the pooled one."""

SIZES = ("128_383", "384_767", "768_1024")
"""Buckets of the shorter analysed side in pixels."""

ANY_SIZE = "any"
ANY_LOSSY = "lossy"


def codec_bucket(facts: MediaFacts) -> str:
    """Codec and quality bucket. A JPEG-in-TIFF or a JPEG without a quality estimate is `lossy_unknown`.

    Lossy WebP is one bucket: its quality is not among the facts.
    """
    if facts.lossless:
        return LOSSLESS
    if facts.format == "webp":
        return WEBP
    if facts.format != "jpeg" or facts.jpeg_quality is None:
        return LOSSY_UNKNOWN
    for floor, bucket in ((95, JPEG_95), (85, JPEG_85), (70, JPEG_70)):
        if facts.jpeg_quality >= floor:
            return bucket
    return JPEG_LOW


def size_bucket(shorter_side_px: int) -> str:
    """Bucket of the shorter side of the analysed area."""
    if shorter_side_px < 384:
        return SIZES[0]
    return SIZES[1] if shorter_side_px < 768 else SIZES[2]


def stratum(facts: MediaFacts, analysed_shape: tuple[int, int]) -> str:
    """Name such as `jpeg_85_94/384_767`."""
    return f"{codec_bucket(facts)}/{size_bucket(min(analysed_shape))}"


def fallbacks(name: str) -> tuple[str, ...]:
    """Reference names to try in turn: the stratum, its codec at any size, then all lossy codecs together."""
    codec = name.partition("/")[0]
    pooled = (f"{ANY_LOSSY}/{ANY_SIZE}",) if codec not in (LOSSLESS, JPEG_95) else ()
    return (name, f"{codec}/{ANY_SIZE}", *pooled)


def masks_jpeg_grid(name: str) -> bool:
    """True where the codec's own 8 px blocks raise the points at k/8, so that only odd k/16 is evidence.

    The whole bucket 85-94 is masked although the effect is known up to about quality 90, so that one stratum
    has one set of features.
    """
    return name.partition("/")[0] not in (LOSSLESS, JPEG_95)
