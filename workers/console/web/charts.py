"""Numbers become the geometry of small SVG charts; the templates draw it with the page's own colours."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from math import log10

WIDTH = 640.0


@dataclass(frozen=True, slots=True)
class Rect:
    """In units of the drawing. `kind` is the CSS class, `said` what a pointer and a screen reader are told."""

    x: float
    y: float
    width: float
    height: float
    kind: str
    said: str


@dataclass(frozen=True, slots=True)
class Tick:
    """A label at a place of an axis."""

    at: float
    text: str


@dataclass(frozen=True, slots=True)
class Chart:
    """A drawing of `width` x `height` units with bars and two axes."""

    width: float
    height: float
    bars: tuple[Rect, ...]
    x_ticks: tuple[Tick, ...] = ()
    y_ticks: tuple[Tick, ...] = ()
    is_empty: bool = False


@dataclass(frozen=True, slots=True)
class Tier:
    """What one stage did: `entered` is the sum of the others."""

    name: str
    passed: int
    blocked: int
    escalated: int
    went_on: int

    @property
    def entered(self) -> int:
        """All that reached the stage."""
        return self.passed + self.blocked + self.escalated + self.went_on


@dataclass(frozen=True, slots=True)
class Band:
    """One tier of the funnel: its trapezium, and what left it there."""

    points: str
    text_y: float
    tier: Tier
    share: float


@dataclass(frozen=True, slots=True)
class Funnel:
    """The tiers below each other, as wide as what enters them."""

    width: float
    height: float
    bands: tuple[Band, ...]


_TIER_HEIGHT = 76.0
_LEAST_WIDTH = 6.0


def funnel(tiers: Sequence[Tier]) -> Funnel:
    """Widths follow the square root of the share, so that a tier which a hundredth reaches can still be seen."""
    whole = max(1, tiers[0].entered) if tiers else 1
    widths = [max(_LEAST_WIDTH, WIDTH * (tier.entered / whole) ** 0.5) for tier in tiers]
    lower = [*widths[1:], max(_LEAST_WIDTH, widths[-1] * 0.6)] if tiers else []
    bands = tuple(
        Band(
            _trapezium(at * _TIER_HEIGHT, top, bottom), at * _TIER_HEIGHT + _TIER_HEIGHT / 2, tier, tier.entered / whole
        )
        for at, (tier, top, bottom) in enumerate(zip(tiers, widths, lower, strict=True))
    )
    return Funnel(WIDTH, _TIER_HEIGHT * len(tiers), bands)


def stacked(columns: Sequence[tuple[str, Sequence[tuple[str, int]]]], height: float = 150.0) -> Chart:
    """Columns in time, each (label, ((kind, count), ...)) from the bottom up."""
    top = nice_ceiling(max((sum(n for _, n in parts) for _, parts in columns), default=0))
    wide = WIDTH / max(1, len(columns))
    bars: list[Rect] = []
    for at, (label, parts) in enumerate(columns):
        y = height
        for kind, count in parts:
            tall = height * count / top
            y -= tall
            if count:
                bars.append(Rect(at * wide + wide * 0.1, y, wide * 0.8, tall, kind, f"{label}: {count:,} {kind}"))
    every = max(1, -(-len(columns) // 6))
    x_ticks = tuple(Tick((at + 0.5) * wide, columns[at][0]) for at in range(0, len(columns), every))
    return Chart(WIDTH, height, tuple(bars), x_ticks, _y_ticks(top, height), not bars)


def histogram(counts: Sequence[int], kind: str, height: float = 110.0) -> Chart:
    """Of scores from 0 to 1 in equal bins."""
    top = nice_ceiling(max(counts, default=0))
    bins = max(1, len(counts))
    wide = WIDTH / bins
    bars = tuple(
        Rect(
            at * wide + 1,
            height * (1 - count / top),
            wide - 2,
            height * count / top,
            kind,
            f"{at / bins:.2f} to {(at + 1) / bins:.2f}: {count:,}",
        )
        for at, count in enumerate(counts)
        if count
    )
    x_ticks = tuple(Tick(WIDTH * at / 5, f"{at / 5:g}") for at in range(6))
    return Chart(WIDTH, height, bars, x_ticks, _y_ticks(top, height), not bars)


def nice_ceiling(value: float) -> float:
    """The next of 1, 2, 5, 10, 20, ... that is not below the value."""
    if value <= 1:
        return 1.0
    power = 10.0 ** int(log10(value))
    return next(power * step for step in (1, 2, 5, 10) if power * step >= value)


def _y_ticks(top: float, height: float) -> tuple[Tick, ...]:
    return tuple(Tick(height * (1 - share), f"{top * share:,.4g}") for share in (0.0, 0.5, 1.0) if top * share % 1 == 0)


def _trapezium(y: float, top: float, bottom: float) -> str:
    middle, low = WIDTH / 2, y + _TIER_HEIGHT - 4
    corners = (
        (middle - top / 2, y),
        (middle + top / 2, y),
        (middle + bottom / 2, low),
        (middle - bottom / 2, low),
    )
    return " ".join(f"{x:.1f},{v:.1f}" for x, v in corners)
