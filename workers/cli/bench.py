"""`mediasieve bench`: how fast this machine runs a stage, beside plain code or the best that its server allows."""

from __future__ import annotations

import os
from dataclasses import asdict
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Annotated

import typer
from rich.console import Console
from rich.table import Table

from workers.cli.common import Json, print_json

app = typer.Typer(
    help="Measure speed on this machine.",
    no_args_is_help=True,
    rich_markup_mode=None,
)

_SIDES_PX = [512, 1024]
_LEAVES = [1_000, 10_000, 100_000, 1_000_000]


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


@app.command()
def mllm(
    *,
    images: Annotated[int, typer.Option(help="Images to decide.", min=1)] = 2000,
    concurrency: Annotated[int, typer.Option(help="Requests in flight.", min=1, max=512)] = 64,
    latency_ms: Annotated[int, typer.Option(help="Of the stub for one answer.", min=1)] = 500,
    passes: Annotated[int, typer.Option(help="Answers an image.", min=1, max=2)] = 1,
    size: Annotated[int, typer.Option(help="Side of the test images in px.", min=128, max=4096)] = 512,
    json: Json = False,
) -> None:
    """Whether one MLLM worker keeps a server of fixed latency busy, and whether its memory stays flat.

    The ideal is concurrency / (latency x passes) images a second. Stage, limits, client, store and threads are the
    worker's own, against a stub in a process of its own on this machine; Kafka has no part. On a busy machine read
    cpu_ms, the processor time an image, beside the ratio. Exit 1 when an item was not decided.

    Example: mediasieve bench mllm --passes 2
    """
    from workers import mllm_bench  # noqa: PLC0415 - brings the models, which no other command needs at its start
    from workers.mllm_bench_stub import StubFailed  # noqa: PLC0415 - as above

    try:
        found = mllm_bench.run(mllm_bench.Load(images, concurrency, latency_ms, passes, size))
    except StubFailed as error:
        Console(stderr=True).print(f"mediasieve: {error}", style="red", markup=False)
        raise typer.Exit(1) from error
    if json:
        print_json(found.as_row())
        return
    row, console = found.as_row(), Console(width=110)
    slices = [asdict(one) for one in found.slices]
    if slices:
        _print(console, f"{images} images, {concurrency} in flight, {latency_ms} ms, passes {passes}", slices)
    console.print(", ".join(f"{name} {value}" for name, value in row.items() if name != "slices"), soft_wrap=True)


@app.command()
def grounding(
    dataset: Annotated[Path, typer.Argument(exists=True, help="Labelled images, in any layout that evaluate reads.")],
    per_class: Annotated[int, typer.Option(help="Images of each class; each costs 4 questions.", min=1)] = 25,
    json: Json = False,
) -> None:
    """How far the configured MLLM's verdicts follow the spectral panel and the table of features.

    Panels, tables and both are swapped between images of the two classes. `follows` is 0 for a model that ignores what
    was swapped and 1 for one that goes all the way with it. `saturated` is the share of its own P(synthetic) within
    0.01 of 0 or 1. Exit 2 without a configured model, or when a class has no usable image.

    Example: mediasieve bench grounding ./labelled --per-class 50
    """
    from workers.mllm_grounding import grounding_of  # noqa: PLC0415 - as above

    found = grounding_of(dataset, per_class)
    if json:
        print_json(asdict(found))
        return
    console = Console(width=110)
    _print(console, "What verdicts follow", [asdict(swap) for swap in found.swaps])
    own = found.saturation
    console.print(
        f"own verdicts {own.verdicts}, saturated {own.saturated:.1%}, mean distance to 0.5 {own.mean_distance:.3f}"
    )
    console.print(f"questions without a probability: {found.silent}")


@app.command("audit-log")
def audit_log(
    leaves: Annotated[list[int] | None, typer.Option(help="Entries of the tree; repeatable.", min=1)] = None,
    batch: Annotated[int, typer.Option(help="Entries of one append.", min=1)] = 1000,
    directory: Annotated[
        Path | None,
        typer.Option(help="Where to make the trees, which are removed again.", exists=True, file_okay=False),
    ] = None,
    json: Json = False,
) -> None:
    """The tamper-evident log on a local disk: appends, proofs, verification, and what a tree takes.

    Sizes are 1000, 10000, 100000 and 1000000 unless given. Each append syncs its files and its checkpoint; proofs are
    of random entries, by a reader that has read nothing yet. Numbers of reads and hashes are the largest of 100.

    Example: mediasieve bench audit-log --leaves 1000000
    """
    from pipeline.evidence.log.bench import measure  # noqa: PLC0415 - no other command needs it
    from pipeline.evidence.log.storage import open_log_storage  # noqa: PLC0415 - as above

    rows = []
    for size in leaves or _LEAVES:
        with TemporaryDirectory(prefix="mediasieve-bench-", dir=directory) as place:
            rows.append(asdict(measure(open_log_storage(Path(place).as_uri()), size, batch=batch)))
        if json:
            print_json(rows[-1])
    if not json:
        _print(Console(width=110), f"Audit log, appends of {batch}", _upright(rows))


def _upright(rows: list[dict[str, object]]) -> list[dict[str, object]]:
    """A column for each run, a row for each figure: there are more figures than fit side by side."""
    return [{"figure": name, **{str(row["leaves"]): row[name] for row in rows}} for name in rows[0] if name != "leaves"]


def _print(console: Console, title: str, rows: list[dict[str, object]]) -> None:
    table = Table(title=title, title_justify="left")
    for name in rows[0]:
        if name != "rounds":
            table.add_column(name, justify="left" if name in ("input", "step", "figure") else "right")
    for row in rows:
        table.add_row(*(str(value) for name, value in row.items() if name != "rounds"))
    console.print(table)
