"""Code and table name the same metrics: none is told that is not described, none is described that is not told."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path

from pipeline.observability.metrics import METRICS
from pipeline.observability.report_metrics import REPORT_METRICS

ROOT = Path(__file__).parents[2]
TABLES = {ROOT / "pipeline/observability/metrics.py", ROOT / "pipeline/observability/report_metrics.py"}
_SERIES = re.compile(r"(?<=_seconds)_(sum|count|bucket)$")
NO_METRICS = {"mediasieve_reading", "mediasieve_turn"}
"""Keys that the code hangs its own things on in SQLAlchemy's connections."""
TABLE = {spec.name for spec in (*METRICS, *REPORT_METRICS)}


def named_in(path: Path) -> Iterator[str]:
    """Whole string literals that look like a metric's name."""
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Constant) and isinstance(node.value, str):
            value = node.value
            if value.startswith("mediasieve_") and value.isidentifier() and value not in NO_METRICS:
                yield _SERIES.sub("", value)


def test_code_tells_what_the_table_has_and_nothing_else() -> None:
    sources = [p for top in ("pipeline", "workers") for p in (ROOT / top).rglob("*.py") if p not in TABLES]
    told = {name for path in sources for name in named_in(path)}
    assert told - TABLE == set(), "not in the table"
    assert TABLE - told == set(), "told by nobody"


def test_no_row_is_there_twice() -> None:
    assert len(TABLE) == len(METRICS) + len(REPORT_METRICS)
