"""The report as one HTML file that needs nothing else: no script, no font, no request."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from jinja2 import Environment, StrictUndefined

from pipeline.evaluation import charts
from pipeline.evaluation.cascade import HOPED_FEWER_MLLM_CALLS
from pipeline.evaluation.columns import Columns
from pipeline.evaluation.report import CONTROL_PREFIX, Report, VariantReport
from pipeline.evaluation.tables import FPRS

TEMPLATE = Path(__file__).with_name("report.html.jinja")


def render(report: Report, columns: Mapping[str, Columns]) -> str:
    """The page. Every text of the report is escaped; the plots go in as they are, escaped by matplotlib."""
    environment = Environment(autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True)
    template = environment.from_string(TEMPLATE.read_text(encoding="utf-8"))
    control = next((c for name, c in columns.items() if name.startswith(CONTROL_PREFIX)), None)
    plots = {v.name: _charts(v, columns[v.name], control, report.threshold) for v in report.variants}
    return template.render(report=report, charts=plots, fprs=FPRS, hoped=HOPED_FEWER_MLLM_CALLS)


def _charts(variant: VariantReport, columns: Columns, control: Columns | None, threshold: float) -> dict[str, str]:
    generators = next((table.rows for table in variant.tables if table.title == "By generator"), ())
    return {
        "roc": charts.roc(columns, None if control is columns else control),
        "reliability": charts.reliability(variant.pooled),
        "histograms": charts.histograms(columns, threshold),
        "funnel": charts.funnel(variant.cascades),
        "generators": charts.fnr_by_group(generators) if generators else "",
        "rank": charts.fnr_by_rank(variant.shifts) if any(row.rank for row in variant.shifts) else "",
    }
