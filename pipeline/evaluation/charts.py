"""Plots of a report as inline SVG whose colours follow the page, so that they are legible in light and in dark."""

from __future__ import annotations

import io
import re
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import matplotlib as mpl
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from pipeline.detection.calibration import Floats
from pipeline.evaluation.cascade import CascadeFigures, ShiftRow
from pipeline.evaluation.columns import Columns
from pipeline.evaluation.tables import Figures, Row

_INK, _REAL, _SYNTHETIC, _CLASSIFIER, _SPECTRAL, _FUSED, _CONTROL = (f"#0000f{i}" for i in range(7))
_PAGE_COLOURS = {
    _INK: "currentColor",
    _REAL: "var(--real)",
    _SYNTHETIC: "var(--synthetic)",
    _CLASSIFIER: "var(--classifier)",
    _SPECTRAL: "var(--spectral)",
    _FUSED: "var(--fused)",
    _CONTROL: "var(--control)",
}
"""Stand-ins that matplotlib writes -> what the page's style sheet sets."""

_DETECTOR_COLOURS = {"classifier": _CLASSIFIER, "spectral": _SPECTRAL, "fused": _FUSED}
_STYLE: dict[Any, Any] = {
    "svg.fonttype": "none",
    "svg.hashsalt": "mediasieve",
    "font.family": "sans-serif",
    "font.size": 9,
    "text.parse_math": False,
    "text.color": _INK,
    "axes.edgecolor": _INK,
    "axes.labelcolor": _INK,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.facecolor": "none",
    "axes.titlesize": 10,
    "xtick.color": _INK,
    "ytick.color": _INK,
    "grid.color": _INK,
    "grid.alpha": 0.15,
    "figure.facecolor": "none",
    "savefig.facecolor": "none",
    "legend.frameon": False,
    "lines.linewidth": 1.6,
}
_BINS = 40
_CURVE_POINTS = 500
_MOST_ROWS = 40
_LONGEST_NAME = 48


def roc(columns: Columns, control: Columns | None) -> str:
    """True positive against false positive rate: linear, and with the low false positive rates spread out."""
    with mpl.rc_context(_STYLE):
        figure = Figure(figsize=(8.2, 3.6), layout="constrained")
        axes = figure.subplots(1, 2)
        for axis in axes:
            for name, scores in columns.scores.items():
                axis.plot(*roc_curve(scores, columns.synthetic), color=_DETECTOR_COLOURS[name], label=name)
            if control is not None:
                curve = roc_curve(control.scores["fused"], control.synthetic)
                axis.plot(*curve, color=_CONTROL, linestyle="--", label="fused, trace-free control")
            axis.set(xlabel="false positive rate", ylabel="true positive rate", ylim=(0, 1.01), xlim=(0, 1))
            axis.grid(True)
        axes[0].plot([0, 1], [0, 1], color=_INK, linewidth=0.6, linestyle=":")
        axes[0].legend(loc="lower right")
        axes[1].set(xscale="log", xlim=(1e-3, 1), title="the same, logarithmic")
        axes[1].set_xticks([1e-3, 1e-2, 1e-1, 1.0], ["0.1 %", "1 %", "10 %", "100 %"])
        return _svg(figure, "ROC curves of the three detectors")


def roc_curve(scores: Floats, synthetic: np.ndarray[tuple[int], np.dtype[np.bool_]]) -> tuple[Floats, Floats]:
    """(false, true positive rate) from the highest cut to the lowest; images without a score come in at the end."""
    order = np.argsort(-scores, kind="stable")
    made = synthetic[order]
    last = np.append(np.flatnonzero(scores[order][:-1] != scores[order][1:]), made.size - 1)
    true = np.cumsum(made)[last] / max(1, int(made.sum()))
    false = np.cumsum(~made)[last] / max(1, int((~made).sum()))
    kept = np.unique(np.linspace(0, last.size - 1, min(last.size, _CURVE_POINTS)).astype(np.int64))
    return np.r_[0.0, false[kept]], np.r_[0.0, true[kept]]


