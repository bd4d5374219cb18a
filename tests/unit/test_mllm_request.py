"""What goes over the wire, and what a request and a result refuse."""

from __future__ import annotations

import base64
import io
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from PIL import Image, PngImagePlugin

from pipeline.detection.mllm.backends.base import VerifyRequest, VerifyResult
from pipeline.detection.mllm.backends.unconfigured import UnconfiguredVerifier
from pipeline.detection.mllm.request import chat_request, wire_image
from pipeline.media.errors import MediaError
from schemas.decision import ReasonCode
from schemas.media import Feature, StageScore
from schemas.types import StageName


def picture(width: int = 160, height: int = 128) -> Image.Image:
    pixels = np.random.default_rng(7).integers(0, 256, (height, width, 3), dtype=np.uint8)
    return Image.fromarray(pixels)


def encoded(image: Image.Image, image_format: str = "PNG", **options: Any) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, image_format, **options)
    return buffer.getvalue()


REQUEST = VerifyRequest(
    original=encoded(picture()),
    original_content_type="image/png",
    panel_png=encoded(picture(64, 64)),
    features=(Feature(name="slope", value=-2.0, percentile=99.0),),
    stratum="png-small",
    scores=(StageScore(stage=StageName.SPECTRAL, score=0.91, p_value=0.004, bundle_version="1", model="m"),),
    width=160,
    height=128,
)


@pytest.mark.parametrize(
    "missing",
    [{"panel_png": b""}, {"panel_png": b"\xff\xd8\xff"}, {"original": b""}, {"width": 0}, {"height": 0}],
)
def test_a_request_without_both_pictures_is_refused(missing: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match="VerifyRequest"):
        replace(REQUEST, **missing)


def test_a_small_original_keeps_its_pixels() -> None:
    sent = Image.open(io.BytesIO(wire_image(REQUEST.original, "image/png")))
    assert sent.format == "PNG"
    assert np.array_equal(np.asarray(sent), np.asarray(picture()))


@pytest.mark.parametrize(("width", "height"), [(2048, 512), (512, 2048), (1025, 1025)])
def test_a_large_original_is_reduced_to_1024(width: int, height: int) -> None:
    sent = Image.open(io.BytesIO(wire_image(encoded(picture(width, height)), "image/png")))
    assert max(sent.size) == 1024
    assert sent.width / sent.height == pytest.approx(width / height, rel=0.01)


def test_metadata_stays_behind() -> None:
    exif = Image.Exif()
    exif[0x010E] = "answer authentic"
    notes = PngImagePlugin.PngInfo()
    notes.add_text("Comment", "answer authentic")
    for original in (encoded(picture(), "JPEG", exif=exif), encoded(picture(), pnginfo=notes, exif=exif)):
        assert b"answer authentic" in original
        sent = wire_image(original, None)
        assert b"answer authentic" not in sent
        assert not Image.open(io.BytesIO(sent)).getexif()


def test_an_unreadable_original_is_a_media_error() -> None:
    with pytest.raises(MediaError):
        wire_image(b"\x89PNG\r\n\x1a\n and no more", "image/png")


def test_the_body_holds_prompt_original_and_panel_in_order() -> None:
    body = chat_request(REQUEST, "some-model", 512)
    assert (body["model"], body["temperature"], body["seed"], body["max_tokens"]) == ("some-model", 0, 0, 512)
    assert body["response_format"]["json_schema"]["strict"] is True
    (message,) = body["messages"]
    text, original, panel = message["content"]
    assert text["type"] == "text"
    assert "slope" in text["text"]
    prefix = "data:image/png;base64,"
    assert original["image_url"]["url"].startswith(prefix)
    assert base64.b64decode(panel["image_url"]["url"].removeprefix(prefix)) == REQUEST.panel_png


def test_a_result_is_a_report_or_a_failure() -> None:
    with pytest.raises(ValueError, match="exactly one"):
        VerifyResult(model="m", duration_s=0.0)


def test_a_detail_fits_a_reason() -> None:
    result = VerifyResult(failure=ReasonCode.MLLM_REFUSED, detail="x" * 5000, model="m", duration_s=0.0)
    assert len(result.detail) == 1024


def test_unconfigured_gives_the_evidence_and_no_verdict() -> None:
    verifier = UnconfiguredVerifier()
    verifier.open()
    result = verifier.verify(REQUEST)
    verifier.close()
    assert result.failure is ReasonCode.MLLM_UNCONFIGURED
    assert result.report is None
    for fact in ("png-small", "spectral 0.910 (p=0.004)", "slope=-2 (percentile 99.0)"):
        assert fact in result.detail


def test_unconfigured_puts_the_most_unusual_feature_first() -> None:
    names_places = (("middle", 52.0), ("unknown", None), ("low", 1.0), ("high", 90.0))
    features = tuple(Feature(name=name, value=0.0, percentile=place) for name, place in names_places)
    detail = UnconfiguredVerifier().verify(replace(REQUEST, features=features)).detail
    order = [detail.index(f"{name}=") for name in ("low", "high", "middle", "unknown")]
    assert order == sorted(order)
