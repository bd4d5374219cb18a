"""`mediasieve audit-sample`: what stage 1 misses, measured on the fleet's own traffic."""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from pipeline.evaluation.monitoring.misses import Bounds, MissReport, Truth, miss_report
from pipeline.evaluation.monitoring.recorded import Recorded
from pipeline.observability.report_metrics import Reading, write_textfile
from workers.cli.common import Bootstrap, Json, print_json, settings_for
from workers.cli.windows import Since, Until, window

app = typer.Typer(help="Measure what stage 1 misses.", no_args_is_help=True, rich_markup_mode=None)
_MOST_SOURCES = 20

Prometheus = Annotated[
    Path | None, typer.Option(help="Also write the numbers here, for node_exporter's textfile collector (*.prom).")
]


@app.callback()
def _group() -> None:
    """Keep `report` a subcommand although it is the only one."""


@app.command()
def report(
    bootstrap: Bootstrap = None,
    since: Since = "7d",
    until: Until = "1h",
    prometheus: Prometheus = None,
    json: Json = False,
) -> None:
    """Estimate the false negative rate of stage 1 from drawn passes, with inverse-probability weights and bounds.

    Also the baseline audit: which sources there are, how much of each is released, and the scores of stage 1.

    Labels come from reviews, else from the later stages; what nobody could label widens the bounds. Without a working
    MLLM no stage can say `generated`, and the report says so.

    Example: mediasieve audit-sample report --since 7d --prometheus /var/lib/node_exporter/audit_sample.prom
    """
    recorded, span = Recorded(settings_for(bootstrap).kafka), window(since, until)
    with Console(stderr=True).status("reading decisions, samples and reviews"):
        found = miss_report(
            recorded.decisions(span),
            recorded.samples(span),
            recorded.reviews(span.since),
            span.since,
            span.until,
        )
    if prometheus is not None:
        write_textfile(prometheus, readings(found, time.time()))
    if json:
        print_json(found.model_dump(mode="json"))
        return
    _print(found)


def readings(found: MissReport, now_s: float) -> Iterator[Reading]:
    """For the metrics; a bound that is not known has no reading."""
    for name, bounds in (
        ("mediasieve_classifier_fnr", found.fnr),
        ("mediasieve_classifier_missed_share", found.missed_share),
    ):
        low, high = bounds.interval
        values = {"low": bounds.low, "high": bounds.high, "interval_low": low, "interval_high": high}
        for bound, value in values.items():
            if value is not None:
                yield Reading(name, (bound,), value)
    counts = {
        "released": found.released,
        "sampled": found.sampled,
        "represented": found.represented,
        "unlabelled": found.truths[Truth.UNLABELLED],
        "mllm_heard": found.mllm_heard,
    }
    for what, count in counts.items():
        yield Reading("mediasieve_audit_report_items", (what,), count)
    yield Reading("mediasieve_report_made_seconds", ("audit-sample",), now_s)


def _print(found: MissReport) -> None:
    console = Console(soft_wrap=True, highlight=False)
    console.print(
        f"{found.since:%Y-%m-%d %H:%M} to {found.until:%Y-%m-%d %H:%M} UTC: stage 1 released {found.released}, "
        f"{found.sampled} of them sampled (drawn with {', '.join(map(str, found.sampling_probabilities)) or '-'}); "
        f"it sent on {found.flagged_generated} that are said to be generated, {found.flagged_unlabelled} are open"
    )
    table = Table("label of the samples", "items")
    for truth, count in found.truths.items():
        table.add_row(truth.value, str(count))
    console.print(table)
    console.print(f"generated among what it released   {_text(found.missed_share)}")
    console.print(f"FNR of stage 1                     {_text(found.fnr)}")
    console.print(_sources(found))
    for note in found.notes:
        console.print(f"- {note}")


def _sources(found: MissReport) -> Table:
    table = Table("source", "items", "released", "sampled", "classifier score 0 to 1, in tenths")
    for each in found.sources[:_MOST_SOURCES]:
        scores = " ".join(map(str, each.scores))
        table.add_row(escape(each.source), str(each.items), str(each.released), str(each.sampled), scores)
    if len(found.sources) > _MOST_SOURCES:
        table.add_row(f"and {len(found.sources) - _MOST_SOURCES} more", "", "", "", "see --json")
    return table


def _text(bounds: Bounds) -> str:
    low, high = bounds.interval
    between = f"{_percent(bounds.low)} to {_percent(bounds.high)}"
    return f"{between} (95 % interval {_percent(low)} to {_percent(high)})"


def _percent(value: float | None) -> str:
    return "unknown" if value is None else f"{value:.2%}"
