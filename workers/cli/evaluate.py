"""`mediasieve evaluate`: what a bundle's verdicts are worth on labelled images."""

from __future__ import annotations

import json as json_text
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from pipeline.detection.bundle import Bundle
from pipeline.evaluation import report_text
from pipeline.evaluation.layouts import LAYOUTS, Dataset, open_dataset
from pipeline.evaluation.monitoring.weekly_sets import WeeklySets
from pipeline.evaluation.protocol import protocol_variants
from pipeline.evaluation.report import About, Report, build_report, write_json
from pipeline.evaluation.robustness.suites import SUITES
from pipeline.evaluation.score_row import ScoresError
from pipeline.evaluation.scoring import ScoringJob, score_dataset
from pipeline.evaluation.scoring_files import SCORES_FILE, former_progress, overlaps
from pipeline.evaluation.scoring_files import Progress as ScoringProgress
from workers.cli.common import Bootstrap, Json, print_json, settings_for
from workers.cli.weekly import WeeklyRun, now_utc, run_weekly
from workers.fleet_evaluation import score_through_fleet

REPORT_JSON = "report.json"
WEEKLY = "weekly"
REPORT_HTML = "report.html"


def evaluate(
    dataset: Annotated[
        Path | None,
        typer.Argument(help="Root of a dataset, or the one file that lists its images; none for the suite weekly."),
    ] = None,
    *,
    layout: Annotated[
        str | None, typer.Option(help=f"How it is arranged; otherwise detected. {', '.join(LAYOUTS)}")
    ] = None,
    split: Annotated[str | None, typer.Option(help="Only this split, where the layout has splits.")] = None,
    reals: Annotated[Path | None, typer.Option(help="Photographs that are published apart, where they are.")] = None,
    bundle: Annotated[Path | None, typer.Option(help="Bundle directory; none: the one in this package.")] = None,
    out: Annotated[
        Path | None, typer.Option(help="Folder of the run; none: var/evaluate/NAME. The same one goes on after a stop.")
    ] = None,
    processes: Annotated[int, typer.Option(help="Processes, one thread each; 0: one a core.", min=0, max=1024)] = 0,
    suite: Annotated[
        list[str] | None,
        typer.Option(
            help=f"Robustness suite, repeatable: {', '.join(SUITES)}; or {WEEKLY} alone: the sets of --sets, compared "
            "with the last run below --out."
        ),
    ] = None,
    sets: Annotated[
        Path | None, typer.Option(exists=True, dir_okay=False, help="With --suite weekly: TOML file of its sets.")
    ] = None,
    announce_it: Annotated[
        bool, typer.Option("--announce/--no-announce", help="With --suite weekly: publish a regression as OCSF event.")
    ] = True,
    protocol: Annotated[
        bool, typer.Option(help="Score equal-codec, trace-free and thumbnail copies beside (four times the work).")
    ] = True,
    threshold: Annotated[
        float | None, typer.Option(help="The one cut on P(synthetic); none: T2 of the policy.", min=0, max=1)
    ] = None,
    prevalence: Annotated[
        float, typer.Option(help="Share of generated images for which the load is predicted.", min=0, max=1)
    ] = 0.1,
    compare: Annotated[
        Path | None,
        typer.Option(exists=True, dir_okay=False, help="scores.jsonl of another bundle, same images."),
    ] = None,
    allow_training_images: Annotated[
        bool, typer.Option("--allow-training-images", help="Score what the bundle was trained on; the report says so.")
    ] = False,
    through_fleet: Annotated[
        bool,
        typer.Option("--through-fleet", help="Let a fleet of this machine decide, as delivered only."),
    ] = False,
    bootstrap: Bootstrap = None,
    json: Json = False,
) -> None:
    """Score labelled images and report error rates with intervals: tables here, report.html and report.json in --out.

    Images that fail or have no score stay in every count as not flagged. Exit codes: 0 the report is written; 1 Kafka
    or the fleet failed; 2 the dataset, the scores or the bundle cannot be used; 3 the suite weekly found a regression.

    Example: mediasieve evaluate ./GenImage --split val --suite delivery --out var/evaluate/genimage
    """
    if suite and WEEKLY in suite:
        _weekly(suite, dataset, sets, out, bundle, processes, bootstrap, announce_it=announce_it, json=json)
        return
    if dataset is None:
        raise typer.BadParameter("name a dataset, or give --suite weekly --sets FILE", param_hint="DATASET")
    render = _renderer()
    source = open_dataset(dataset, layout, reals=reals, split=split)
    job = ScoringJob(
        bundle_path=bundle,
        variants=protocol_variants() if protocol and not through_fleet else (),
        suites=() if through_fleet else _suites(suite or []),
        allow_training_images=allow_training_images,
    )
    home = out or Path("var/evaluate") / (dataset.resolve().stem or "dataset")
    console = Console(stderr=json)
    if through_fleet:
        with _progress(source, console) as on_progress:
            scores = score_through_fleet(job, source, home, bootstrap, on_progress)
    else:
        scores = _score(job, source, home, processes or os.cpu_count() or 1, console)
    about = _about(
        source,
        job,
        home,
        threshold=threshold,
        prevalence=prevalence,
        compare=compare,
        through_fleet=through_fleet,
    )
    report, columns = build_report(scores, about)
    write_json(report, home / REPORT_JSON)
    (home / REPORT_HTML).write_text(render(report, columns), encoding="utf-8")
    _print(report, home, json)


