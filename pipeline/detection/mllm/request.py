"""The two pictures and the prompt as an OpenAI-compatible chat completion request."""

from __future__ import annotations

import base64
import io
from typing import Any

from PIL import Image

from pipeline.detection.mllm.backends.base import VerifyRequest
from pipeline.detection.mllm.prompt import MAX_SIDE_PX, render_prompt
from pipeline.detection.mllm.report import SCHEMA_NAME, answer_schema
from pipeline.media.decode import DecodeLimits, decode_image

_PNG_LEVEL = 1  # the picture crosses one network hop and is then thrown away


def chat_request(request: VerifyRequest, model: str, max_tokens: int) -> dict[str, Any]:
    """The request body: one user message with the prompt, the original and the panel, in that order.

    Raises:
        MediaError: the original cannot be decoded.
    """
    content = [
        {"type": "text", "text": render_prompt(request)},
        _image_part(wire_image(request.original, request.original_content_type)),
        _image_part(request.panel_png),
    ]
    json_schema = {"name": SCHEMA_NAME, "strict": True, "schema": answer_schema()}
    return {
        "model": model,
        "messages": [{"role": "user", "content": content}],
        "temperature": 0,
        "seed": 0,
        "max_tokens": max_tokens,
        "response_format": {"type": "json_schema", "json_schema": json_schema},
    }


def wire_image(original: bytes, content_type: str | None) -> bytes:
    """The original as RGB PNG, its long side at most 1,024 px, never enlarged, without metadata.

    PNG and not JPEG, at any quality: JPEG would add its own 8x8 grid to the picture in which the model is to
    look for grids. Always re-encoded, so that the model server reads no byte that a producer wrote. The
    orientation stays as stored, as in the spectral panel, so that both speak of the same quadrants.

    Raises:
        MediaError: the original cannot be decoded.
    """
    image = Image.fromarray(decode_image(original, DecodeLimits(), content_type).rgb)
    scale = MAX_SIDE_PX / max(image.size)
    if scale < 1.0:
        width, height = (max(1, round(side * scale)) for side in image.size)
        image = image.resize((width, height), Image.Resampling.LANCZOS)
    buffer = io.BytesIO()
    image.save(buffer, "PNG", compress_level=_PNG_LEVEL)
    return buffer.getvalue()


def _image_part(png: bytes) -> dict[str, Any]:
    """A data URI: the model server is never given a URL to fetch."""
    return {
        "type": "image_url",
        "image_url": {"url": f"data:image/png;base64,{base64.b64encode(png).decode('ascii')}"},
    }
