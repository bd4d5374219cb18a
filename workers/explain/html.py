"""The story as one HTML file that needs nothing else: no script, no font, no request."""

from __future__ import annotations

import json
from functools import cache
from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup

from workers.explain.pictures import Pictures
from workers.explain.story import Side, Story
from workers.explain.times import milliseconds, moment, size
from workers.explain.visible import visible
from workers.explain.words import outcome_words, stage_name

TEMPLATE = "page.html.jinja"
_TEMPLATES = Path(__file__).parent
SIDES = (
    (Side.OUTCOME, "Why this outcome"),
    (Side.AGAINST_BLOCK, "What kept it from a block"),
    (Side.AGAINST_PASS, "What kept it from a pass"),
    (Side.ORDER, "In which order people look at it"),
)
_LABEL_WIDTH = 0.2
"""Of the longest label of a gauge, as a share of the gauge's width."""


def render(story: Story, pictures: Pictures) -> str:
    """The page. Every value is escaped, and characters that would hide or reorder text are written out."""
    return (
        _environment()
        .get_template(TEMPLATE)
        .render(
            story=story,
            verdict=story.verdict,
            pictures=pictures,
            sides=SIDES,
            outcome=outcome_words(story.outcome, story.risk),
            outcome_words=outcome_words,
            stage_name=stage_name,
        )
    )


def label_rows(positions: list[float]) -> list[int]:
    """A line for each label of a gauge so that none covers another; `positions` rise from 0 to 1."""
    spans = [(p - _LABEL_WIDTH, p) if label_is_left(p) else (p, p + _LABEL_WIDTH) for p in positions]
    rows: list[int] = []
    for at, (start, end) in enumerate(spans):
        taken = {rows[i] for i in range(at) if spans[i][0] < end and start < spans[i][1]}
        rows.append(next(row for row in range(at + 1) if row not in taken))
    return rows


def label_is_left(position: float) -> bool:
    """Near the right end of a gauge a label ends at its mark instead of beginning there."""
    return position > 1.0 - _LABEL_WIDTH


@cache
def _environment() -> Environment:
    environment = Environment(
        loader=FileSystemLoader(_TEMPLATES),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        finalize=_finalize,
    )
    environment.filters.update(
        moment=moment, ms=milliseconds, size=size, pretty=_pretty, rows=label_rows, is_left=label_is_left, words=_words
    )
    return environment


def _finalize(value: Any) -> Any:
    """Jinja calls it on every value that it writes, before it escapes; markup of the template itself is left alone."""
    return visible(value) if isinstance(value, str) and not isinstance(value, Markup) else value


def _pretty(value: Any) -> str:
    return json.dumps(value, indent=2, ensure_ascii=False)


def _words(value: str) -> str:
    return value.replace("_", " ")
