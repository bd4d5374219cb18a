"""What `mediasieve capacity` prints."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

import numpy as np
from rich.console import Console
from rich.table import Table

from pipeline.capacity.check import Row
from pipeline.capacity.host import cores_left, demand_s
from pipeline.capacity.observed import Repetition
from pipeline.capacity.profile import Profile
from pipeline.capacity.simulation.result import Result
from pipeline.capacity.sizing import Request, Sizing, StageSize
from pipeline.capacity.storage import Storage

_UNITS = ("B", "kB", "MB", "GB", "TB", "PB")


def sizing_facts(request: Request, sized: Sizing, stored: Storage) -> dict[str, Any]:
    """The same for programs."""
    facts = asdict(sized)
    facts["stages"] = {stage.value: made | {"stage": stage.value} for stage, made in facts["stages"].items()}
    return {"request": request.model_dump(), **facts, "storage": asdict(stored)}


def sizing(console: Console, request: Request, sized: Sizing, stored: Storage, profile: Profile) -> None:
    """The tables of a sizing, and where its numbers come from."""
    visits = request.visits
    console.print(
        f"{request.rate_per_s:,.4g} references/s; {visits.spectral:.1%} reach tier 2, {visits.mllm:.1%} tier 3, "
        f"{visits.retry:.1%} of the fetches are tried again",
        markup=False,
    )
    console.print(_stages(request, sized))
    console.print(_storage(stored))
    console.print(
        f"time to decision, {request.within:.0%}: {sized.fast_q_s:.3g} s by tiers 1 and 2; "
        f"{sized.slow_q_s:.3g} s by tier 3"
    )
    for stage in sized.stages.values():
        unknown = "; GPUs not known: give --mllm-seconds" if stage.gpus is None else ""
        console.print(f"{stage.stage}: times {stage.source}{unknown}", markup=False)
    for text in sized.unmet:
        console.print(f"NOT MET: {text}", style="red", markup=False)
    made = profile.provenance
    console.print(f"profile: {made.command}; {made.machine}; {made.measured_at}; n = {made.references}", markup=False)
    console.print(made.remark, style="dim", markup=False)


def _stages(request: Request, sized: Sizing) -> Table:
    """A column a stage: that fits 80 characters."""
    table = Table("", *sized.stages, title=f"stages, {request.headroom:.0%} headroom", title_justify="left")
    rows = [_cells(request, stage) for stage in sized.stages.values()]
    for name in rows[0]:
        table.add_row(name, *(cells[name] for cells in rows))
    return table


def _cells(request: Request, stage: StageSize) -> dict[str, str]:
    return {
        "items/s": f"{stage.rate_per_s:,.4g}",
        "a replica's most": f"{stage.replica_rate_per_s:,.3g}/s",
        "replicas": f"{stage.replicas:,}",
        "busiest replica": f"{stage.utilisation:.0%}",
        f"its wait, {request.within:.0%}": f"{stage.wait.quantile(stage.within):.3g} s",
        f"wait, work, commit, {request.within:.0%}": f"{stage.latency_q_s:.3g} s",
        "partitions": f"{stage.partitions:,}",
        f"replicas at {request.burst:g} x the rate": f"{stage.burst_replicas:,}",
        "cores": f"{stage.cores:,g}",
        "GPUs": "not known" if stage.gpus is None else f"{stage.gpus:,g}",
        "lagThreshold": f"{stage.lag_threshold:,}",
    }


def _storage(stored: Storage) -> Table:
    table = Table("records", "1/s", "bytes", "kept, days", title="brokers and store", title_justify="left")
    for flow in stored.flows:
        table.add_row(
            flow.name, f"{flow.rate_per_s:,.4g}", f"{flow.record_bytes:,.0f}", f"{flow.retention_s / 86_400:g}"
        )
    for name, value in (
        ("disk of all brokers", size_text(stored.disk)),
        ("produced", f"{size_text(stored.produced_per_s)}/s"),
        ("between brokers", f"{size_text(stored.replicated_per_s)}/s"),
        ("consumed", f"{size_text(stored.consumed_per_s)}/s"),
        ("fetched from origins", f"{size_text(stored.fetched_per_s)}/s"),
        ("new in the content store", f"{size_text(stored.stored_per_day)}/day"),
        ("cores of the brokers", f"{stored.broker_cores:.3g}"),
    ):
        table.add_row(name, value, "", "")
    return table


def size_text(value: float) -> str:
    """Bytes in powers of 1,000."""
    for unit in _UNITS:
        if value < 1000 or unit == _UNITS[-1]:
            return f"{value:,.3g} {unit}"
        value /= 1000
    raise AssertionError("unreachable: the last unit always returns")


def simulated_facts(result: Result) -> dict[str, Any]:
    """Counts, and the worst of each stage."""
    stages = {
        name: {
            "lag_most": max(series.lag),
            "lag_most_s": max(series.lag_s),
            "lag_end": series.lag[-1],
            "replicas_first": series.working[0],
            "replicas_most": max(series.working),
            "replicas_end": series.working[-1],
        }
        for name, series in result.stages.items()
    }
    return {
        "references": result.born,
        "decided": result.decided,
        "dead_letters": result.dead,
        "begun_twice": result.redone,
        "latency_mean_s": result.latency_s(),
        "latency_p95_s": result.latency_s(0.95),
        "stages": stages,
    }


def simulated(console: Console, facts: dict[str, Any]) -> None:
    """The same for people."""
    table = Table("stage", "most lag, records", "oldest, s", "lag at the end", "replicas: first", "most", "end")
    for name, stage in facts["stages"].items():
        cells = [f"{stage['lag_most']:,}", f"{stage['lag_most_s']:,.0f}", f"{stage['lag_end']:,}"]
        table.add_row(name, *cells, *(f"{stage[f'replicas_{when}']}" for when in ("first", "most", "end")))
    console.print(table)
    console.print(
        f"{facts['references']:,} references, {facts['decided']:,} decided, {facts['dead_letters']:,} dead letters, "
        f"{facts['begun_twice']:,} begun twice; time to decision {facts['latency_mean_s']:.2f} s on average, "
        f"{facts['latency_p95_s']:.2f} s for 95 %"
    )


def comparison(console: Console, made: Sequence[Repetition], tables: Sequence[Sequence[Row]]) -> None:
    """Each repetition's figures side by side, then the spread of the errors."""
    for number, (repetition, rows) in enumerate(zip(made, tables, strict=True), 1):
        a = repetition.runs[0]
        facts = ", ".join(f"{name} {run.rate_per_s:.2f}/s" for name, run in zip("ABC", repetition.runs, strict=True))
        left = "/".join(f"{cores_left(run):.2f}" for run in repetition.runs)
        table = Table(
            title=f"repetition {number}: {facts}; cores left {left}; {demand_s(a):.2f} core s a reference in A"
        )
        for name in ("run", "figure", "formula", "simulated (5 % to 95 % of runs)", "measured", "error"):
            table.add_column(name)
        for row in rows:
            spread = f"{row.predicted.mean:.3g} ({row.predicted.low:.3g} to {row.predicted.high:.3g})"
            formula = "-" if row.formula is None else f"{row.formula:.3g}"
            error = "-" if row.error is None else f"{row.error:+.0%}"
            table.add_row(row.run, row.figure, formula, spread, f"{row.measured:.3g}", error)
        console.print(table)
    inside = sum(r.predicted.low <= r.measured <= r.predicted.high for rows in tables for r in rows)
    console.print(f"measured within the simulated 5 % to 95 %: {inside} of {sum(map(len, tables))}")
    for column in zip(*tables, strict=True):
        errors = [r.error for r in column if r.error is not None]
        if errors:
            name = f"{column[0].run}, {column[0].figure}"
            console.print(f"error of {name}: {np.mean(errors):+.0%} ({min(errors):+.0%} to {max(errors):+.0%})")
