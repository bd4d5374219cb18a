"""`mediasieve capacity replica`: what one pod can do, and the lagThreshold that follows from it."""

from __future__ import annotations

from typing import Annotated

import typer

from pipeline.capacity import units
from schemas.types import StageName
from workers.cli.capacity_options import Measured, ModelPlaces, ModelSeconds, ModelSource, parsed, profile_of
from workers.cli.common import Json, print_json


def replica(
    stage: Annotated[StageName, typer.Argument(help="Of which stage.")],
    *,
    cores: Annotated[float | None, typer.Option(help="Of a pod; otherwise the profile's.", min=0.1)] = None,
    slots: Annotated[int | None, typer.Option(help="Items at once; otherwise the profile's.", min=1)] = None,
    drain: Annotated[str, typer.Option(help="Work of a pod that may wait before KEDA adds one.")] = "30s",
    measured: Measured = None,
    mllm_seconds: ModelSeconds = None,
    mllm_places: ModelPlaces = 32,
    mllm_source: ModelSource = "given on the command line",
    json: Json = False,
) -> None:
    """The rate of one pod, and KEDA's lagThreshold: what it has in work when busy, and --drain of its work.

    The ScaledObjects of deploy/k8s name the call of this command that gave their numbers, and the tests repeat it.

    Example: mediasieve capacity replica classifier --cores 4 --drain 30s
    """
    given = {name: value for name, value in (("cores", cores), ("slots", slots)) if value is not None}
    profile = profile_of(measured, mllm_seconds, mllm_places, 1.0, mllm_source).replaced(stage, **given)
    pod, drain_s = profile.stages[stage], parsed(units.seconds, drain, "--drain")
    threshold = pod.lag_threshold(drain_s)
    if json:
        print_json({"stage": stage, "rate_per_s": pod.rate_per_s, "drain_s": drain_s, "lag_threshold": threshold})
        return
    typer.echo(f"{stage}: {pod.rate_per_s:.3g}/s a pod of {pod.cores:g} cores and {pod.slots} slots ({pod.source})")
    typer.echo(f"lagThreshold {threshold}: {pod.rate_per_s * pod.worked.mean_s:.1f} in work and {drain_s:g} s more")
    typer.echo(f"profile: {profile.provenance.command}; {profile.provenance.machine}")
