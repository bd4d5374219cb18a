"""What the model is asked: the versioned texts, and what is appended to them of one image.

Nothing that a producer wrote is ever in it (no name, address, label or metadata), nor any score of an earlier stage: a
number that already says "synthetic" would be repeated rather than verified.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from dataclasses import dataclass
from importlib import resources

from pipeline.detection.bundle import Bundle, BundleError
from pipeline.detection.mllm.backends.base import VerifyRequest
from pipeline.detection.mllm.images import MAX_SIDE_PX, Pictures
from schemas.media import Feature

PROMPT_VERSION = "v3"
REASON_FILE, REPORT_FILE = "reason.md", "report.md"
PREFILL = "Let's examine the style and the synthesis artifacts"
"""How the free examination begins: arXiv:2506.11031 reports up to 24 % better macro-F1 for such a start."""

_MAX_FAULT_CHARS = 600


@dataclass(frozen=True, slots=True)
class Prompts:
    """The two texts of a dialogue: `reason` asks for the free examination, `report` for the report."""

    version: str
    reason: str
    report: str

    @classmethod
    def packaged(cls) -> Prompts:
        """Those that come with this package."""
        folder = resources.files("pipeline.detection.mllm").joinpath("prompts", PROMPT_VERSION)
        texts = [folder.joinpath(name).read_text("utf-8") for name in (REASON_FILE, REPORT_FILE)]
        return cls(PROMPT_VERSION, *texts)

    @classmethod
    def of(cls, bundle: Bundle) -> Prompts:
        """The bundle's own, or the package's where it has none.

        Raises:
            BundleError: a prompt that is no UTF-8 or empty.
        """
        entry = bundle.manifest.mllm
        if entry is None or entry.prompt_reason is None or entry.prompt_report is None:
            return cls.packaged()
        texts = [_read(bundle, name) for name in (entry.prompt_reason, entry.prompt_report)]
        return cls(bundle.version, *texts)

    @property
    def digests(self) -> dict[str, str]:
        """File -> lower-case hex sha256 of its UTF-8, for the trace."""
        return {REASON_FILE: _sha256(self.reason), REPORT_FILE: _sha256(self.report)}

    @property
    def sha256(self) -> str:
        """One digest of both, to compare dialogues by: of the two digests in hex, one after the other."""
        return _sha256("".join(self.digests.values()))


def reason_question(prompts: Prompts, request: VerifyRequest, pictures: Pictures) -> str:
    """The fixed text first, so that a server's prefix cache serves it; then the pictures' places and the table."""
    return f"{prompts.reason.rstrip()}\n\n{_picture_list(request, pictures)}\n\n{_table(request)}\n"


def report_question(prompts: Prompts) -> str:
    """The second turn; it follows the first in one message where there is a single pass."""
    return prompts.report


def retry_question(fault: str) -> str:
    """After a report that was not accepted."""
    return (
        f"The report was not accepted: {fault[:_MAX_FAULT_CHARS]}\n\n"
        "Write the whole report again as one JSON object of the same schema and nothing else. Correct this fault, "
        "keep what you found, and be brief."
    )


def _picture_list(request: VerifyRequest, pictures: Pictures) -> str:
    width, height = pictures.shown_size
    reduced = "at full size"
    if pictures.scale < 1.0:
        reduced = f"a copy of {request.width} x {request.height} pixels reduced to {MAX_SIDE_PX} on its long side"
    lines = [
        f"Image 1: {width} x {height} pixels, {reduced}.",
        "Image 2: its spectral panel, measured at full size.",
    ]
    for number, crop in enumerate(pictures.crops, start=3):
        place = ", ".join(map(str, pictures.in_image_1(crop.box)))
        lines.append(f"Image {number}: a detail at native resolution; in image 1 it is the rectangle [{place}].")
    return "\n".join(lines)


def _table(request: VerifyRequest) -> str:
    rows = "\n".join(_rows(request.features, _cell(request.stratum))) or "| (none measured) | | | |"
    return f"| feature | value | percentile | stratum |\n|---|---|---|---|\n{rows}"


def _rows(features: Iterable[Feature], stratum: str) -> Iterable[str]:
    for feature in features:
        percentile = "unknown" if feature.percentile is None else f"{feature.percentile:.1f}"
        yield f"| {_cell(feature.name)} | {feature.value:.4g} | {percentile} | {stratum} |"


def _cell(text: str) -> str:
    """One line without the column mark."""
    return " ".join(text.replace("|", "/").split())


def _read(bundle: Bundle, name: str) -> str:
    path = bundle.path(name)
    try:
        text = path.read_text("utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise BundleError(f"{path}: {error}; a prompt is UTF-8 text") from error
    if not text.strip():
        raise BundleError(f"{path}: empty; write the prompt, or leave `mllm` out of bundle.json for the package's own")
    return text


def _sha256(text: str) -> str:
    return hashlib.sha256(text.encode("utf-8")).hexdigest()