def _weekly(  # noqa: PLR0917 - the command's own options
    suite: list[str],
    dataset: Path | None,
    sets: Path | None,
    out: Path | None,
    bundle: Path | None,
    processes: int,
    bootstrap: str | None,
    *,
    announce_it: bool,
    json: bool,
) -> None:
    """Hand over to the weekly run, which has its datasets from a file."""
    if len(suite) > 1 or dataset is not None:
        raise typer.BadParameter(f"{WEEKLY} stands alone, without a dataset or another suite", param_hint="--suite")
    if sets is None:
        raise typer.BadParameter(f"--suite {WEEKLY} needs the TOML file of its sets", param_hint="--sets")
    settings = settings_for(bootstrap)
    run = WeeklyRun(
        sets=WeeklySets.load(sets),
        home=out or Path("var/evaluate") / WEEKLY,
        settings=settings,
        bundle_path=bundle or settings.bundle,
        processes=processes or os.cpu_count() or 1,
        now=now_utc(),
    )
    run_weekly(run, announce_it=announce_it, json=json)


def _renderer() -> Callable[..., str]:
    """Asked for first, so that a missing package does not show after hours of scoring."""
    try:
        from pipeline.evaluation.report_html import render  # noqa: PLC0415 - a second of imports that only this needs
    except ModuleNotFoundError as error:
        raise ScoresError(f"the report needs {error.name}: pip install 'mediasieve[evaluate]'") from error
    return render


def _suites(names: list[str]) -> tuple[str, ...]:
    unknown = [name for name in names if name not in SUITES]
    if unknown:
        raise typer.BadParameter(f"no suite {', '.join(unknown)}; there are {', '.join(SUITES)}", param_hint="--suite")
    return tuple(dict.fromkeys(names))


def _score(job: ScoringJob, source: Dataset, home: Path, processes: int, console: Console) -> Path:
    with _progress(source, console) as on_progress:
        return score_dataset(job, source, home, processes=processes, on_progress=on_progress)


@contextmanager
def _progress(source: Dataset, console: Console) -> Iterator[Callable[[ScoringProgress], None]]:
    columns = (BarColumn(), MofNCompleteColumn(), TextColumn("{task.fields[state]}"), TimeRemainingColumn())
    with Progress(*columns, console=console) as bar:
        task = bar.add_task("images", total=sum(1 for _ in source.samples()), state="")

        def show(progress: ScoringProgress) -> None:
            bar.update(task, completed=progress.images, state=f"{progress.failed} failed, {progress.refused} refused")

        yield show


def _about(
    source: Dataset,
    job: ScoringJob,
    home: Path,
    *,
    threshold: float | None,
    prevalence: float,
    compare: Path | None,
    through_fleet: bool,
) -> About:
    refused, scored = overlaps(home)
    return About(
        dataset=source.root.name or str(source.root),
        layout=source.layout,
        bundle=Bundle.load(job.bundle_path),
        scored_by="the fleet" if through_fleet else "processes of this machine",
        refused=refused,
        training_images=scored,
        mean_ms=former_progress(home).mean_ms(),
        threshold=threshold,
        prevalence=prevalence,
        compare=compare,
    )


def _print(report: Report, home: Path, json: bool) -> None:
    if json:
        print_json(json_text.loads(report.model_dump_json()))
        return
    console = Console(soft_wrap=False, highlight=False)
    for part in report_text.tables(report):
        console.print(part)
    console.print(f"\n{home / REPORT_HTML}\n{home / REPORT_JSON}\n{home / SCORES_FILE}", soft_wrap=True)
