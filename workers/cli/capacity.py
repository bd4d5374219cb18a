"""`mediasieve capacity`: what a load needs, by arithmetic, by simulation, and checked against a real fleet."""

from __future__ import annotations

from dataclasses import asdict
from datetime import datetime
from pathlib import Path
from typing import Annotated

import typer
from pydantic import ValidationError
from rich.console import Console

from pipeline.capacity import units
from pipeline.capacity.observed import Repetition
from pipeline.capacity.profile import Visits
from pipeline.capacity.sizing import Request, size
from pipeline.capacity.storage import storage
from workers.cli import capacity_text
from workers.cli.capacity_options import (
    Headroom,
    Measured,
    Mix,
    ModelGpus,
    ModelPlaces,
    ModelSeconds,
    ModelSource,
    PlanFile,
    Rate,
    Repetitions,
    Sla,
    SlaMllm,
    Within,
    parsed,
    profile_of,
    visits_of,
)
from workers.cli.capacity_replica import replica
from workers.cli.common import Json, print_json

app = typer.Typer(
    help="Replicas, partitions, GPUs, disk and network for a load.", invoke_without_command=True, rich_markup_mode=None
)
app.command()(replica)


@app.callback()
def capacity(
    context: typer.Context,
    *,
    rate: Rate = "",
    mix: Mix = None,
    plan: PlanFile = None,
    sla: Sla = "2s",
    sla_mllm: SlaMllm = None,
    within: Within = 0.95,
    headroom: Headroom = 0.3,
    burst: Annotated[float, typer.Option(help="Highest rate that partitions allow, by the rate.", min=1)] = 3.0,
    replication: Annotated[int, typer.Option(help="Copies of each record in Kafka.", min=1, max=9)] = 3,
    readers: Annotated[int, typer.Option(help="Groups that read every decision.", min=0)] = 3,
    measured: Measured = None,
    mllm_seconds: ModelSeconds = None,
    mllm_places: ModelPlaces = 32,
    mllm_gpus: ModelGpus = 1.0,
    mllm_source: ModelSource = "given on the command line",
    json: Json = False,
) -> None:
    """Replicas, partitions, GPUs, brokers' disk and network for a rate.

    Exit 1 when no number of replicas meets the time to decision. How it is computed, and how well it predicts:
    docs/capacity.md.

    Example: mediasieve capacity --rate 500/s --mix suspect=10%,anomalous=2% --sla 2s
    """
    if context.invoked_subcommand is not None:
        return
    profile = profile_of(measured, mllm_seconds, mllm_places, mllm_gpus, mllm_source)
    request = _request(
        rate=rate,
        visits=visits_of(mix, plan, profile),
        sla=sla,
        sla_mllm=sla_mllm,
        within=within,
        headroom=headroom,
        burst=burst,
    )
    sized = size(request, profile)
    stored = storage(request.rate_per_s, request.visits, profile, replication=replication, readers=readers)
    if json:
        print_json(capacity_text.sizing_facts(request, sized, stored))
    else:
        capacity_text.sizing(Console(soft_wrap=True, highlight=False), request, sized, stored, profile)
    raise typer.Exit(1 if sized.unmet else 0)


@app.command()
def measure(
    out: Annotated[Path, typer.Option("-o", "--out", help="Profile to write.")],
    *,
    rate: Rate = "1/s",
    seconds: Annotated[float, typer.Option(help="Length of the run, 15 s of warm-up included.", min=30)] = 120.0,
    generated: Annotated[float, typer.Option(help="Share of made images among those sent.", min=0, max=1)] = 0.2,
    model_latency: Annotated[float, typer.Option(help="Seconds of the model stub.", min=0)] = 0.4,
    seed: Annotated[int, typer.Option(help="Of arrivals and images.")] = 1,
    directory: Annotated[Path, typer.Option(help="Media, broker, evidence and logs go below it.")] = Path(
        "var/capacity"
    ),
) -> None:
    """Measure service times: a real fleet and broker on this machine, under a load well below what they can do.

    Example: mediasieve capacity measure --rate 1/s -o profile.json
    """
    from workers import capacity_measure, capacity_site  # noqa: PLC0415 - they bring the broker

    settings = capacity_site.SiteSettings(model_latency, 8, generated)
    load = capacity_site.Load(parsed(units.rate, rate, "--rate"), seconds, capacity_site.WARM_UP_S, seed)
    command = f"mediasieve capacity measure --rate {rate} --seconds {seconds:g} --generated {generated:g}"
    command += f" --model-latency {model_latency:g} --seed {seed}"
    profile = capacity_measure.measure(_home(directory), settings, load, command)
    out.write_text(profile.model_dump_json(indent=1) + "\n", encoding="utf-8")
    typer.echo(f"wrote {out}")


