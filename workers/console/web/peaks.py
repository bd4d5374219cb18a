"""The spectral features in plain words, and where on the panel each of them can be seen."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from math import gcd

from pipeline.detection.spectral.panel import CURVE_BOX, HEIGHT_PX, MAP_PX, RESIDUAL_XY, SPECTRUM_XY, WIDTH_PX
from schemas.media import Feature

VIEW_BOX = f"0 0 {WIDTH_PX} {HEIGHT_PX}"
"""Of a drawing that lies over the panel, in the panel's own pixels."""


@dataclass(frozen=True, slots=True)
class Circle:
    """In panel pixels."""

    x: float
    y: float
    r: float


@dataclass(frozen=True, slots=True)
class Box:
    """In panel pixels."""

    x: float
    y: float
    width: float
    height: float


@dataclass(frozen=True, slots=True)
class Peak:
    """A feature of the table under its number. `strange`: how far it is from the middle of photographs, in words."""

    number: int
    feature: Feature
    title: str
    meaning: str
    strange: str
    circles: tuple[Circle, ...] = ()
    boxes: tuple[Box, ...] = ()

    @property
    def label_at(self) -> tuple[float, float] | None:
        """Where on the panel its number stands; None: nowhere."""
        if self.circles:
            first = min(self.circles, key=lambda c: (c.y, c.x))
            return first.x, first.y - first.r - 3
        return (self.boxes[0].x + 14, self.boxes[0].y + 18) if self.boxes else None


@dataclass(frozen=True, slots=True)
class _Words:
    title: str
    meaning: str
    circles: tuple[Circle, ...] = ()
    boxes: tuple[Box, ...] = ()


def peaks(features: tuple[Feature, ...]) -> tuple[Peak, ...]:
    """In the order given; a feature that this release does not know is shown under its own name."""
    return tuple(_peak(number, feature) for number, feature in enumerate(features, 1))


def _peak(number: int, feature: Feature) -> Peak:
    words = describe(feature.name)
    return Peak(number, feature, words.title, words.meaning, _strange(feature), words.circles, words.boxes)


def _strange(feature: Feature) -> str:
    percentile = feature.percentile
    if percentile is None:
        return "No percentile was noted."
    if percentile >= 50.0:
        return f"Higher than in {percentile:.1f} % of the reference photographs."
    return f"Lower than in {100.0 - percentile:.1f} % of the reference photographs."


def describe(name: str) -> _Words:
    """By the feature's name."""
    for pattern, make in _FAMILIES:
        if match := pattern.fullmatch(name):
            return make(match)
    return _Words(name.replace("_", " "), "A feature that this release has no words for.")


_LEFT, _TOP = SPECTRUM_XY
_SPECTRUM = Box(_LEFT, _TOP, MAP_PX, MAP_PX)
_RESIDUAL = Box(*RESIDUAL_XY, MAP_PX, MAP_PX)
_CURVE = Box(CURVE_BOX[0], CURVE_BOX[1], CURVE_BOX[2] - CURVE_BOX[0], CURVE_BOX[3] - CURVE_BOX[1])


def _point(m: int, n: int) -> Circle:
    """The harmonic point m/16, n/16 of the log spectrum; smaller where there are many."""
    radius = 6 if m % 2 or n % 2 else 9
    return Circle(_LEFT + (n / 16 + 0.5) * MAP_PX, _TOP + (m / 16 + 0.5) * MAP_PX, radius)


def _points(wanted: Callable[[int, int], bool]) -> tuple[Circle, ...]:
    span = range(-8, 8)
    return tuple(_point(m, n) for m in span for n in span if (m, n) != (0, 0) and wanted(m, n))


