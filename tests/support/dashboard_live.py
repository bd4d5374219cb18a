"""A fleet under load, a real Prometheus beside it, and the dashboard's own panels drawn from what it scraped.

`python -m tests.support.dashboard_live PICTURE [SECONDS]` starts all of them. Grafana draws the same queries.
"""

from __future__ import annotations

import itertools
import math
import re
import shutil
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import matplotlib as mpl
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from pipeline.streaming.kafka.embedded import EmbeddedKafka
from tests.support.dashboard import Prometheus, Series, panels, running_prometheus
from tests.support.fleet import LiveFleet, command_line, running_fleet
from workers.demo_media import make_demo_media
from workers.names import DECIDING

_UNITS = {"ops": "a second", "s": "seconds", "short": "", "none": "", "percentunit": "share"}
_COLORS = {"green": "#2e7d32", "orange": "#b26a00", "red": "#b3261e"}


def main(picture: Path, seconds: float) -> None:
    """Load in bursts, so that lag is seen to come and go."""
    binary = shutil.which("prometheus")
    if binary is None:
        raise SystemExit("no prometheus: install the distribution's package `prometheus`")
    with TemporaryDirectory() as name, EmbeddedKafka() as kafka:
        directory = Path(name)
        make_demo_media(directory / "media")
        log = {**_log_settings(directory), "MEDIASIEVE_CLASSIFIER__AUDIT_SAMPLE__SHARE": "0"}
        with running_fleet(kafka, directory, dict.fromkeys(DECIDING, 1), log) as fleet:
            ports = {member.stage: [member.port] for member in fleet.fleet.members}
            with running_prometheus(binary, directory, ports) as prometheus:
                start_s = time.time()
                load(fleet, seconds)
                draw(prometheus, picture, start_s, time.time())


def _log_settings(directory: Path) -> dict[str, str]:
    keys = directory / "keys"
    made = command_line("audit", "keygen", str(keys), "--name", "dashboard")
    assert made.returncode == 0, made.stderr
    said = dict(line.split("=", 1) for line in made.stdout.split() if line.startswith("MEDIASIEVE_"))
    return {"MEDIASIEVE_AUDIT__LOG_NAME": "dashboard", "MEDIASIEVE_AUDIT__URL": (directory / "log").as_uri(), **said}


def load(fleet: LiveFleet, seconds: float) -> None:
    """Sample media, one reference in eight without a file behind it; 32 s slow, 8 s fast, in turns."""
    names = itertools.cycle(sorted(path.name for path in fleet.media.iterdir()))
    end_s = time.monotonic() + seconds
    while (left_s := end_s - time.monotonic()) > 0:
        for number in range(8):
            fleet.send(fleet.uri("no-such-file.jpg" if number == 7 else next(names)))
        time.sleep(4.0 if left_s % 40 < 8 else 20.0)


def draw(prometheus: Prometheus, picture: Path, start_s: float, end_s: float) -> None:
    """The grid as Grafana lays it out: 24 columns."""
    mpl.rcParams |= {"font.size": 7, "font.family": "DejaVu Sans", "axes.titlesize": 8, "axes.titleweight": "bold"}
    rows = max(p["gridPos"]["y"] + p["gridPos"]["h"] for p in panels())
    figure = Figure(figsize=(16, 9.5), facecolor="#f4f5f7")
    step_s = max(1.0, (end_s - start_s) / 300)
    for panel in panels():
        place = panel["gridPos"]
        margin = 0.004
        box = (place["x"] / 24, 1 - (place["y"] + place["h"]) / rows, place["w"] / 24, place["h"] / rows)
        axes = figure.add_axes((box[0] + 0.03, box[1] + 0.068, box[2] - 0.038, box[3] - 0.095))
        series = prometheus.panel(panel, start_s, end_s, step_s)
        if panel["type"] == "stat":
            axes.set_position((box[0] + margin, box[1] + margin, box[2] - 2 * margin, box[3] - 2 * margin))
            _stat(axes, panel, series)
        elif panel["type"] == "table":
            _table(axes, panel, series)
        else:
            _lines(axes, panel, series, start_s, step_s)
    figure.savefig(picture, dpi=110)


