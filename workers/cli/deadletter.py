"""`mediasieve deadletter`: records that could not be processed."""

from __future__ import annotations

import getpass
from typing import Annotated

import structlog
import typer
from rich.console import Console
from rich.table import Column, Table

from pipeline.observability.logging import configure_logging
from pipeline.streaming.kafka.client import RecordWriter
from pipeline.streaming.kafka.deadletter import Letter, NotReplayable, accept, read_letters, replay
from pipeline.streaming.transport import TopicPartition
from schemas.types import StageName
from workers.cli.common import Bootstrap, Json, print_json, settings_for
from workers.settings import Settings

app = typer.Typer(help="List, show and replay dead letters.", no_args_is_help=True)
Place = Annotated[str, typer.Argument(help="PARTITION-OFFSET in media.deadletter, as `list` prints it.")]


@app.command("list")
def list_letters(bootstrap: Bootstrap = None, json: Json = False) -> None:
    """All dead letters that are kept.

    Example: mediasieve deadletter list --json | jq .code
    """
    table = Table(
        "place", "code", Column("media id", overflow="fold"), "stage", "from", Column("detail", overflow="fold")
    )
    for letter in read_letters(settings_for(bootstrap).kafka):
        facts = letter.facts
        if json:
            print_json({"place": letter.place} | facts.model_dump(mode="json"))
            continue
        origin = f"{facts.topic}[{facts.partition}]@{facts.offset}"
        table.add_row(letter.place, facts.code, facts.media_id, facts.stage, origin, facts.detail)
    if not json:
        Console().print(table if table.row_count else "no dead letters")


@app.command()
def show(place: Place, bootstrap: Bootstrap = None) -> None:
    """One dead letter whole, with the original value.

    Example: mediasieve deadletter show 3-17
    """
    letter = _find(settings_for(bootstrap), place)
    value = letter.record.value.decode("utf-8", "backslashreplace")
    print_json(letter.facts.model_dump(mode="json") | {"value": value})


@app.command("replay")
def replay_letters(
    places: Annotated[list[str], typer.Argument(help="PARTITION-OFFSET of each; or: all")], bootstrap: Bootstrap = None
) -> None:
    """Send the originals again, under the media ids they had.

    Example: mediasieve deadletter replay 3-17 3-18
    """
    settings = settings_for(bootstrap)
    letters = {letter.place: letter for letter in read_letters(settings.kafka)}
    missing = [p for p in places if p != "all" and p not in letters]
    if missing:
        raise NotReplayable(f"no dead letter at {', '.join(missing)}; see `mediasieve deadletter list`")
    writer = RecordWriter(settings.kafka)
    for place, letter in letters.items():
        if place in places or "all" in places:
            topic = replay(letter, settings.kafka, writer)
            Console().print(f"{place} -> {topic} as {letter.facts.media_id}")


@app.command("accept")
def accept_until(
    stage: Annotated[StageName, typer.Option(help="The stage that stopped.")],
    topic: Annotated[str, typer.Option(help="Full name of the topic, as the error says.")],
    partition: Annotated[int, typer.Option(help="Partition, as the error says.", min=0)],
    until: Annotated[int, typer.Option(help="Records below this offset may be dead-lettered.", min=1)],
    bootstrap: Bootstrap = None,
) -> None:
    """Let a worker that stopped at its dead-letter limit go past records that you have looked at.

    The stage must be stopped (scaled to 0). Logged with your user name.

    Example: mediasieve deadletter accept --stage spectral --topic media.suspect --partition 3 --until 120
    """
    settings = settings_for(bootstrap)
    configure_logging(settings.log, command="deadletter accept")
    structlog.contextvars.bind_contextvars(user=getpass.getuser())
    point = accept(settings.kafka, stage.value, TopicPartition(topic, partition), until)
    Console().print(f"{topic}[{partition}]: from offset {point.offset}, rejects below {until} are accepted")


def _find(settings: Settings, place: str) -> Letter:
    for letter in read_letters(settings.kafka):
        if letter.place == place:
            return letter
    raise NotReplayable(f"no dead letter at {place}; see `mediasieve deadletter list`")
