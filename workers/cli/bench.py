"""`mediasieve bench`: how fast this machine runs a stage, beside plain code for the same question."""

from __future__ import annotations

import os
from typing import Annotated

import typer
from rich.console import Console
from rich.table import Table

from workers.cli.common import Json, print_json

app = typer.Typer(
    help="Measure speed on this machine, interleaved against plain code.",
    no_args_is_help=True,
    rich_markup_mode=None,
)

_SIDES_PX = [512, 1024]


@app.callback()
def _group() -> None:
    """Keep `spectral` a subcommand although it is the only one."""


@app.command()
def spectral(
    size: Annotated[list[int] | None, typer.Option(help="Side of the test image in px; repeatable.", min=128)] = None,
    rounds: Annotated[int, typer.Option(help="Interleaved rounds of each comparison.", min=1)] = 15,
    processes: Annotated[
        int | None, typer.Option(help="Processes of the pool; otherwise one a core. 0: no pool.", min=0)
    ] = None,
    json: Json = False,
) -> None:
    """The spectral stage from luma, PNG and JPEG, on one core and on all, beside plain numpy code.

    The baselines are Pillow's L, fft2, fftshift and log1p(abs) ("seed"), and that with radial and angular means by
    index arrays made for each image ("naive"). Test images are made by code. One core is measured in processor time,
    the pool by the wall clock: on a busy machine only the ratios mean anything, and the pool's not even that.

    Example: mediasieve bench spectral --size 1024 --rounds 31
    """
    from workers import spectral_bench  # noqa: PLC0415 - brings scipy, which no other command needs at its start

    sides = size or _SIDES_PX
    cores = len(os.sched_getaffinity(0)) if processes is None else processes
    timings = [timing for side in sides for timing in spectral_bench.on_one_core(side, rounds)]
    pooled = [row for side in sides for row in spectral_bench.on_all_cores(side, cores, rounds)] if cores else []
    if json:
        for row in spectral_bench.as_rows([*timings, *pooled]):
            print_json(row)
        return
    console = Console(width=110)
    _print(console, f"One core, {rounds} rounds: processor time", spectral_bench.as_rows(timings))
    if pooled:
        _print(console, f"Pool, {rounds} rounds: wall clock", spectral_bench.as_rows(pooled))


def _print(console: Console, title: str, rows: list[dict[str, object]]) -> None:
    table = Table(title=title, title_justify="left")
    for name in rows[0]:
        if name != "rounds":
            table.add_column(name, justify="left" if name in ("input", "step") else "right")
    for row in rows:
        table.add_row(*(str(value) for name, value in row.items() if name != "rounds"))
    console.print(table)
