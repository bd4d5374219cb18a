"""`mediasieve shadow`: what rules that only watch would have decided."""

from __future__ import annotations

import typer
from rich.console import Console

from pipeline.evaluation.monitoring.agreement import Tally
from pipeline.evaluation.monitoring.recorded import Recorded
from workers.cli.agreement_text import tables
from workers.cli.common import Bootstrap, Json, print_json, settings_for
from workers.cli.windows import Since, Until, window

app = typer.Typer(help="Compare a shadow with what decides.", no_args_is_help=True, rich_markup_mode=None)


@app.callback()
def _group() -> None:
    """Keep `report` a subcommand although it is the only one."""


@app.command()
def report(
    bootstrap: Bootstrap = None,
    since: Since = "7d",
    until: Until = "1h",
    json: Json = False,
) -> None:
    """How often the shadow agrees, what it would cost, and examples of where it differs.

    Media that the live rules let go before the shadow could decide counts as not_reproducible.

    Example: mediasieve shadow report --since 24h
    """
    span, tally = window(since, until), Tally()
    with Console(stderr=True).status("reading the shadow's results"):
        for result in Recorded(settings_for(bootstrap).kafka).shadows(span):
            tally.watched(result)
    found = tally.report(span.since, span.until)
    if json:
        print_json(found.model_dump(mode="json"))
        return
    console = Console(highlight=False)
    for part in tables(found, "shadow"):
        console.print(part, markup=False)
