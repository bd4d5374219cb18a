"""Whether a report speaks of what the model was shown: each citation must exist, each place must be in the image."""

from __future__ import annotations

from collections.abc import Collection, Iterator

from pipeline.detection.mllm.report import ReportError
from schemas.forensics import EvidenceSource, ForensicReport, Observation, Quadrant

_HALVES = {
    Quadrant.TOP_LEFT: (0.0, 0.0, 0.5, 0.5),
    Quadrant.TOP_RIGHT: (0.5, 0.0, 1.0, 0.5),
    Quadrant.BOTTOM_LEFT: (0.0, 0.5, 0.5, 1.0),
    Quadrant.BOTTOM_RIGHT: (0.5, 0.5, 1.0, 1.0),
    Quadrant.CENTRE: (0.25, 0.25, 0.75, 0.75),
    Quadrant.WHOLE: (0.0, 0.0, 1.0, 1.0),
}
"""Left, top, right, bottom as shares of the image."""


def check_grounding(report: ForensicReport, features: Collection[str], shown_size: tuple[int, int]) -> None:
    """Check every observation against the request.

    Args:
        report: parsed and free of contradictions in itself.
        features: names in the table that the model was given.
        shown_size: width and height of image 1 in pixels.

    Raises:
        ReportError: names each observation that is not grounded, and the rule.
    """
    faults = [
        f"observations[{number}].{fault}"
        for number, seen in enumerate(report.observations)
        for fault in (*_uncited(seen, features), *_misplaced(seen, shown_size))
    ]
    if faults:
        raise ReportError("; ".join(faults))


def _uncited(seen: Observation, features: Collection[str]) -> Iterator[str]:
    spectral = seen.source is EvidenceSource.SPECTRUM
    if seen.feature is not None and seen.feature not in features:
        yield "feature: is not in the table"
    if spectral and seen.band is None:
        yield "band: must be low, mid or high for source spectrum"
    if not spectral and seen.band is not None:
        yield "band: must be null for source image"
    if spectral and seen.region is not None:
        yield "region: must be null for source spectrum; it is a place in image 1"


def _misplaced(seen: Observation, shown_size: tuple[int, int]) -> Iterator[str]:
    if seen.region is None:
        return
    (left, top, wide, high), (width, height) = seen.region, shown_size
    if wide < 1 or high < 1 or left + wide > width or top + high > height:
        yield f"region: {list(seen.region)} is not inside image 1 of {width} x {height} pixels"
        return
    x0, y0, x1, y1 = _HALVES[seen.quadrant]
    if left >= x1 * width or left + wide <= x0 * width or top >= y1 * height or top + high <= y0 * height:
        yield f"region: {list(seen.region)} does not touch the quadrant {seen.quadrant.value}"
