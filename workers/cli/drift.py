"""`mediasieve drift`: has the traffic of a source changed?"""

from __future__ import annotations

import time
from collections.abc import Iterator
from datetime import UTC, datetime
from typing import Annotated

import typer
from rich.console import Console
from rich.table import Table

from pipeline.detection.bundle import Bundle
from pipeline.evaluation.monitoring.announce import announce, quality_event
from pipeline.evaluation.monitoring.drift import LEAST_ITEMS, Change, DriftReport, by_source_and_time, drift_report
from pipeline.evaluation.monitoring.recorded import Recorded, Window
from pipeline.observability.report_metrics import Reading, write_textfile
from schemas.quality import Finding, QualitySource
from workers.cli.audit_sample import Prometheus
from workers.cli.common import Bootstrap, Json, print_json, settings_for
from workers.cli.findings import EXIT_FOUND
from workers.cli.windows import Since, Until, window

app = typer.Typer(help="Compare the traffic of two windows.", no_args_is_help=True, rich_markup_mode=None)


@app.callback()
def _group() -> None:
    """Keep `report` a subcommand although it is the only one."""


@app.command()
def report(
    *,
    bootstrap: Bootstrap = None,
    since: Since = "7d",
    until: Until = "1h",
    reference: Annotated[str, typer.Option(help="Begin of the reference window, which ends at --since.")] = "28d",
    least: Annotated[int, typer.Option(help="Items in each window that a test needs.", min=10)] = LEAST_ITEMS,
    prometheus: Prometheus = None,
    announce_it: Annotated[
        bool, typer.Option("--announce", help="Publish an OCSF event on quality.events when something is flagged.")
    ] = False,
    json: Json = False,
) -> None:
    """PSI and Kolmogorov-Smirnov of scores, PSI of codecs and strata, source by source.

    Flagged is what is large (PSI 0.25 above what chance makes of so few items, or KS 0.15) and no chance (p < 0.01
    after correction for all tests). Exit codes: 0 nothing is flagged; 1 Kafka does not answer; 3 something is.

    Example: mediasieve drift report --since 7d --reference 28d --announce
    """
    settings = settings_for(bootstrap)
    now = datetime.now(UTC)
    current, before = window(since, until, now), window(reference, since, now)
    found = _measured(Recorded(settings.kafka), before, current, least)
    if prometheus is not None:
        write_textfile(prometheus, readings(found, time.time()))
    if announce_it and found.flagged:
        bundle = Bundle.load(settings.bundle)
        announce(settings.kafka, quality_event(QualitySource.DRIFT, bundle, map(finding, found.flagged), found.until))
    if json:
        print_json(found.model_dump(mode="json"))
    else:
        _print(found)
    raise typer.Exit(EXIT_FOUND if found.flagged else 0)


def _measured(recorded: Recorded, before: Window, current: Window, least: int) -> DriftReport:
    with Console(stderr=True).status("reading decisions"):
        both = recorded.decisions(Window(before.since, current.until))
        old, new = by_source_and_time(both, current.since)
    return drift_report(old, new, (before.since, current.since, current.until), least)


def finding(change: Change) -> Finding:
    """As an event says it."""
    return Finding(subject=change.source, measure=f"{change.what} psi", after=change.psi, detail=words(change)[:1024])


def words(change: Change) -> str:
    """The change in one line."""
    sizes = f"{change.before} and {change.after} items, p {change.p_value:.2g}"
    if change.moved_before is not None and change.moved_after is not None:
        return f"{change.moved} {change.moved_before:.1%} -> {change.moved_after:.1%} ({sizes})"
    return f"KS {change.ks:.3f} ({sizes})"


def readings(found: DriftReport, now_s: float) -> Iterator[Reading]:
    """For the metrics."""
    for change in found.changes:
        labels = (change.source, change.what.value)
        yield Reading("mediasieve_drift_psi", labels, change.psi)
        yield Reading("mediasieve_drift_flagged", labels, float(change.flagged))
    yield Reading("mediasieve_report_made_seconds", ("drift",), now_s)


def _print(found: DriftReport) -> None:
    console = Console(highlight=False)
    console.print(
        f"{found.reference_since:%Y-%m-%d %H:%M} to {found.since:%Y-%m-%d %H:%M} against "
        f"{found.since:%Y-%m-%d %H:%M} to {found.until:%Y-%m-%d %H:%M} UTC"
    )
    for change in found.flagged:
        console.print(f"{change.source}: {change.what} changed: {words(change)}", markup=False)
    table = Table("source", "what", "PSI", "by chance", "change", "flagged")
    for change in found.changes:
        flagged = "yes" if change.flagged else ""
        table.add_row(
            change.source, change.what.value, f"{change.psi:.3f}", f"{change.by_chance:.3f}", words(change), flagged
        )
    console.print(table)
    for source, (old, new) in found.untested.items():
        console.print(f"{source}: {old} and {new} items are too few for a test", markup=False)
