"""What one run of a real fleet showed, and the profile that follows from it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated

import numpy as np
from pydantic import BaseModel, ConfigDict, Field

from pipeline.capacity.distribution import Distribution
from schemas.types import StageName


class LoadFailed(Exception):
    """A run that measures nothing; the text says why."""


class StageObserved(BaseModel):
    """One stage over the window of a run."""

    model_config = ConfigDict(frozen=True)

    items: int
    worked: Distribution | None
    waited: Distribution | None = Field(description="from the record's Kafka timestamp to the start of the work")
    cpu_s: float = Field(description="processor seconds of its processes")
    idle_cores: float = Field(description="the same before the load began, by second")
    commit_s: float = Field(description="mean of one commit since the start; 0 without any")


class Observed(BaseModel):
    """One load on one fleet. Times count from the first reference; the window begins after the warm-up."""

    model_config = ConfigDict(frozen=True)

    rate_per_s: float = Field(description="at which references were sent, as a Poisson process")
    seed: int
    seconds: float
    warm_up_s: float
    sent: int = Field(description="references in the window")
    answered: int = Field(description="decisions in the window")
    visits: dict[StageName, int] = Field(description="decisions in the window that went through the stage")
    stages: dict[StageName, StageObserved]
    latency: Distribution | None = Field(description="from the time a reference was due to its decision, in the window")
    in_system: Annotated[tuple[int, ...], Field(description="sent and not answered, at the end of each second")]
    broker_cpu_s: float
    driver_cpu_s: float = Field(description="of the process that sends and reads, and of the model stub")
    other_cores: float = Field(description="cores that everything else on the machine kept busy")
    cores: int

    @property
    def window_s(self) -> float:
        """Length of the window."""
        return self.seconds - self.warm_up_s

    @property
    def throughput_per_s(self) -> float:
        """Decisions a second."""
        return self.answered / self.window_s

    @property
    def growth_per_s(self) -> float:
        """By how many references a second the backlog grew: the slope of a straight line through the window."""
        return slope(self.in_system, self.warm_up_s)

    @property
    def fleet_cores(self) -> float:
        """Cores that workers and broker kept busy."""
        return (sum(s.cpu_s for s in self.stages.values()) + self.broker_cpu_s) / self.window_s


class Repetition(BaseModel):
    """Runs A, B and C on one fleet, in this order. `slots` and `partitions` are what it was started with."""

    model_config = ConfigDict(frozen=True)

    slots: dict[StageName, int]
    partitions: int
    runs: Annotated[tuple[Observed, ...], Field(min_length=3, max_length=3)]


def slope(by_second: Sequence[int], warm_up_s: float) -> float:
    """Least squares slope of what was counted at the end of each second, after the warm-up; 0 for one point."""
    first = int(warm_up_s)
    counted = np.asarray(by_second[first:], np.float64)
    if counted.size < 2:
        return 0.0
    return float(np.polyfit(np.arange(counted.size), counted, 1)[0])
