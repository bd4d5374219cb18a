"""What a verifier is asked, what it answers, and the one way in which it is absent."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

from schemas.decision import ReasonCode
from schemas.forensics import ForensicReport
from schemas.media import Feature, StageScore

_PNG_SIGNATURE = b"\x89PNG\r\n\x1a\n"
MAX_DETAIL_CHARS = 1024
"""`schemas.decision.Reason.detail` holds no more."""


class ServerUnavailable(Exception):
    """The model server is not there or takes no work now: the caller defers, the item is not at fault."""


@dataclass(frozen=True, slots=True, kw_only=True)
class VerifyRequest:
    """One image and everything measured about it.

    `original` is the media file's bytes, `panel_png` the spectral panel, `width` and `height` the original's
    size in pixels, `scores` what the earlier stages said.

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

    def __post_init__(self) -> None:
        if not self.original:
            raise ValueError("VerifyRequest.original is empty; pass the media's bytes")
        if not self.panel_png.startswith(_PNG_SIGNATURE):
            raise ValueError("VerifyRequest.panel_png is not a PNG; pass render_panel's result")
        if self.width < 1 or self.height < 1:
            raise ValueError(f"VerifyRequest size is {self.width}x{self.height} px; pass the original's size")


@dataclass(frozen=True, slots=True, kw_only=True)
class VerifyResult:
    """Either a validated report or the reason why there is none. `raw_text` is the model's answer as it came.

    Raises:
        ValueError: both or neither of `report` and `failure`.
    """

    report: ForensicReport | None = None
    failure: ReasonCode | None = None
    detail: str = ""
    model: str
    raw_text: str = ""
    duration_s: float

    def __post_init__(self) -> None:
        if (self.report is None) == (self.failure is None):
            raise ValueError("VerifyResult needs exactly one of `report` and `failure`")
        if len(self.detail) > MAX_DETAIL_CHARS:
            object.__setattr__(self, "detail", self.detail[: MAX_DETAIL_CHARS - 1] + "…")


class Verifier(Protocol):
    """A multimodal model behind one call. `verify` is thread-safe; its concurrency is the caller's."""

    @property
    def model(self) -> str:
        """Name and revision for the decision's `StageScore.model`."""

    def open(self) -> None:
        """Take connections or load weights. A server that is down now shows in `verify`, not here."""

    def verify(self, request: VerifyRequest) -> VerifyResult:
        """One report or one failure.

        Raises:
            ServerUnavailable: nothing answered; try again later.
        """

    def close(self) -> None:
        """Give back what `open` took; also after a failed `open`."""
