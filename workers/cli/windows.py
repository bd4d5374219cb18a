"""Times on the command line: `2026-01-31T12:00:00Z`, or how long ago: `7d`, `36h`, `90m`."""

from __future__ import annotations

import re
from datetime import UTC, datetime, timedelta
from typing import Annotated

import typer

from pipeline.evaluation.monitoring.recorded import Window

_AGO = re.compile(r"(\d{1,5})([mhd])")
_UNITS = {"m": "minutes", "h": "hours", "d": "days"}

Since = Annotated[str, typer.Option(help="Begin, by admission: a time with zone, or an age such as 7d.")]
Until = Annotated[str, typer.Option(help="End; leave out the last hour, whose media may still be on its way.")]


def moment(text: str, option: str, now: datetime) -> datetime:
    """Raises BadParameter: neither a time with its zone nor an age."""
    ago = _AGO.fullmatch(text)
    if ago:
        return now - timedelta(**{_UNITS[ago[2]]: int(ago[1])})
    try:
        found = datetime.fromisoformat(text)
    except ValueError:
        found = None
    if found is None or found.tzinfo is None:
        raise typer.BadParameter(
            f"{text!r}: give a time with its zone, such as 2026-01-31T12:00:00Z, or an age: 7d, 36h, 90m",
            param_hint=option,
        )
    return found.astimezone(UTC)


def window(since: str, until: str, now: datetime | None = None) -> Window:
    """Raises BadParameter: also for an end that is not after the begin."""
    at = now or datetime.now(UTC)
    begin, end = moment(since, "--since", at), moment(until, "--until", at)
    if end <= begin:
        raise typer.BadParameter(f"{until!r} is not after --since {since!r}", param_hint="--until")
    return Window(begin, end)
