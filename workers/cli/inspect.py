"""`mediasieve inspect`: images through all stages, without Kafka."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

from pipeline.settings import load_settings
from schemas.decision import Outcome
from workers.cli.common import Json, print_json
from workers.inspection import Inspection, Inspector
from workers.settings import Settings

_STYLE = {Outcome.BLOCK: "bold red", Outcome.ESCALATE: "yellow", Outcome.PASS: "green"}


def inspect(
    paths: Annotated[list[Path], typer.Argument(exists=True, help="Image files, or folders (read at any depth).")],
    all_stages: Annotated[
        bool, typer.Option("--all-stages", help="Ask every stage, whatever the thresholds say.")
    ] = False,
    panels: Annotated[Path, typer.Option(help="Folder for the spectral panels.")] = Path("var/inspect"),
    json: Json = False,
) -> None:
    """Decide on files as the fleet would, and write the spectral panel of each that reached stage 2.

    Example: mediasieve inspect photo.jpg --all-stages
    """
    inspector = Inspector(load_settings(Settings), panels, all_stages=all_stages)
    inspector.open()
    try:
        for path in _files(paths):
            found = inspector.inspect(path)
            if json:
                print_json(found.as_json())
            else:
                _print(found)
    finally:
        inspector.close()


def _files(paths: list[Path]) -> Iterator[Path]:
    for path in paths:
        if path.is_dir():
            yield from (p for p in sorted(path.rglob("*")) if p.is_file())
        else:
            yield path


def _print(found: Inspection) -> None:
    console = Console(soft_wrap=True, highlight=False)
    verdict = found.verdict
    console.print(str(found.path), style="bold", markup=False)
    if found.image:
        facts = found.image.facts
        quality = f", quality ~{facts.jpeg_quality} {facts.chroma_subsampling}" if facts.jpeg_quality else ""
        lossless = "lossless" if facts.lossless else "lossy"
        console.print(f"  {facts.format} {facts.width}x{facts.height} {lossless}{quality}", markup=False)
    console.print(f"  classifier  {_number(found.classifier)}")
    analysis = found.analysis
    why = f"  not applicable: {analysis.not_applicable}" if analysis and analysis.not_applicable else ""
    stratum = f"  p-value {_number(analysis.p_value)}  stratum {analysis.stratum}" if analysis else ""
    console.print(f"  spectral    {_number(analysis.score if analysis else None)}{stratum}{why}", markup=False)
    for feature in analysis.top_features(4) if analysis and analysis.features else ():
        percentile = f"percentile {feature.percentile:.0f}" if feature.percentile is not None else ""
        console.print(f"                {feature.name} = {feature.value:.3g}  {percentile}", markup=False)
    console.print(f"  mllm        {_number(found.mllm)}")
    console.print(f"  fused       {_number(found.fused)}")
    risk = f"/{verdict.risk}" if verdict.risk else ""
    console.print(
        f"  {verdict.outcome}{risk} at {verdict.stage_exited}: {verdict.reason}", style=_STYLE[verdict.outcome]
    )
    if verdict.detail:
        console.print(f"    {verdict.detail}", style="dim", markup=False)
    if found.panel:
        console.print(f"  panel       {found.panel}", markup=False)


def _number(value: float | None) -> str:
    return "-" if value is None else f"{value:.3f}"
