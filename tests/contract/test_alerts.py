"""Alert rules and the dashboard: each alert fires and stays quiet, and every expression names metrics that exist."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from pipeline.observability.metrics import METRICS, Kind, MetricSpec
from pipeline.observability.report_metrics import REPORT_METRICS
from tests.contract.test_docs import ROOT, anchor_of, anchors
from workers.names import WorkerName

MONITORING = ROOT / "deploy/monitoring"
TABLE = {spec.name: spec for spec in (*METRICS, *REPORT_METRICS)}
OUTSIDE = {"up", "ALERTS"}
"""What Prometheus itself tells."""
TARGET_LABELS = {"job", "instance"}
NEVER, ALWAYS = "vector(1) < 0", "vector(1)"


def promtool() -> str:
    """Raises Skipped where there is none, and Failed in continuous integration, which must have it."""
    found = shutil.which("promtool")
    if found is None:
        missing = "no promtool: install the distribution's package `prometheus`"
        if os.environ.get("CI"):
            pytest.fail(missing)
        pytest.skip(missing)
    return found


def run(*arguments: str, at: Path = MONITORING) -> subprocess.CompletedProcess[str]:
    return subprocess.run([promtool(), *arguments], cwd=at, capture_output=True, text=True, timeout=110, check=False)


def rules() -> list[dict[str, Any]]:
    found = yaml.safe_load((MONITORING / "alerts.yml").read_text())
    return [rule for group in found["groups"] for rule in group["rules"]]


def groups() -> dict[str, dict[str, Any]]:
    found = yaml.safe_load((MONITORING / "alerts_test.yml").read_text())
    return {test["name"]: test for test in found["tests"]}


def panels() -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = json.loads((MONITORING / "dashboard.json").read_text())["panels"]
    return found


def expressions() -> Iterator[tuple[str, str]]:
    for rule in rules():
        yield rule["alert"], rule["expr"]
    for panel in panels():
        for target in panel.get("targets", ()):
            yield f"{panel['title']}: {target['legendFormat']}", target["expr"]


def test_every_alert_fires_and_is_quiet_before() -> None:
    done = run("test", "rules", "alerts_test.yml")
    assert done.returncode == 0, done.stdout + done.stderr


def test_rules_and_scrape_configuration_are_valid() -> None:
    for arguments in (("check", "rules", "alerts.yml"), ("check", "config", "prometheus.yml")):
        done = run(*arguments)
        assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.parametrize("broken", [NEVER, ALWAYS])
def test_an_alert_that_never_fires_or_always_does_fails_its_test(broken: str, tmp_path: Path) -> None:
    found = yaml.safe_load((MONITORING / "alerts.yml").read_text())
    for group in found["groups"]:
        for rule in group["rules"]:
            rule |= {"expr": broken, "for": "0m"}
    (tmp_path / "alerts.yml").write_text(yaml.safe_dump(found))
    shutil.copy(MONITORING / "alerts_test.yml", tmp_path)
    done = run("test", "rules", "alerts_test.yml", at=tmp_path)
    failed = set(re.findall(r'alertname=\\"(\w+)\\"', done.stdout + done.stderr))
    assert failed == {rule["alert"] for rule in rules()}


def test_every_alert_has_a_test_of_both_kinds() -> None:
    tests = groups()
    assert {rule["alert"] for rule in rules()} == set(tests) - {"annotations"}
    for name, test in tests.items():
        if name != "annotations":
            assert [bool(one["exp_samples"]) for one in test["promql_expr_test"]] == [False, True], name


def test_every_alert_says_how_urgent_it_is_and_where_to_read_on() -> None:
    for rule in rules():
        assert rule["labels"]["severity"] in {"page", "ticket"}
        page, _, anchor = rule["annotations"]["runbook_url"].partition("#")
        assert anchor in anchors(ROOT / page), rule["alert"]
        assert rule["annotations"]["summary"]
        assert rule["annotations"]["description"]


def test_every_alert_section_is_linked_by_an_alert() -> None:
    linked = {rule["annotations"]["runbook_url"].partition("#")[2] for rule in rules()}
    sections = (ROOT / "docs/operations.md").read_text().partition("\n## Alerts\n")[2]
    assert {anchor_of(heading) for heading in re.findall(r"^### (.+)$", sections, re.MULTILINE)} == linked


@pytest.mark.parametrize(("where", "expression"), [pytest.param(w, e, id=w) for w, e in expressions()])
def test_every_expression_names_metrics_and_labels_of_the_table(where: str, expression: str) -> None:
    bare = re.sub(r'"[^"]*"', '""', expression)
    selectors = re.findall(r"\b(mediasieve_\w+|up|ALERTS)\b(?:\{([^}]*)\})?", bare)
    assert selectors, "an expression that reads nothing"
    for name, matchers in selectors:
        if name in OUTSIDE:
            continue
        spec = _spec(name)
        used = set(re.findall(r"(\w+)\s*[=!]", matchers))
        assert used <= {*spec.labels, *TARGET_LABELS, "le"}, name
    grouped = {label.strip() for found in re.findall(r"\bby \(([^)]*)\)", bare) for label in found.split(",")}
    known = {label for name, _ in selectors if name not in OUTSIDE for label in _spec(name).labels}
    assert grouped <= known | TARGET_LABELS | {"le"}


def _spec(name: str) -> MetricSpec:
    """The row of a series; a histogram's are those with a suffix and no other."""
    base = re.sub(r"_(bucket|sum|count)$", "", name)
    assert name in TABLE or base in TABLE, f"{name} is in no table"
    spec = TABLE.get(name) or TABLE[base]
    assert (name != spec.name) == (spec.kind is Kind.HISTOGRAM), f"{name} of a {spec.kind}"
    return spec


def test_every_worker_is_scraped_under_its_name() -> None:
    jobs = [job["job_name"] for job in yaml.safe_load((MONITORING / "prometheus.yml").read_text())["scrape_configs"]]
    assert set(jobs) == {*WorkerName, "reports"}


def test_the_dashboard_is_one_screen() -> None:
    found = panels()
    assert max(p["gridPos"]["y"] + p["gridPos"]["h"] for p in found) <= 24
    cells = [
        (x, y)
        for p in found
        for x in range(p["gridPos"]["x"], p["gridPos"]["x"] + p["gridPos"]["w"])
        for y in range(p["gridPos"]["y"], p["gridPos"]["y"] + p["gridPos"]["h"])
    ]
    assert len(cells) == len(set(cells)), "panels overlap"
    assert max(x for x, _ in cells) < 24
    assert len({p["id"] for p in found}) == len(found)
    assert all(p["description"] for p in found)
