"""Plots of simulated runs, as PNG: lag in records, lag in seconds, replicas."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import matplotlib as mpl
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from pipeline.capacity.simulation.result import Result, Series
from pipeline.capacity.simulation.scenario import Scenario

_COLOURS = ("#0072b2", "#d55e00", "#009e73")
"""Of the stages: from Okabe and Ito's palette, which people with colour-blindness can tell apart."""

_STYLE: dict[Any, Any] = {
    "font.size": 9,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "grid.alpha": 0.25,
    "legend.frameon": False,
    "lines.linewidth": 1.4,
}


def draw(scenario: Scenario, result: Result, title: str, path: Path) -> None:
    """Write the three plots of a run, one below the other, what happened shaded or marked."""
    with mpl.rc_context(_STYLE):
        figure = Figure(figsize=(8.0, 7.0), layout="constrained", facecolor="white")
        axes = figure.subplots(3, 1, sharex=True)
        minutes = np.array(result.times_s) / 60.0
        for (name, series), colour in zip(result.stages.items(), _COLOURS, strict=False):
            axes[0].plot(minutes, series.lag, color=colour, label=name)
            axes[1].plot(minutes, series.lag_s, color=colour, label=name)
            _replicas(axes[2], minutes, series, colour)
        for axis, label in zip(axes, ("lag, records", "age of the oldest record, s", "replicas"), strict=True):
            axis.set_ylabel(label)
            axis.set_ylim(bottom=0)
            _events(axis, scenario)
        axes[0].set_yscale("symlog", linthresh=10)
        axes[1].set_yscale("symlog", linthresh=1)
        for axis in axes[:2]:
            axis.set_ylim(bottom=0)
            axis.yaxis.set_major_formatter(lambda value, _: f"{value:,.0f}")
        axes[0].set_title(title, loc="left")
        axes[0].legend(loc="upper right", ncols=len(result.stages))
        axes[2].set(xlabel="minutes", xlim=(0, scenario.seconds / 60.0))
        axes[2].plot([], [], color="#555555", linestyle=":", label="wanted, not yet working")
        axes[2].legend(loc="upper right")
        figure.savefig(path, dpi=110, format="png")


def _replicas(axis: Axes, minutes: np.ndarray[Any, Any], series: Series, colour: str) -> None:
    axis.step(minutes, series.working, where="post", color=colour)
    axis.step(minutes, series.wanted, where="post", color=colour, linestyle=":", alpha=0.7)


def _events(axis: Axes, scenario: Scenario) -> None:
    for burst in scenario.bursts:
        axis.axvspan(burst.from_s / 60.0, burst.to_s / 60.0, color="#bbbbbb", alpha=0.35, linewidth=0)
    for slow in scenario.slowdowns:
        axis.axvspan(slow.from_s / 60.0, slow.to_s / 60.0, color="#e8c16a", alpha=0.4, linewidth=0)
    for loss in scenario.losses:
        axis.axvline(loss.at_s / 60.0, color="#aa0000", linewidth=1.0, linestyle="--")
