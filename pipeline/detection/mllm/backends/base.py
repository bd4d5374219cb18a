"""What a verifier is asked, and what it answers."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

from pipeline.detection.mllm.trace import Trace
from pipeline.detection.mllm.verdict import Opinion
from schemas.decision import ReasonCode
from schemas.forensics import ForensicReport
from schemas.media import Feature, StageScore

_PNG_SIGNATURE = b"\x89PNG\r\n\x1a\n"
MAX_DETAIL_CHARS = 1024
"""`schemas.decision.Reason.detail` holds no more."""


@dataclass(frozen=True, slots=True, kw_only=True)
class VerifyRequest:
    """One image and everything measured about it.

    `original` is the media file's bytes, `panel_png` the spectral panel, `width` and `height` the original's
    size in pixels, `scores` what the earlier stages said; they are for people, no model is told them. `panel_sha256`:
    the panel's digest where it was checked already; None: it is taken again.

    Raises:
        ValueError: an image or the size is missing; a verifier that sees one picture only cannot compare.
    """

    original: bytes
    original_content_type: str | None
    panel_png: bytes
    features: tuple[Feature, ...]
    stratum: str
    scores: tuple[StageScore, ...]
    width: int
    height: int
    panel_sha256: str | None = None

    def __post_init__(self) -> None:
        if not self.original:
            raise ValueError("VerifyRequest.original is empty; pass the media's bytes")
        if not self.panel_png.startswith(_PNG_SIGNATURE):
            raise ValueError("VerifyRequest.panel_png is not a PNG; pass render_panel's result")
        if self.width < 1 or self.height < 1:
            raise ValueError(f"VerifyRequest size is {self.width}x{self.height} px; pass the original's size")


@dataclass(frozen=True, slots=True, kw_only=True)
class VerifyResult:
    """Either a validated report with the opinion read from it, or the reason why there is none.

    `trace`: what was asked and answered; None when no model was asked.

    Raises:
        ValueError: both or neither of `report` and `failure`, or a report without an opinion.
    """

    report: ForensicReport | None = None
    opinion: Opinion | None = None
    failure: ReasonCode | None = None
    detail: str = ""
    model: str
    trace: Trace | None = None
    duration_s: float

    def __post_init__(self) -> None:
        if (self.report is None) == (self.failure is None):
            raise ValueError("VerifyResult needs exactly one of `report` and `failure`")
        if (self.report is None) != (self.opinion is None):
            raise ValueError("VerifyResult needs an `opinion` with a `report` and none without")
        if len(self.detail) > MAX_DETAIL_CHARS:
            object.__setattr__(self, "detail", self.detail[: MAX_DETAIL_CHARS - 1] + "…")


class Verifier(Protocol):
    """An image and its measurements in, an opinion out. `verify` is thread-safe; its concurrency is the caller's."""

    @property
    def model(self) -> str:
        """Name and revision for the decision's `StageScore.model`."""

    def open(self) -> None:
        """Take connections or load weights. A server that is down now shows in `verify`, not here."""

    def verify(self, request: VerifyRequest) -> VerifyResult:
        """One report or one failure.

        Raises:
            chat.ServerUnavailable: nothing answered; try again later.
        """

    def close(self) -> None:
        """Give back what `open` took; also after a failed `open`."""