def reliability(pooled: Iterable[Figures]) -> str:
    """Share of generated images against mean probability, bins of equal mass."""
    with mpl.rc_context(_STYLE):
        figure = Figure(figsize=(4.2, 3.6), layout="constrained")
        axis = figure.subplots()
        axis.plot([0, 1], [0, 1], color=_INK, linewidth=0.6, linestyle=":")
        for detector in pooled:
            bins = detector.calibration.bins
            axis.plot(
                [b.mean_probability for b in bins],
                [b.synthetic_share for b in bins],
                marker="o",
                markersize=4,
                color=_DETECTOR_COLOURS[detector.detector],
                label=f"{detector.detector}, ECE {detector.calibration.ece:.3f}",
            )
        axis.set(xlabel="mean P(synthetic)", ylabel="share of generated images", xlim=(0, 1), ylim=(0, 1.01))
        axis.grid(True)
        axis.legend(loc="upper left")
        return _svg(figure, "Reliability of the probabilities")


def histograms(columns: Columns, threshold: float) -> str:
    """P(synthetic) of both classes, one panel a detector, with the threshold."""
    with mpl.rc_context(_STYLE):
        figure = Figure(figsize=(8.2, 2.6), layout="constrained")
        edges = np.linspace(0.0, 1.0, _BINS + 1)
        for axis, (name, scores) in zip(figure.subplots(1, 3, sharey=True), columns.scores.items(), strict=True):
            for chosen, colour, label in (
                (~columns.synthetic, _REAL, "real"),
                (columns.synthetic, _SYNTHETIC, "generated"),
            ):
                counts, _ = np.histogram(scores[chosen & np.isfinite(scores)], edges)
                axis.stairs(counts / max(1, int(chosen.sum())), edges, color=colour, fill=True, alpha=0.35)
                axis.stairs(counts / max(1, int(chosen.sum())), edges, color=colour, label=label)
            axis.axvline(threshold, color=_INK, linewidth=0.8, linestyle="--")
            axis.set(title=name, xlabel="P(synthetic)", xlim=(0, 1))
        figure.axes[0].set_ylabel("share of class")
        figure.axes[0].legend(loc="upper center")
        return _svg(figure, "Histograms of the scores by class")


def fnr_by_group(rows: Sequence[Row]) -> str:
    """FNR at the threshold of every row with its Clopper-Pearson interval, and the clustered one thinner."""
    shown = sorted(rows, key=lambda row: row.fused.at_threshold.fnr.share)[-_MOST_ROWS:]
    with mpl.rc_context(_STYLE):
        figure = Figure(figsize=(8.2, 0.7 + 0.22 * len(shown)), layout="constrained")
        axis = figure.subplots()
        for place, row in enumerate(shown):
            _point(axis, place, row)
        axis.set_yticks(range(len(shown)), [f"{_short(row.name)}  (n={row.fused.synthetic})" for row in shown])
        axis.set(xlabel="FNR at the threshold (thick: Clopper-Pearson; thin: clusters)", xlim=(-0.01, 1.01))
        axis.grid(True, axis="x")
        return _svg(figure, "False negative rate by group with intervals")


def _point(axis: Axes, place: int, row: Row) -> None:
    fnr = row.fused.at_threshold.fnr
    if row.fused.fnr_clustered is not None:
        axis.plot(row.fused.fnr_clustered, [place] * 2, color=_SYNTHETIC, linewidth=0.8)
    axis.plot([fnr.low, fnr.high], [place] * 2, color=_SYNTHETIC, linewidth=3.0, alpha=0.45)
    axis.plot([fnr.share], [place], marker="o", markersize=4, color=_SYNTHETIC)