@app.command()
def simulate(
    story: Annotated[str, typer.Argument(help="burst, slow-model or node-loss.")],
    *,
    rate: Rate = "20/s",
    mix: Mix = None,
    plan: PlanFile = None,
    sla: Sla = "2s",
    headroom: Headroom = 0.3,
    factor: Annotated[
        float | None,
        typer.Option(help="Of the burst (10), of the slow model (3); of a node loss, one replica in (2).", min=1),
    ] = None,
    minutes: Annotated[float, typer.Option(help="Simulated time; the incident begins after 5.", min=6)] = 30.0,
    priority: Annotated[float, typer.Option(help="Share of the priority lane.", min=0, max=1)] = 0.2,
    poll_s: Annotated[
        float, typer.Option(help="KEDA's pollingInterval under useCachedMetrics; 0: each sync asks.", min=0)
    ] = 0.0,
    scaled: Annotated[bool, typer.Option("--keda/--fixed", help="With KEDA, or with fixed replicas.")] = True,
    seed: Annotated[int, typer.Option(help="Equal seeds give equal runs.")] = 1,
    measured: Measured = None,
    mllm_seconds: ModelSeconds = None,
    mllm_places: ModelPlaces = 32,
    mllm_gpus: ModelGpus = 1.0,
    mllm_source: ModelSource = "given on the command line",
    png: Annotated[Path | None, typer.Option(help="Plot to write; needs the extra `evaluate`.")] = None,
    json: Json = False,
) -> None:
    """Simulate an incident on the fleet that `mediasieve capacity` asks for, with KEDA's control loop.

    Example: mediasieve capacity simulate burst --rate 20/s --png burst.png
    """
    from pipeline.capacity.simulation.cascade import simulate as run  # noqa: PLC0415 - so does no other command
    from pipeline.capacity.stories import STORIES, everyday  # noqa: PLC0415

    if story not in STORIES:
        raise typer.BadParameter(f"{story!r}: give {', '.join(STORIES)}", param_hint="STORY")
    happen, usual = STORIES[story]
    profile = profile_of(measured, mllm_seconds, mllm_places, mllm_gpus, mllm_source)
    request = _request(
        rate=rate,
        visits=visits_of(mix, plan, profile),
        sla=sla,
        sla_mllm=None,
        within=0.95,
        headroom=headroom,
        burst=3.0,
    )
    calm = everyday(
        request, profile, seconds=60 * minutes, seed=seed, priority_share=priority, poll_s=poll_s, scaled=scaled
    )
    scenario = happen(calm, factor or usual)
    result = run(scenario)
    if png is not None:
        from pipeline.capacity.charts import draw  # noqa: PLC0415 - brings matplotlib

        draw(scenario, result, f"{story}, {rate}, {'KEDA' if scaled else 'fixed replicas'}, seed {seed}", png)
    facts = capacity_text.simulated_facts(result)
    if json:
        print_json(facts)
    else:
        capacity_text.simulated(Console(soft_wrap=True, highlight=False), facts)


@app.command()
def check(
    *,
    runs: Annotated[Path | None, typer.Option(help="Runs made before (JSON lines); none are made then.")] = None,
    out: Annotated[Path, typer.Option("-o", "--out", help="Runs to write, JSON lines.")] = Path("capacity-runs.jsonl"),
    repetitions: Repetitions = 3,
    rate: Annotated[str, typer.Option(help="Of run A.")] = "0.4/s",
    seconds: Annotated[float, typer.Option(help="Length of each run, 15 s of warm-up included.", min=30)] = 120.0,
    places: Annotated[int, typer.Option(help="Questions at once at the model stub.", min=1)] = 2,
    model_latency: Annotated[float, typer.Option(help="Seconds of the model stub.", min=0)] = 4.0,
    directory: Annotated[Path, typer.Option(help="Media, broker, evidence and logs go below it.")] = Path(
        "var/capacity"
    ),
    json: Json = False,
) -> None:
    """Predict runs B (60 % of what fills tier 3) and C (150 %) from run A, make all three, show both side by side.

    Only made images are sent, so that many reach tier 3, whose slots are the bottleneck.

    Example: mediasieve capacity check --repetitions 3
    """
    from pipeline.capacity.check import compare  # noqa: PLC0415 - brings the simulation

    if runs is None:
        _make_runs(
            out,
            repetitions,
            rate=parsed(units.rate, rate, "--rate"),
            seconds=seconds,
            places=places,
            latency_s=model_latency,
            directory=directory,
        )
    try:
        made = [Repetition.model_validate_json(x) for x in (runs or out).read_text().splitlines() if x.strip()]
    except (OSError, ValidationError) as error:
        raise typer.BadParameter(f"{runs or out}: no runs of this command: {error}", param_hint="--runs") from error
    tables = [compare(repetition) for repetition in made]
    if json:
        for number, rows in enumerate(tables, 1):
            for row in rows:
                print_json({"repetition": number, **asdict(row), "error": row.error})
        return
    capacity_text.comparison(Console(soft_wrap=True, highlight=False), made, tables)


def _make_runs(
    out: Path, repetitions: int, *, rate: float, seconds: float, places: int, latency_s: float, directory: Path
) -> None:
    from workers import capacity_measure, capacity_site  # noqa: PLC0415 - they bring the broker

    settings = capacity_site.SiteSettings(latency_s, places, 1.0)
    with out.open("w", encoding="utf-8") as lines:
        for number in range(repetitions):
            load = capacity_site.Load(rate, seconds, capacity_site.WARM_UP_S, 10 * number + 1)
            made = capacity_measure.repeat(_home(directory), settings, load, capacity_measure.Relative(), seconds)
            lines.write(made.model_dump_json() + "\n")
            lines.flush()


def _request(
    *, rate: str, visits: Visits, sla: str, sla_mllm: str | None, within: float, headroom: float, burst: float
) -> Request:
    return Request(
        rate_per_s=parsed(units.rate, rate, "--rate"),
        visits=visits,
        sla_s=parsed(units.seconds, sla, "--sla"),
        sla_mllm_s=None if sla_mllm is None else parsed(units.seconds, sla_mllm, "--sla-mllm"),
        within=within,
        headroom=headroom,
        burst=burst,
    )


def _home(directory: Path) -> Path:
    return (directory / datetime.now().astimezone().strftime("%Y%m%d-%H%M%S")).resolve()
