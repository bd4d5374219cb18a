"""`mediasieve topics`: the fleet's topics on a cluster."""

from __future__ import annotations

from typing import Annotated

import typer
from rich.console import Console
from rich.table import Table

from pipeline.streaming.kafka.admin import Change, Difference, TopicAdmin
from schemas.topics import TOPICS
from workers.cli.common import Bootstrap, Json, print_json, settings_for

app = typer.Typer(help="Create the fleet's topics, or compare them with what the fleet needs.", no_args_is_help=True)
Partitions = Annotated[int, typer.Option(help="Partitions of each topic: the most members a stage can use.", min=1)]
Replicas = Annotated[
    int, typer.Option("--replication-factor", help="Copies of each partition; 3 in production.", min=1)
]


@app.command()
def check(
    bootstrap: Bootstrap = None, partitions: Partitions = 12, replication_factor: Replicas = 3, json: Json = False
) -> None:
    """Compare; exit 1 when something differs.

    Example: mediasieve topics check --bootstrap kafka:9092
    """
    settings = settings_for(bootstrap)
    admin = TopicAdmin(settings.kafka.common())
    found = admin.check(TOPICS, partitions, replication_factor, settings.kafka.topic_prefix)
    _show([Change(d, refused="-") for d in found], json, "differs")
    raise typer.Exit(1 if found else 0)


@app.command()
def apply(
    bootstrap: Bootstrap = None, partitions: Partitions = 12, replication_factor: Replicas = 3, json: Json = False
) -> None:
    """Create what is missing, set what differs; exit 1 when something may not be changed (it says what and why).

    Example: mediasieve topics apply --partitions 12 --replication-factor 3
    """
    settings = settings_for(bootstrap)
    admin = TopicAdmin(settings.kafka.common())
    changes = admin.apply(TOPICS, partitions, replication_factor, settings.kafka.topic_prefix)
    _show(changes, json, "done")
    raise typer.Exit(1 if any(c.refused for c in changes) else 0)


def _show(changes: list[Change], json: bool, state: str) -> None:
    if json:
        for change in changes:
            print_json(_row(change.difference) | {"state": change.refused or state})
        return
    if not changes:
        Console().print("all topics are as the fleet needs them")
        return
    table = Table("topic", "setting", "wanted", "found", "state")
    for change in changes:
        table.add_row(*_row(change.difference).values(), change.refused if change.refused not in ("", "-") else state)
    Console().print(table)


def _row(difference: Difference) -> dict[str, str]:
    return {
        "topic": difference.topic,
        "setting": difference.setting,
        "expected": difference.expected,
        "found": difference.found,
    }
