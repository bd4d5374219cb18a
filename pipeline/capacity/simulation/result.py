"""What a run of the simulation gave."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np

from pipeline.detection.calibration import Floats


@dataclass(slots=True)
class Series:
    """One value for each sample of a stage."""

    lag: list[int] = field(default_factory=list)
    lag_s: list[float] = field(default_factory=list)
    working: list[int] = field(default_factory=list)
    wanted: list[int] = field(default_factory=list)


@dataclass(slots=True)
class Result:
    """Counts of all that happened; waits and latencies of what was decided after the warm-up, in seconds.

    `waits[stage]`: from a record's timestamp to the start of its work. `area`: references in the system, summed over
    the time after the warm-up.
    """

    seconds: float
    warm_up_s: float
    born: int = 0
    decided: int = 0
    dead: int = 0
    redone: int = 0
    decided_in_window: int = 0
    born_in_window: int = 0
    area: float = 0.0
    times_s: list[float] = field(default_factory=list)
    in_system: list[int] = field(default_factory=list)
    stages: dict[str, Series] = field(default_factory=dict)
    waits: dict[str, list[float]] = field(default_factory=dict)
    latencies: list[float] = field(default_factory=list)

    @property
    def window_s(self) -> float:
        """Time after the warm-up."""
        return self.seconds - self.warm_up_s

    @property
    def throughput_per_s(self) -> float:
        """Decisions and dead letters a second."""
        return self.decided_in_window / self.window_s

    @property
    def growth_per_s(self) -> float:
        """Slope of the references in the system."""
        times, counts = np.array(self.times_s), np.array(self.in_system)
        after = times >= self.warm_up_s
        return float(np.polyfit(times[after], counts[after], 1)[0]) if after.sum() > 1 else 0.0

    def wait_s(self, stage: str, level: float | None = None) -> float:
        """Mean wait of a stage, or a quantile; NaN when nothing got there."""
        return _of(self.waits[stage], level)

    def latency_s(self, level: float | None = None) -> float:
        """Mean time to decision, or a quantile; NaN without any."""
        return _of(self.latencies, level)


def _of(values: list[float], level: float | None) -> float:
    if not values:
        return float("nan")
    found: Floats = np.asarray(values, np.float64)
    return float(found.mean() if level is None else np.quantile(found, level))
