"""Contrast of what is no text: borders of fields, focus, bars of charts (WCAG 2.2, 1.4.11), from the style sheet.

Contrast of texts is measured in a browser, in tests/integration/test_console_looks.py.
"""

from __future__ import annotations

import re
from pathlib import Path

import pytest

CSS = (Path(__file__).parents[2] / "workers/console/web/static/console.css").read_text("utf-8")
COLOURS = {
    name: (light, dark)
    for name, light, dark in re.findall(r"--([a-z-]+): light-dark\((#[0-9a-f]+), (#[0-9a-f]+)\)", CSS)
}


def luminance(colour: str) -> float:
    digits = colour[1:] if len(colour) == 7 else "".join(2 * digit for digit in colour[1:])
    red, green, blue = (int(digits[at : at + 2], 16) / 255 for at in (0, 2, 4))

    def linear(value: float) -> float:
        return value / 12.92 if value <= 0.04045 else ((value + 0.055) / 1.055) ** 2.4

    return 0.2126 * linear(red) + 0.7152 * linear(green) + 0.0722 * linear(blue)


def contrast(one: str, other: str) -> float:
    dark, light = sorted((luminance(one), luminance(other)))
    return (light + 0.05) / (dark + 0.05)


def test_the_formula_is_that_of_wcag() -> None:
    assert contrast("#fff", "#000000") == pytest.approx(21.0)
    assert contrast("#777777", "#ffffff") == pytest.approx(4.478, abs=0.001)


@pytest.mark.parametrize("scheme", [0, 1])
@pytest.mark.parametrize(
    ("drawn", "ground"),
    [
        *((border, ground) for border in ("edge", "link") for ground in ("page", "card")),
        *((bar, "page") for bar in ("good", "bad", "value")),
        ("value", "track"),
        ("soft", "track"),
    ],
)
def test_what_must_be_seen_stands_out(drawn: str, ground: str, scheme: int) -> None:
    assert contrast(COLOURS[drawn][scheme], COLOURS[ground][scheme]) >= 3.0


@pytest.mark.parametrize("scheme", [0, 1])
def test_the_bars_of_escalations_stand_out(scheme: int) -> None:
    (pair,) = set(re.findall(r"\.chart \.escalate.*?fill: light-dark\((#[0-9a-f]+), (#[0-9a-f]+)\)", CSS))
    assert contrast(pair[scheme], COLOURS["page"][scheme]) >= 3.0
