"""The dashboard's charts, from what the machine decided."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime, timedelta

from schemas.decision import Outcome
from schemas.types import StageName
from workers.console.domain.models import FlowStats
from workers.console.web.charts import Chart, Funnel, Tier, funnel, histogram, stacked
from workers.explain.words import stage_name

_MAX_COLUMNS = 48
_BINS = 20
_BOTTOM_UP = (Outcome.PASS, Outcome.ESCALATE, Outcome.BLOCK)


@dataclass(frozen=True, slots=True)
class Figures:
    """`scores` by outcome, those without any score left out; `column` says what one column of `over_time` spans."""

    total: int
    tiers: tuple[Tier, ...]
    funnel: Funnel
    over_time: Chart
    column: str
    scores: tuple[tuple[Outcome, int, Chart], ...]


def figures(flow: FlowStats, now: datetime) -> Figures:
    """Of what was decided since `flow.since`."""
    stages = tiers(flow)
    step = _step_hours(flow.since, now)
    return Figures(
        total=sum(cell.count for cell in flow.cells),
        tiers=stages,
        funnel=funnel(stages),
        over_time=stacked(list(_columns(flow, now, step))),
        column="hour" if step == 1 else f"{step} hours",
        scores=tuple(_scores(flow)),
    )


def tiers(flow: FlowStats) -> tuple[Tier, ...]:
    """What each stage let go and handed on: all that left later had entered before."""
    left = {(cell.stage, cell.outcome): cell.count for cell in flow.cells}
    later = 0
    found: list[Tier] = []
    for stage in reversed(StageName):
        out = {outcome: left.get((stage, outcome), 0) for outcome in Outcome}
        name = stage_name(stage)
        found.append(Tier(name, out[Outcome.PASS], out[Outcome.BLOCK], out[Outcome.ESCALATE], later))
        later = found[-1].entered
    return tuple(reversed(found))


def _step_hours(since: datetime, now: datetime) -> int:
    hours = max(1.0, (now - since) / timedelta(hours=1))
    return next((step for step in (1, 2, 3, 6, 12) if hours / step <= _MAX_COLUMNS), 24)


def _columns(flow: FlowStats, now: datetime, step: int) -> Iterator[tuple[str, list[tuple[str, int]]]]:
    """Every column of the span, also where nothing was decided."""
    start = flow.since.replace(minute=0, second=0, microsecond=0)
    counts: Counter[tuple[int, Outcome]] = Counter()
    for hour in flow.hours:
        counts[int((hour.at - start) / timedelta(hours=step)), hour.outcome] += hour.count
    for at in range(int((now - start) / timedelta(hours=step)) + 1):
        begins = start + timedelta(hours=step * at)
        label = begins.strftime("%H:%M" if step == 1 and now - start < timedelta(hours=25) else "%d %b %H:%M")
        yield label, [(outcome.value, counts[at, outcome]) for outcome in _BOTTOM_UP]


def _scores(flow: FlowStats) -> Iterator[tuple[Outcome, int, Chart]]:
    for outcome in _BOTTOM_UP:
        bins = [0] * _BINS
        for found in flow.scores:
            if found.outcome is outcome:
                bins[min(_BINS - 1, round(found.low * _BINS))] += found.count
        yield outcome, sum(bins), histogram(bins, outcome.value)