def _stat(axes: Axes, panel: Mapping[str, Any], series: Series) -> None:
    value = series[0][2][-1] if series else None
    color = "#8a8f98"
    if value is not None:
        steps = panel["fieldConfig"]["defaults"]["thresholds"]["steps"]
        color = _COLORS[[s["color"] for s in steps if s["value"] is None or value >= s["value"]][-1]]
    axes.set_facecolor(color)
    axes.set_xticks([])
    axes.set_yticks([])
    text = "no data" if value is None else _said(value, panel["fieldConfig"]["defaults"]["unit"])
    axes.text(0.5, 0.4, text, ha="center", va="center", fontsize=17, color="white", transform=axes.transAxes)
    axes.text(0.5, 0.84, panel["title"], ha="center", va="center", fontsize=9, color="white", transform=axes.transAxes)


def _said(value: float, unit: str) -> str:
    match unit:
        case "s":
            return f"{value:.1f} s" if value < 120 else f"{value / 60:.0f} min"
        case "percentunit":
            return f"{value:.1%}"
        case "ops":
            return f"{value:.2f}/s"
        case _:
            return f"{value:g}"


def _lines(axes: Axes, panel: Mapping[str, Any], series: Series, start_s: float, step_s: float) -> None:
    """Legend below, as the panel says; where there is no value there is no line."""
    defaults, overrides = panel["fieldConfig"]["defaults"], panel["fieldConfig"]["overrides"]
    stacked = "stacking" in defaults.get("custom", {})
    for name, times, values in series:
        short = re.sub(r"\bf[0-9a-f]{12}\.", "", name)  # the prefix of this run's topics
        elapsed, shown = _with_gaps([t - start_s for t in times], values, step_s)
        style = _style(overrides, short)
        (line,) = axes.plot(elapsed, shown, label=short, linewidth=1.1, marker=".", markersize=2, **style)
        if stacked:
            axes.fill_between(elapsed, shown, alpha=0.15, color=line.get_color())
    unit = _UNITS[defaults["unit"]]
    named = panel["title"] if not unit or panel["title"].endswith(unit) else f"{panel['title']}, {unit}"
    axes.set_title(named, loc="left", pad=3)
    axes.xaxis.set_major_formatter(lambda since_s, _: f"{since_s // 60:.0f}:{since_s % 60:02.0f}")
    axes.set_ylim(bottom=0)
    axes.grid(alpha=0.25)
    axes.set_facecolor("white")
    if series:
        below = {"loc": "upper center", "bbox_to_anchor": (0.5, -0.12), "ncols": 4 if len(series) > 4 else 3}
        axes.legend(fontsize=5.2, frameon=False, borderpad=0, columnspacing=1.0, handlelength=1.2, **below)
    else:
        axes.set_xticks([])
        axes.text(0.5, 0.5, "no data", ha="center", transform=axes.transAxes, color="#8a8f98")


def _with_gaps(times: Sequence[float], values: Sequence[float], step_s: float) -> tuple[list[float], list[float]]:
    """A NaN where points are missing, so that no line joins what lies on both sides."""
    found: list[tuple[float, float]] = []
    for at_s, value in zip(times, values, strict=True):
        if found and at_s - found[-1][0] > 1.5 * step_s:
            found.append((at_s, math.nan))
        found.append((at_s, value))
    return [t for t, _ in found], [v for _, v in found]


def _style(overrides: Sequence[Mapping[str, Any]], name: str) -> dict[str, Any]:
    """Colour and dashes of the first override of each kind whose regular expression the name matches."""
    style: dict[str, Any] = {}
    for override in overrides:
        if re.search(override["matcher"]["options"].strip("/"), name):
            for one in override["properties"]:
                if one["id"] == "color":
                    style.setdefault("color", one["value"]["fixedColor"])
                elif one["id"] == "custom.lineStyle":
                    style.setdefault("linestyle", "--")
    return style


def _table(axes: Axes, panel: Mapping[str, Any], series: Series) -> None:
    axes.set_axis_off()
    axes.set_title(panel["title"], loc="left", pad=3)
    for line, (name, _, values) in enumerate(series[:10]):
        axes.text(0.0, 0.94 - line * 0.1, f"{name[:70]}", transform=axes.transAxes, va="top")
        axes.text(1.0, 0.94 - line * 0.1, f"{values[-1]:g}", transform=axes.transAxes, va="top", ha="right")


if __name__ == "__main__":
    main(Path(sys.argv[1]), float(sys.argv[2]) if len(sys.argv) > 2 else 180.0)
