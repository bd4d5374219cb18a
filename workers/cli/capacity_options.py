"""Options that the commands of `mediasieve capacity` share, and what they mean."""

from __future__ import annotations

import json as jsonlib
from pathlib import Path
from typing import Annotated, Any

import typer
from pydantic import ValidationError

from pipeline.capacity import units
from pipeline.capacity.distribution import Distribution
from pipeline.capacity.profile import Profile, Source, Visits
from schemas.types import StageName

Rate = Annotated[str, typer.Option(help="References a second, minute or day: 500/s, 1e9/day.")]
Mix = Annotated[str | None, typer.Option(help="Shares: suspect=10%,anomalous=2%,retry=1%; otherwise the profile's.")]
PlanFile = Annotated[Path | None, typer.Option("--plan", help="Output of `mediasieve plan --json`, for the shares.")]
Sla = Annotated[str, typer.Option(help="Time to decision of what tier 1 or 2 decides.")]
SlaMllm = Annotated[str | None, typer.Option(help="Time to decision of what tier 3 decides; none: as it comes.")]
Within = Annotated[float, typer.Option(help="Share of the media for which the times hold.", min=0.5, max=0.999)]
Headroom = Annotated[float, typer.Option(help="Share of each stage's replicas that stays unused.", min=0, max=0.9)]
Measured = Annotated[Path | None, typer.Option(help="Profile of `capacity measure`; otherwise the packaged one.")]
ModelSeconds = Annotated[
    float | None, typer.Option("--mllm-seconds", help="Seconds of one image at your model server, all places taken.")
]
ModelPlaces = Annotated[int, typer.Option("--mllm-places", help="Images at once for each MLLM worker.", min=1)]
ModelGpus = Annotated[float, typer.Option("--mllm-gpus", help="GPUs behind one MLLM worker.", min=0)]
ModelSource = Annotated[
    str, typer.Option("--mllm-source", help="Where the seconds come from; printed with the result.")
]
Repetitions = Annotated[int, typer.Option(help="Fleets to start, one after the other.", min=1, max=20)]


def visits_of(mix: str | None, plan: Path | None, profile: Profile) -> Visits:
    """The shares that --mix or --plan give, otherwise the profile's."""
    if mix is not None and plan is not None:
        raise typer.BadParameter("give --mix or --plan, not both", param_hint="--mix")
    if plan is not None:
        try:
            load = jsonlib.loads(plan.read_text(encoding="utf-8"))["load"]
            return Visits(spectral=load["stage2"]["share"], mllm=load["stage3"]["share"])
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise typer.BadParameter(
                f"{plan}: no output of `mediasieve plan --json`: {error}", param_hint="--plan"
            ) from error
    return profile.visits if mix is None else parsed(units.mix, mix, "--mix")


def profile_of(measured: Path | None, seconds: float | None, places: int, gpus: float, source: str) -> Profile:
    """The profile; with seconds of a real model server in the place of the stub's."""
    profile = Profile.load(measured)
    if seconds is None:
        return profile
    worked = Distribution.constant(seconds)
    given = {"source": Source.GIVEN, "note": source, "worked": worked, "slots": places, "gpus": gpus}
    return profile.replaced(StageName.MLLM, **given)


def parsed(parse: Any, text: str, option: str) -> Any:
    """What `parse` makes of an option; what it refuses is the user's error."""
    try:
        return parse(text)
    except ValidationError as error:
        raise typer.BadParameter(error.errors(include_url=False)[0]["msg"], param_hint=option) from error
    except ValueError as error:
        raise typer.BadParameter(str(error), param_hint=option) from error
