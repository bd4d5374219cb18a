"""`mediasieve policy`: what the thresholds of a policy allow."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console

from pipeline.detection.bundle import DEFAULT_BUNDLE, Bundle
from pipeline.detection.policy import Policy, PolicyError
from pipeline.detection.reach import Reach, Span, reach
from workers.cli.common import Json, print_json

app = typer.Typer(help="Look at a policy's thresholds.", no_args_is_help=True, rich_markup_mode=None)


@app.callback()
def _group() -> None:
    """Keep `verify` a subcommand although it is the only one."""


@app.command()
def verify(
    path: Annotated[
        Path, typer.Argument(exists=True, help="Policy file or bundle directory; none: the bundle in this package.")
    ] = DEFAULT_BUNDLE,
    json: Json = False,
) -> None:
    """From which fused scores (p12) the third stage can block, and from which it can clear.

    Exit 2 when it can clear nothing, or can block all that reaches it. Where mllm_weight is 0 the ranges are those
    that mllm_clip would allow it; until it is above 0 the MLLM moves no score.

    Example: mediasieve policy verify ./policy.json
    """
    policy = Bundle.load(path).policy if path.is_dir() else Policy.load(path)
    found = reach(policy)
    if json:
        print_json(as_json(policy, found))
    else:
        _print(policy, found)
    faults = list(found.faults())
    if faults:
        raise PolicyError(f"{path}: {'; '.join(faults)}")


def as_json(policy: Policy, found: Reach) -> dict[str, Any]:
    """Spans as [low, high], or null."""
    return {
        "policy": policy.version,
        "mode": policy.mode.value,
        "mllm_weight": policy.fusion.mllm_weight,
        "shift": list(found.shift),
        "arriving": _ends(found.arriving),
        "block": _ends(found.block),
        "clear": _ends(found.clear),
        "faults": list(found.faults()),
    }


def _ends(span: Span | None) -> list[float] | None:
    return None if span is None else [span.low, span.high]


def _print(policy: Policy, found: Reach) -> None:
    console = Console(soft_wrap=True, highlight=False)
    down, up = found.shift
    console.print(f"policy {policy.version}, mode {policy.mode}", markup=False)
    console.print(f"  reaches stage 3   p12 {found.arriving}")
    console.print(f"  the MLLM moves    logit by {down:+.2f} to {up:+.2f}")
    console.print(f"  can be blocked    {_text(found.block)}")
    console.print(f"  can be cleared    {_text(found.clear)}")
    if not found.weighted:
        console.print("  mllm_weight is 0: the MLLM moves no score yet; the ranges are those of mllm_clip", style="dim")


def _text(span: Span | None) -> str:
    return "from nowhere" if span is None else f"p12 {span}"
