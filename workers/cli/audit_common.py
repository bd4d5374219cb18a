"""What the commands of `mediasieve audit` share."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

from pipeline.evidence.log.errors import KeyFileInvalid, LogError, LogUnavailable, NotInLog, Superseded
from pipeline.evidence.log.key_set import KeySet
from pipeline.settings import load_settings
from pipeline.streaming.kafka.admin import AdminError
from pipeline.streaming.kafka.client import KafkaUnavailable
from workers.audit.errors import KeptInvalid
from workers.audit.log import LogPlace
from workers.cli.common import logs_on_stderr
from workers.settings import Settings

EXIT_FALSE = 1
EXIT_WRONG_INPUT = 2
EXIT_NOT_FOUND = 3
EXIT_UNAVAILABLE = 4

Key = Annotated[
    Path | None,
    typer.Option("--key", help="File of the log's public keys; otherwise MEDIASIEVE_AUDIT__PUBLIC_KEYS.", exists=True),
]


def log_place() -> LogPlace:
    """The log of the settings."""
    return LogPlace.of(load_settings(Settings))


def keys_from(path: Path | None) -> KeySet:
    """The keys of a file; without one those of the settings, which are not read otherwise."""
    return KeySet.load(path) if path is not None else log_place().keys()


def say(text: str, *, error: bool = False) -> None:
    """One line as it is."""
    Console(stderr=error).print(text, markup=False, highlight=False, soft_wrap=True)


@contextmanager
def plainly() -> Iterator[None]:
    """Errors as one clear line and an exit code; logs on standard error."""
    try:
        with logs_on_stderr():
            yield
    except (LogError, OSError, KeptInvalid, KafkaUnavailable, AdminError) as error:
        say(f"mediasieve: {error}", error=True)
        sys.exit(_exit_code(error))


def _exit_code(error: Exception) -> int:
    match error:
        case KeyFileInvalid() | KeptInvalid() | OSError():
            return EXIT_WRONG_INPUT
        case NotInLog():
            return EXIT_NOT_FOUND
        case LogUnavailable() | Superseded() | KafkaUnavailable() | AdminError():
            return EXIT_UNAVAILABLE
        case _:
            return EXIT_FALSE
