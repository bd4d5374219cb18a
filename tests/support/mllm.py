"""Requests, reports and token lists for tests of the MLLM stage."""

from __future__ import annotations

import io
import json
import math
import re
from typing import Any

import numpy as np
from PIL import Image

from pipeline.detection.mllm.backends.base import VerifyRequest
from pipeline.detection.mllm.chat import ChatAnswer, Token
from schemas.media import Feature

FEATURES = (
    Feature(name="slope", value=-2.0, percentile=99.0),
    Feature(name="log_peak_max_1_16", value=1.5, percentile=97.0),
)


def picture(width: int = 160, height: int = 128, seed: int = 7) -> Image.Image:
    pixels = np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8)
    return Image.fromarray(pixels)


def encoded(image: Image.Image, image_format: str = "PNG", **options: Any) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, image_format, **options)
    return buffer.getvalue()


def verify_request(original: bytes | None = None, **changes: Any) -> VerifyRequest:
    """One of 160 x 128 px, or of the original given, whose size is read from it."""
    data = encoded(picture()) if original is None else original
    try:
        width, height = Image.open(io.BytesIO(data)).size
    except OSError:
        width, height = 160, 128
    given = {
        "original": data,
        "original_content_type": None,
        "panel_png": encoded(picture(64, 64, 3)),
        "features": FEATURES,
        "stratum": "lossless/128_383",
        "scores": (),
        "width": width,
        "height": height,
    }
    return VerifyRequest(**(given | changes))


def report_data(**changes: Any) -> dict[str, Any]:
    """A report that is valid for `verify_request()`."""
    spectral = {
        "source": "spectrum",
        "band": "high",
        "quadrant": "top_left",
        "feature": "log_peak_max_1_16",
        "region": None,
        "observation": "peak at 1/16",
    }
    seen = {
        "source": "image",
        "band": None,
        "quadrant": "centre",
        "feature": None,
        "region": [60, 40, 30, 30],
        "observation": "hair melts",
    }
    return {
        "observations": [spectral, seen],
        "spatial_correlation": "the hair",
        "alternative_explanations": ["resizing"],
        "hypothesis": "lora_tuned",
        "rank_guess": 16,
        "confidence": 0.9,
        "primary_evidence": "peak at 1/16",
    } | changes


def plain_report(hypothesis: str, confidence: float = 0.9, **changes: Any) -> dict[str, Any]:
    """Valid for every hypothesis."""
    return report_data(hypothesis=hypothesis, rank_guess=None, confidence=confidence, **changes)


def tokens_of(text: str, shares: dict[str, float], *, head: str = "") -> tuple[Token, ...]:
    """`text` in tokens of a word or a mark; where the hypothesis begins, its first three letters are one token.

    Args:
        text: a report as JSON.
        shares: probability of each alternative's text at that place.
        head: what stands before the value in that token, such as ` "`.
    """
    value = re.search(r'"hypothesis"\s*:\s*"', text)
    assert value is not None
    begin = value.end() - len(head)
    assert text[begin : value.end()] == head
    end = value.end() + 3
    verdict = text[begin:end]
    logs = {head + part: math.log(p) for part, p in shares.items()}
    place = Token(verdict, logs.get(verdict, -0.01), logs)
    return (*_plain(text[:begin]), place, *_plain(text[end:]))


def _plain(text: str) -> list[Token]:
    return [Token(part, -0.01, {part: -0.01}) for part in re.findall(r"\w+|\W", text)]


def reporting(data: dict[str, Any] | str, tokens: tuple[Token, ...] = (), finish: Any = "stop") -> ChatAnswer:
    """A model's answer that is this report, or this text."""
    text = data if isinstance(data, str) else json.dumps(data)
    return ChatAnswer(text=text, finish=finish, tokens=tokens, prompt_tokens=1000, completion_tokens=200)