def _of_order(order: int) -> tuple[Circle, ...]:
    return _points(lambda m, n: 16 // gcd(m, n, 16) == order)


def _curve_part(low: float, high: float) -> Box:
    return Box(_CURVE.x + low / 0.5 * _CURVE.width, _CURVE.y, (high - low) / 0.5 * _CURVE.width, _CURVE.height)


def _log_peak(match: re.Match[str]) -> _Words:
    kind, order = match.group(1), int(match.group(2))
    which = "The strongest of the points" if kind == "max" else "The middle one of the points"
    return _Words(
        f"{'highest' if kind == 'max' else 'typical'} peak at odd multiples of 1/{order}",
        f"{which} at odd multiples of 1/{order} of the sampling frequency, over its surroundings. Decoders that "
        "enlarge step by step leave such a grid; so do JPEG blocks at 1/8 and its multiples, and enlarging at 1/2.",
        _of_order(order),
    )


def _harmonic(match: re.Match[str]) -> _Words:
    a, b = 2 * int(match.group(1)), 2 * int(match.group(2))

    def is_one(m: int, n: int) -> bool:
        return (abs(m), abs(n)) in {(a, b), (b, a)}

    return _Words(
        f"peaks at {match.group(1)}/8, {match.group(2)}/8",
        "How far these points of the 8 px grid rise above their surroundings, on average.",
        _points(is_one),
    )


def _band(match: re.Match[str]) -> _Words:
    low, high = float(match.group(1)), float(match.group(2))
    return _Words(
        f"power from {low:g} to {high:g} cycles per pixel",
        "The mean of the red curve here, relative to its value at 0.1; blue is what photographs have.",
        boxes=(_curve_part(low, high),),
    )


def _period(match: re.Match[str]) -> _Words:
    period = int(match.group(1))
    circles = _points(lambda m, n: 0 in (m, n) and (m * period) % 16 == 0 and (n * period) % 16 == 0)
    return _Words(
        f"repetition every {period} px",
        f"The fine detail resembles itself {period} pixels further on, along rows and columns.",
        circles,
    )


def _phase(match: re.Match[str]) -> _Words:
    period, axis = match.group(1), "columns" if match.group(2) == "x" else "rows"
    return _Words(
        f"steps every {period} {axis}",
        f"Neighbouring pixels differ more at one of every {period} {axis} than elsewhere: the edge of a block.",
    )


def _detail(match: re.Match[str]) -> _Words:
    return _Words(
        f"detail at {match.group(1)} px against {match.group(2)} px",
        "How much fine detail of the brightness is left beside coarser detail.",
        boxes=(_RESIDUAL,),
    )


def _fixed(title: str, meaning: str, *boxes: Box) -> Callable[[re.Match[str]], _Words]:
    return lambda _match: _Words(title, meaning, boxes=boxes)


def _colour(match: re.Match[str]) -> _Words:
    return _Words(
        f"colour: {match.group(0).replace('_', ' ')}",
        "Of the colour differences red - green and blue - yellow, which the panel does not show.",
    )


def _families() -> Iterator[tuple[str, Callable[[re.Match[str]], _Words]]]:
    yield r"log_peak_(max|median)_1_(\d+)", _log_peak
    yield r"harmonic_(\d)_(\d)_of_8", _harmonic
    yield r"radial_(0\.\d+)_(0\.\d+)", _band
    yield r"autocorrelation_period_(\d+)", _period
    yield r"phase_peak_(\d+)_([xy])", _phase
    yield r"phase_peak_odd_(\d+)_([xy])", _phase
    yield r"luma_detail_(\d+)px_to_(\d+)px", _detail
    yield r"(red_green|blue_yellow|colour)_.*", _colour
    yield (
        r"radial_slope_alpha",
        _fixed("steepness of the curve", "How fast the power falls as the frequency rises.", _curve_part(0.1, 0.45)),
    )
    yield (
        r"top_octave_residual",
        _fixed(
            "departure in the top octave",
            "How far the curve lies above or below the straight law in the upper half of the frequencies.",
            _curve_part(0.25, 0.5),
        ),
    )
    yield r"radial_roughness", _fixed("roughness of the curve", "How much the curve bends up and down.", _CURVE)
    yield (
        r"angular_(spread|axis_excess|diagonal_excess)",
        _fixed("unequal directions", "The power differs more between directions than in photographs.", _SPECTRUM),
    )
    yield (
        r"spectral_residual_(std|skewness|max)",
        _fixed("unevenness of the log spectrum", "What stands out of the smoothed log spectrum.", _SPECTRUM),
    )
    yield (
        r"npr_.*",
        _fixed("relations of neighbouring pixels", "Differences inside blocks of 2 x 2 pixels.", _RESIDUAL),
    )
    yield (
        r"cross_difference_(level|ratio|shape)",
        _fixed("residual energy", "How much is left of the pixels without their smooth part.", _RESIDUAL),
    )
    yield (
        r"comb_strength(_off_grid)?",
        _fixed(
            "comb of lines",
            "Evenly spaced lines along both axes: a grid of 8 px that was resized afterwards.",
            Box(_LEFT, _TOP + MAP_PX / 2 - 8, MAP_PX, 16),
            Box(_LEFT + MAP_PX / 2 - 8, _TOP, 16, MAP_PX),
        ),
    )


_FAMILIES = tuple((re.compile(pattern), make) for pattern, make in _families())
