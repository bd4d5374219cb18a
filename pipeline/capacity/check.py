"""Prediction against reality: run A gives the service times, runs B and C are predicted from them alone.

All stages' times are taken as they were in run A, what they lost to each other and to neighbours of the machine
included; the simulation starts empty and is watched through the same window as the fleet.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from pipeline.capacity.observed import LoadFailed, Observed, Repetition
from pipeline.capacity.queueing import wait
from pipeline.capacity.simulation.cascade import simulate
from pipeline.capacity.simulation.result import Result
from pipeline.capacity.simulation.scenario import LaneModel, Scenario, StageModel
from schemas.types import StageName

SEEDS = 40
_LOWEST, _HIGHEST = 0.05, 0.95
_IDLE_LEVEL = 0.02
"""Quantile of the waits of run A that is taken for a record's way through an idle fleet."""


@dataclass(frozen=True, slots=True)
class Range:
    """Mean over seeds, and the 5 % and 95 % quantiles of single runs."""

    mean: float
    low: float
    high: float


@dataclass(frozen=True, slots=True)
class Row:
    """One figure of one run. `formula`: without simulation; None where no formula says it."""

    run: str
    figure: str
    predicted: Range
    formula: float | None
    measured: float

    @property
    def error(self) -> float | None:
        """Predicted over measured, less one; None where next to nothing was measured."""
        return self.predicted.mean / self.measured - 1.0 if abs(self.measured) > 1e-3 else None


def capacity_per_s(a: Observed, slots: int) -> float:
    """References a second at which tier 3 is full, from run A.

    Raises:
        LoadFailed: nothing reached tier 3 in run A.
    """
    third = a.stages[StageName.MLLM]
    if third.worked is None:
        raise LoadFailed("run A: nothing reached tier 3; run longer, or send more that does")
    return slots / third.worked.mean_s / (third.items / a.answered)


def compare(repetition: Repetition, seeds: int = SEEDS) -> list[Row]:
    """Predicted and measured, for runs B and C.

    Raises:
        LoadFailed: in run A nothing reached some stage, or a run had no answers.
    """
    a, *others = repetition.runs
    rows: list[Row] = []
    for name, run in zip("BC", others, strict=True):
        results = [simulate(scenario(repetition, a, run, seed)) for seed in range(seeds)]
        rows += _rows(name, a, run, results, repetition.slots[StageName.MLLM])
    return rows


def scenario(repetition: Repetition, a: Observed, load: Observed, seed: int) -> Scenario:
    """Run A's fleet under another load. The seed is the simulation's: the real arrivals are not copied."""
    return Scenario(
        stages=tuple(_stage(repetition, a, name) for name in StageName),
        reach=tuple(a.stages[name].items / a.answered for name in StageName),
        rate_per_s=load.rate_per_s,
        seconds=load.seconds,
        seed=seed,
        warm_up_s=load.warm_up_s,
    )


def _stage(repetition: Repetition, a: Observed, name: StageName) -> StageModel:
    seen = a.stages[name]
    if seen.worked is None or seen.waited is None:
        raise LoadFailed(f"run A: nothing reached {name}; run longer, or send more that does")
    return StageModel(
        name=name.value,
        worked=seen.worked,
        cpu_share=0.0,
        slots=repetition.slots[name],
        cores=1.0,
        partitions=repetition.partitions,
        replicas=1,
        lanes=(LaneModel("all"),),
        transport_s=seen.waited.quantile(_IDLE_LEVEL),
        commit_interval_s=0.05,
        commit_s=seen.commit_s,
    )


def _rows(name: str, a: Observed, run: Observed, results: Sequence[Result], slots: int) -> list[Row]:
    third = a.stages[StageName.MLLM]
    worked = third.worked
    assert worked is not None  # noqa: S101 - `scenario` refuses a run A without
    if run.latency is None:
        raise LoadFailed(f"run {name}: no answers in the window; run longer, or at a lower rate")
    share = third.items / a.answered
    full = slots / worked.mean_s
    rate = run.rate_per_s
    through = rate * (1.0 - share) + min(rate * share, full)
    waits = wait(rate * share, worked.mean_s, worked.scv, slots)
    queue = waits.mean_s if waits.utilisation < 1.0 else None
    seen = run.stages[StageName.MLLM].waited

    def row(figure: str, of: Callable[[Result], float], formula: float | None, measured: float) -> Row:
        values = np.array([of(result) for result in results])
        values = values[~np.isnan(values)]
        low, high = np.quantile(values, [_LOWEST, _HIGHEST]).tolist()
        return Row(name, figure, Range(float(values.mean()), low, high), formula, measured)

    return [
        row("decisions, 1/s", lambda r: r.throughput_per_s, through, run.throughput_per_s),
        row("growth of the backlog, 1/s", lambda r: r.growth_per_s, max(0.0, rate - through), run.growth_per_s),
        row("wait before tier 3, mean, s", lambda r: r.wait_s("mllm"), queue, seen.mean_s if seen else float("nan")),
        row("time to decision, mean, s", lambda r: r.latency_s(), None, run.latency.mean_s),
        row("time to decision, 95 %, s", lambda r: r.latency_s(0.95), None, run.latency.quantile(0.95)),
    ]
