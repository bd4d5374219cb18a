"""What the MLLM must answer.

The model's JSON Schema stays inside the subset that grammar back ends really enforce: flat, enums, bounded
arrays and strings. Numeric ranges are checked again in Python.
"""

from __future__ import annotations

from enum import StrEnum
from typing import Annotated, ClassVar

from pydantic import Field

from schemas.base import Part, Record
from schemas.types import Probability, ShortText, Text


class Hypothesis(StrEnum):
    """How the image came to be, as far as the model can tell."""

    BASE_DIFFUSION = "base_diffusion"
    LORA_TUNED = "lora_tuned"
    GAN = "gan"
    AUTHENTIC = "authentic"
    UNDETERMINED = "undetermined"


class Band(StrEnum):
    """A third of the radial frequency axis."""

    LOW = "low"
    MID = "mid"
    HIGH = "high"


class Quadrant(StrEnum):
    """Where in the spectral panel or the image."""

    TOP_LEFT = "top_left"
    TOP_RIGHT = "top_right"
    BOTTOM_LEFT = "bottom_left"
    BOTTOM_RIGHT = "bottom_right"
    CENTRE = "centre"
    WHOLE = "whole"


class EvidenceSource(StrEnum):
    """Which of the two pictures shows it."""

    IMAGE = "image"
    SPECTRUM = "spectrum"


PixelCount = Annotated[int, Field(ge=0, le=65_535)]
Region = Annotated[tuple[PixelCount, ...], Field(min_length=4, max_length=4)]
"""Left, top, width, height in pixels of the image as the model was shown it."""


class Observation(Part):
    """One thing seen, and where. `feature` cites a row of the table of measured features."""

    source: EvidenceSource
    band: Band | None
    quadrant: Quadrant
    feature: ShortText | None = None
    region: Region | None = None
    observation: Text


class ForensicReport(Record):
    """Observations first, verdict last, so that the verdict follows from what was written before it."""

    event_type: ClassVar[str] = "dev.mediasieve.forensics.v1"

    observations: Annotated[tuple[Observation, ...], Field(max_length=12)]
    spatial_correlation: Text
    alternative_explanations: Annotated[tuple[Text, ...], Field(max_length=4)]
    hypothesis: Hypothesis
    rank_guess: Annotated[int, Field(ge=1, le=1024)] | None
    confidence: Probability
    primary_evidence: Text
