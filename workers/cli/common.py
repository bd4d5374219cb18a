"""What several commands share."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Annotated, Any

import orjson
import structlog
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


@contextmanager
def logs_on_stderr() -> Iterator[None]:
    """What the fleet's parts log goes to standard error, so that standard output holds the answers alone."""
    before = structlog.get_config()
    structlog.configure(logger_factory=structlog.PrintLoggerFactory(sys.stderr))
    try:
        yield
    finally:
        structlog.configure(**before)


def print_json(value: Any) -> None:
    """One object on one line."""
    sys.stdout.buffer.write(orjson.dumps(value, option=orjson.OPT_APPEND_NEWLINE, default=str))
    sys.stdout.buffer.flush()
