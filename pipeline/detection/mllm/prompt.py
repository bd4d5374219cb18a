"""The versioned prompt text and the measurements appended to it."""

from __future__ import annotations

import hashlib
from importlib import resources

from pipeline.detection.mllm.backends.base import VerifyRequest
from schemas.media import Feature

PROMPT_VERSION = "v1"
MAX_SIDE_PX = 1024
"""Long side of the original as the model sees it; common vision encoders gain nothing from more."""

_PROMPT = resources.files("pipeline.detection.mllm").joinpath("prompts", f"{PROMPT_VERSION}.md").read_bytes()
PROMPT_SHA256 = hashlib.sha256(_PROMPT).hexdigest()
"""Lower-case hex of the prompt file, for the audit trail."""


def render_prompt(request: VerifyRequest) -> str:
    """The prompt file, then the image's size and the table of measured features.

    Nothing that a producer wrote is in it, nor `scores`: a number that already says "synthetic" would be repeated
    rather than verified.
    """
    stratum = _cell(request.stratum)
    rows = "\n".join(_row(feature, stratum) for feature in request.features) or "| (none measured) | | | |"
    return (
        f"{_PROMPT.decode('utf-8').rstrip()}\n\n"
        f"{_size_line(request.width, request.height)}\n\n"
        f"| feature | value | percentile | stratum |\n|---|---|---|---|\n{rows}\n"
    )


def _size_line(width: int, height: int) -> str:
    line = f"The original measures {width} x {height} pixels"
    if max(width, height) > MAX_SIDE_PX:
        line += f"; image 1 is a copy reduced to {MAX_SIDE_PX} pixels on its long side"
        return f"{line}, image 2 was measured before the reduction."
    return f"{line}; image 1 shows it at full size."


def _row(feature: Feature, stratum: str) -> str:
    percentile = "unknown" if feature.percentile is None else f"{feature.percentile:.1f}"
    return f"| {_cell(feature.name)} | {feature.value:.4g} | {percentile} | {stratum} |"


def _cell(text: str) -> str:
    """One line without the column mark."""
    return " ".join(text.replace("|", "/").split())
