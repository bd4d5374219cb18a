"""`mediasieve up` and `mediasieve worker`."""

from __future__ import annotations

import os
import sys
import time
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

from workers.cli.common import Bootstrap, settings_for
from workers.fleet import Fleet, sigterm_is_ctrl_c
from workers.names import WorkerName


def worker(
    name: Annotated[
        WorkerName, typer.Argument(help="classifier, spectral, mllm, audit, gateway, console or adaptation")
    ],
) -> None:
    """Run one worker in this process until SIGTERM; logs are JSON on standard error.

    Exit codes: 0 drained; 1 a bug; 2 settings or bundle; 3 fenced; 4 the stage failed; 5 dead-letter limit;
    6 a record of a newer release; 7 the broker contradicts itself; 70 the loop hung. Of the audit worker also:
    8 another process writes to the log; 9 the log is corrupt; 10 retention removed records that are not in the log.

    Example: MEDIASIEVE_KAFKA__BOOTSTRAP=kafka:9092 mediasieve worker spectral
    """
    # The stage's child processes import the main module again, so it has to be a light one.
    os.execv(sys.executable, [sys.executable, "-m", f"workers.{name}"])  # noqa: S606 - our own module


def up(
    *,
    bootstrap: Bootstrap = None,
    classifier: Annotated[int, typer.Option(help="Classifier workers.", min=0)] = 1,
    spectral: Annotated[int, typer.Option(help="Spectral workers (each with a process a core).", min=0)] = 1,
    mllm: Annotated[int, typer.Option(help="MLLM workers.", min=0)] = 1,
    audit: Annotated[int, typer.Option(help="Audit workers; `mediasieve audit keygen` makes their keys.", min=0)] = 1,
    gateway: Annotated[
        int, typer.Option(help="Ingest gateways, at gateway.port; `mediasieve apikeys create` makes keys.", min=0)
    ] = 0,
    console: Annotated[
        int, typer.Option(help="Review consoles, at console.port; `mediasieve console user add` makes accounts.", min=0)
    ] = 0,
    adaptation: Annotated[
        int, typer.Option(help="Adaptation workers; `mediasieve references keygen` makes their keys.", min=0)
    ] = 0,
    logs: Annotated[Path, typer.Option(help="Folder of the workers' logs.")] = Path("var/logs"),
) -> None:
    """Run the whole fleet on this machine against an existing Kafka until Ctrl-C or SIGTERM; one that ends stops all.

    Example: mediasieve up --bootstrap localhost:9092 --classifier 2
    """
    settings = settings_for(bootstrap)
    replicas = {
        WorkerName.CLASSIFIER: classifier,
        WorkerName.SPECTRAL: spectral,
        WorkerName.MLLM: mllm,
        WorkerName.AUDIT: audit,
        WorkerName.GATEWAY: gateway,
        WorkerName.CONSOLE: console,
        WorkerName.ADAPTATION: adaptation,
    }
    environment = {"MEDIASIEVE_KAFKA__BOOTSTRAP": settings.kafka.bootstrap}
    with sigterm_is_ctrl_c(), Fleet(replicas, environment, logs) as fleet:
        fleet.wait_ready()
        Console().print(f"{len(fleet.members)} workers ready; logs in {logs}; Ctrl-C drains them")
        try:
            while True:
                fleet.check()
                time.sleep(0.5)
        except KeyboardInterrupt:
            Console().print("draining")