def fnr_by_rank(rows: Sequence[ShiftRow]) -> str:
    """FNR at the threshold against rank, a line for each base and adapter type, Clopper-Pearson intervals."""
    ranked = [row for row in rows if row.rank is not None]
    lines: dict[tuple[str, str], list[ShiftRow]] = {}
    for row in ranked:
        lines.setdefault((row.base, row.adapter_type), []).append(row)
    colours = (_FUSED, _CLASSIFIER, _SPECTRAL, _SYNTHETIC, _REAL, _CONTROL)
    with mpl.rc_context(_STYLE):
        figure = Figure(figsize=(8.2, 3.6), layout="constrained")
        axis = figure.subplots()
        for number, ((base, kind), found) in enumerate(sorted(lines.items())):
            offset = 1.0 + 0.03 * (number - (len(lines) - 1) / 2)
            share = np.array([row.fnr.share for row in found])
            reach = np.array([[row.fnr.share - row.fnr.low, row.fnr.high - row.fnr.share] for row in found]).T
            axis.errorbar(
                [offset * (row.rank or 0) for row in found],
                share,
                yerr=np.abs(reach),
                marker="o",
                markersize=4,
                capsize=2,
                color=colours[number % len(colours)],
                label=_short(f"{base}, {kind}"),
            )
        ranks = sorted({row.rank or 0 for row in ranked})
        axis.set(xscale="log", xlabel="rank", ylabel="FNR at the threshold", ylim=(-0.01, 1.01))
        axis.set_xticks(ranks, [str(rank) for rank in ranks])
        axis.minorticks_off()
        axis.grid(True)
        axis.legend()
        return _svg(figure, "False negative rate by rank with intervals")


def funnel(cascades: Sequence[CascadeFigures]) -> str:
    """Share of each class that reaches every stage, by mode."""
    with mpl.rc_context(_STYLE):
        figure = Figure(figsize=(8.2, 2.4), layout="constrained")
        stages = ("classifier", "spectral", "MLLM")
        for axis, found in zip(figure.subplots(1, len(cascades), sharey=True, squeeze=False)[0], cascades, strict=True):
            totals = found.stages[0].reached_real, found.stages[0].reached_synthetic
            counts = [(s.reached_real, s.reached_synthetic) for s in found.stages]
            counts.append((found.fpr.count, found.fnr.total - found.fnr.count))
            for shift, column, colour, label in ((0.2, 0, _REAL, "real"), (-0.2, 1, _SYNTHETIC, "generated")):
                shares = [count[column] / max(1, totals[column]) for count in counts]
                places = [len(stages) - 1 - i + shift for i in range(len(stages))]
                axis.barh(places, shares, height=0.36, color=colour, alpha=0.6, label=label)
                for place, share in zip(places, shares, strict=True):
                    axis.text(share + 0.01, place, f"{share:.1%}", va="center")
            axis.set(title=f"{found.mode} mode", xlim=(0, 1.15), xlabel="share of the class that reaches the stage")
            axis.set_yticks([2, 1, 0], stages)
        figure.axes[0].legend(loc="lower right")
        return _svg(figure, "Share of each class that reaches every stage")


def _short(name: str) -> str:
    return name if len(name) <= _LONGEST_NAME else name[: _LONGEST_NAME - 1] + "…"


def _svg(figure: Figure, description: str) -> str:
    """The SVG element alone: no prologue, no metadata, no fixed colours, no fonts of its own."""
    buffer = io.StringIO()
    nothing: Mapping[str, None] = dict.fromkeys(("Date", "Creator", "Format", "Type"))
    figure.savefig(buffer, format="svg", metadata=dict(nothing))
    text = buffer.getvalue()
    text = text[text.index("<svg") :]
    text = re.sub(r"<metadata>.*?</metadata>", "", text, flags=re.DOTALL)
    text = re.sub(r"font: ([0-9.]+px) [^;\"]*", r"font: \1 sans-serif", text)
    for stand_in, colour in _PAGE_COLOURS.items():
        text = text.replace(stand_in, colour)
    return text.replace("<svg ", f'<svg role="img" aria-label="{description}" ', 1)
