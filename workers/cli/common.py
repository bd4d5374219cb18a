"""What several commands share."""

from __future__ import annotations

import sys
from typing import Annotated, Any

import orjson
import typer

from pipeline.settings import load_settings
from workers.settings import Settings

Json = Annotated[bool, typer.Option("--json", help="One JSON object a line on standard output, for machines.")]
Bootstrap = Annotated[
    str | None, typer.Option("--bootstrap", help="host:port of Kafka; otherwise MEDIASIEVE_KAFKA__BOOTSTRAP.")
]


def settings_for(bootstrap: str | None) -> Settings:
    """The settings of environment and file, with the brokers replaced when given."""
    settings = load_settings(Settings)
    if bootstrap is None:
        return settings
    kafka = settings.kafka.model_copy(update={"bootstrap": bootstrap})
    return settings.model_copy(update={"kafka": kafka})


def print_json(value: Any) -> None:
    """One object on one line."""
    sys.stdout.buffer.write(orjson.dumps(value, option=orjson.OPT_APPEND_NEWLINE, default=str))
    sys.stdout.buffer.flush()
