"""What the MLLM cites, as places on the image, on the panel and in the table of features."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from math import cos, pi, sin
from typing import Any

from pydantic import BaseModel, ConfigDict, ValidationError

from pipeline.detection.spectral.panel import MAP_PX, SPECTRUM_XY
from schemas.forensics import Band, EvidenceSource, Quadrant
from workers.console.web.peaks import Box, Peak

_CENTRE = (SPECTRUM_XY[0] + MAP_PX / 2, SPECTRUM_XY[1] + MAP_PX / 2)
_THIRD = MAP_PX / 6
"""Radius of a third of the way from frequency 0 to Nyquist, in panel pixels."""

_RINGS = {Band.LOW: (0.0, _THIRD), Band.MID: (_THIRD, 2 * _THIRD), Band.HIGH: (2 * _THIRD, 3 * _THIRD)}
_QUARTERS = {
    Quadrant.TOP_LEFT: pi,
    Quadrant.TOP_RIGHT: 1.5 * pi,
    Quadrant.BOTTOM_RIGHT: 0.0,
    Quadrant.BOTTOM_LEFT: 0.5 * pi,
}
"""Where each quarter begins, clockwise as the y axis of a picture points down."""


class _Observation(BaseModel):
    """Of a report of any release: what is not known is left out, never refused."""

    model_config = ConfigDict(frozen=True, extra="ignore")

    source: EvidenceSource
    band: Band | None = None
    quadrant: Quadrant
    feature: str | None = None
    region: tuple[int, int, int, int] | None = None
    observation: str


@dataclass(frozen=True, slots=True)
class Citation:
    """One observation under its letter. `path`: a drawing over the panel; `box`: over the image of 1,024 px."""

    letter: str
    is_spectral: bool
    where: str
    text: str
    peak: int | None
    path: str | None = None
    box: Box | None = None


@dataclass(frozen=True, slots=True)
class Piece:
    """A part of an answer; `peak`: the number of the feature that it names."""

    text: str
    peak: int | None = None


def citations(report: dict[str, Any] | None, found: Sequence[Peak]) -> tuple[Citation, ...]:
    """Of the report's observations that can be read; the others stand in the report itself."""
    observations = (report or {}).get("observations")
    if not isinstance(observations, list):
        return ()
    numbers = {peak.feature.name: peak.number for peak in found}
    return tuple(_citation(at, seen, numbers) for at, seen in enumerate(_readable(observations)))


def pieces(text: str, found: Sequence[Peak]) -> tuple[Piece, ...]:
    """An answer, cut where it names a feature of the table."""
    numbers = {peak.feature.name: peak.number for peak in found}
    if not numbers:
        return (Piece(text),)
    longest_first = sorted(numbers, key=len, reverse=True)
    pattern = re.compile(rf"(?<![A-Za-z0-9_])({'|'.join(map(re.escape, longest_first))})(?![A-Za-z0-9_])")
    parts = pattern.split(text)
    return tuple(Piece(part, numbers[part] if at % 2 else None) for at, part in enumerate(parts) if part)


def _readable(observations: list[Any]) -> Iterator[_Observation]:
    for observation in observations:
        try:
            yield _Observation.model_validate(observation)
        except ValidationError:
            continue


def _citation(at: int, seen: _Observation, numbers: dict[str, int]) -> Citation:
    is_spectral = seen.source is EvidenceSource.SPECTRUM
    return Citation(
        letter=chr(ord("A") + at % 26),
        is_spectral=is_spectral,
        where=_where(seen),
        text=seen.observation,
        peak=numbers.get(seen.feature or ""),
        path=_sector(seen.band, seen.quadrant) if is_spectral else None,
        box=Box(*seen.region) if seen.region is not None and not is_spectral else None,
    )


def _where(seen: _Observation) -> str:
    place = seen.quadrant.value.replace("_", " ")
    if seen.source is EvidenceSource.IMAGE:
        return f"image, {place}" + (f", {seen.region[2]} x {seen.region[3]} px" if seen.region else "")
    band = f", {seen.band.value} band" if seen.band else ""
    return f"spectrum, {place}{band}" + (f", {seen.feature}" if seen.feature else "")


def _sector(band: Band | None, quadrant: Quadrant) -> str:
    """A quarter of the ring of that band, or the ring itself; without a band from the centre to Nyquist."""
    inner, outer = _RINGS[band] if band else (0.0, 3 * _THIRD)
    start = _QUARTERS.get(quadrant)
    if start is None:
        return _ring(outer) + (_ring(inner) if inner else "")
    end = start + pi / 2
    (ax, ay), (bx, by) = _at(outer, start), _at(outer, end)
    (cx, cy), (dx, dy) = _at(inner, end), _at(inner, start)
    back = f"A{inner:.1f} {inner:.1f} 0 0 0 {dx:.1f} {dy:.1f}" if inner else ""
    return f"M{ax:.1f} {ay:.1f}A{outer:.1f} {outer:.1f} 0 0 1 {bx:.1f} {by:.1f}L{cx:.1f} {cy:.1f}{back}Z"


def _ring(radius: float) -> str:
    x, y = _CENTRE
    half = f"A{radius:.1f} {radius:.1f} 0 0 1"
    return f"M{x - radius:.1f} {y:.1f}{half} {x + radius:.1f} {y:.1f}{half} {x - radius:.1f} {y:.1f}Z"


def _at(radius: float, angle: float) -> tuple[float, float]:
    return _CENTRE[0] + radius * cos(angle), _CENTRE[1] + radius * sin(angle)
