"""`mediasieve inspect`: images through all stages, without Kafka."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Annotated

import orjson
import typer
from rich.console import Console

from pipeline.detection.mllm.backends.transformers import ModelUnusable
from pipeline.detection.mllm.trace import Trace
from pipeline.settings import load_settings
from schemas.decision import Outcome
from workers.cli.common import Json, logs_on_stderr, print_json
from workers.inspection import Inspection, Inspector
from workers.mllm.choice import ChoiceInvalid, choose
from workers.settings import Settings

_SHOWN_OF_A_TURN = ("finish", "latency_s", "prompt_tokens", "completion_tokens", "raw_sha256", "fault")
_STYLE = {Outcome.BLOCK: "bold red", Outcome.ESCALATE: "yellow", Outcome.PASS: "green"}


def inspect(
    paths: Annotated[list[Path], typer.Argument(exists=True, help="Image files, or folders (read at any depth).")],
    all_stages: Annotated[
        bool, typer.Option("--all-stages", help="Ask every stage, whatever the thresholds say.")
    ] = False,
    mllm: Annotated[
        str, typer.Option(help="Ask this model for every file: openai:URL[#MODEL] or transformers:PATH.")
    ] = "",
    panels: Annotated[Path, typer.Option(help="Folder for the spectral panels.")] = Path("var/inspect"),
    json: Json = False,
) -> None:
    """Decide on files as the fleet would, and write the spectral panel of each that reached stage 2.

    With --mllm the whole trace of the dialogue is printed: questions, answers, digests, tokens.

    Examples: mediasieve inspect photo.jpg --all-stages

    mediasieve inspect photo.jpg --mllm openai:http://127.0.0.1:8000/v1
    """
    settings = load_settings(Settings)
    if mllm:
        try:
            settings = settings.model_copy(update={"mllm": choose(mllm, settings.mllm)})
        except ChoiceInvalid as error:
            raise typer.BadParameter(str(error), param_hint="--mllm") from error
    with logs_on_stderr():
        try:
            _inspect_all(Inspector(settings, panels, all_stages=all_stages or bool(mllm)), paths, json)
        except ModelUnusable as error:
            raise typer.BadParameter(str(error), param_hint="--mllm") from error


def _inspect_all(inspector: Inspector, paths: list[Path], json: bool) -> None:
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
    if found.trace:
        _print_trace(console, found.trace)


def _print_trace(console: Console, trace: Trace) -> None:
    """Turn by turn as it went, then everything else of the manifest as JSON."""
    rest = trace.manifest()
    for turn, entry in zip(trace.turns, rest.pop("turns"), strict=True):
        console.print(f"  --- question ({turn.name})", style="bold", markup=False)
        console.print(turn.question, style="dim", markup=False)
        facts = ", ".join(f"{name} {entry[name]}" for name in _SHOWN_OF_A_TURN)
        console.print(f"  --- answer ({turn.name}): {facts}", style="bold", markup=False)
        console.print(turn.raw_text, markup=False)
    console.print("  --- trace", style="bold")
    console.print(orjson.dumps(rest, option=orjson.OPT_INDENT_2).decode(), markup=False)


def _number(value: float | None) -> str:
    return "-" if value is None else f"{value:.3f}"
