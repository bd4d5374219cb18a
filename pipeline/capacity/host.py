"""One machine that carries everything: how much of it a reference needs, and what it can bear.

Service demand law, D = U / X, and the bound that follows, X <= cores / D (Denning and Buzen, The Operational Analysis
of Queueing Network Models, ACM Computing Surveys 10(3), 1978; Lazowska et al., Quantitative System Performance, 1984,
chapters 3 and 5). No assumption about distributions is needed.
"""

from __future__ import annotations

from pipeline.capacity.observed import LoadFailed, Observed


def demand_s(run: Observed) -> float:
    """Processor seconds for one reference: workers, broker, and the process that sends and reads.

    Right only for a run below saturation, in which what is begun is also finished.

    Raises:
        LoadFailed: nothing was answered.
    """
    if not run.answered:
        raise LoadFailed("no answers in the window: a longer run or a lower rate is needed")
    return (run.fleet_cores + run.driver_cpu_s / run.window_s) * run.window_s / run.answered


def cores_left(run: Observed) -> float:
    """Cores of the machine that nothing else kept busy during the run."""
    return max(0.05, run.cores - run.other_cores)


def saturation_per_s(demand: float, cores: float) -> float:
    """Most references a second."""
    return cores / demand
