"""Which stratum an image belongs to, and what stands in for a missing one."""

from __future__ import annotations

import pytest

from pipeline.detection.spectral import strata
from schemas.media import MediaFacts


def media(**changes: object) -> MediaFacts:
    base = {"sha256": "0" * 64, "size_bytes": 1, "format": "jpeg", "lossless": False, "width": 1, "height": 1}
    return MediaFacts.model_validate({**base, **changes})


@pytest.mark.parametrize(
    ("facts", "bucket"),
    [
        (media(format="png", lossless=True), "lossless"),
        (media(format="webp", lossless=True), "lossless"),
        (media(format="webp"), "webp_lossy"),
        (media(format="tiff"), "lossy_unknown"),
        (media(), "lossy_unknown"),
        (media(jpeg_quality=100), "jpeg_95_100"),
        (media(jpeg_quality=95), "jpeg_95_100"),
        (media(jpeg_quality=94), "jpeg_85_94"),
        (media(jpeg_quality=85), "jpeg_85_94"),
        (media(jpeg_quality=84), "jpeg_70_84"),
        (media(jpeg_quality=70), "jpeg_70_84"),
        (media(jpeg_quality=69), "jpeg_0_69"),
        (media(jpeg_quality=1), "jpeg_0_69"),
    ],
)
def test_codec_and_quality(facts: MediaFacts, bucket: str) -> None:
    assert strata.codec_bucket(facts) == bucket


@pytest.mark.parametrize(
    ("shape", "bucket"),
    [((128, 1024), "128_383"), ((384, 383), "128_383"), ((384, 400), "384_767"), ((1024, 768), "768_1024")],
)
def test_the_shorter_side_counts(shape: tuple[int, int], bucket: str) -> None:
    assert strata.stratum(media(jpeg_quality=90), shape) == f"jpeg_85_94/{bucket}"


def test_pooling_widens_the_size_before_the_codec() -> None:
    assert strata.fallbacks("jpeg_70_84/128_383") == ("jpeg_70_84/128_383", "jpeg_70_84/any", "lossy/any")
    assert strata.fallbacks("lossless/128_383") == ("lossless/128_383", "lossless/any")


def test_the_grid_is_masked_where_the_codec_draws_one_and_pooling_keeps_the_mask() -> None:
    masked = {codec for codec in (*strata.CODECS, strata.LOSSY_UNKNOWN) if strata.masks_jpeg_grid(codec)}

    assert masked == {"jpeg_85_94", "jpeg_70_84", "jpeg_0_69", "webp_lossy", "lossy_unknown"}
    for codec in (*strata.CODECS, strata.LOSSY_UNKNOWN):
        names = strata.fallbacks(f"{codec}/128_383")
        assert len({strata.masks_jpeg_grid(name) for name in names}) == 1
