"""What the monitoring commands share: times, metrics files, usage errors."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
import typer
from prometheus_client.parser import text_string_to_metric_families
from typer.testing import CliRunner

from pipeline.detection.policy import Fusion, Policy
from pipeline.evaluation.monitoring.drift import Change, DriftReport, What
from pipeline.evaluation.monitoring.misses import miss_report
from pipeline.observability.metrics import METRICS, Kind
from pipeline.observability.report_metrics import REPORT_METRICS, Reading, write_textfile
from tests.support.monitoring import NOW, released
from workers.cli.audit_sample import readings as audit_readings
from workers.cli.drift import readings as drift_readings
from workers.cli.drift import words
from workers.cli.main import app
from workers.cli.windows import window


def test_a_window_is_told_by_ages_or_times() -> None:
    assert window("7d", "90m", NOW).since == NOW - timedelta(days=7)
    assert window("7d", "90m", NOW).until == NOW - timedelta(minutes=90)
    given = window("2026-01-31T12:00:00+02:00", "2026-02-01T00:00:00Z")
    assert given.since == datetime(2026, 1, 31, 10, tzinfo=UTC)
    assert given.holds(given.since)
    assert not given.holds(given.until)


@pytest.mark.parametrize(
    ("since", "until", "fault"),
    [
        ("yesterday", "1h", "with its zone"),
        ("2026-01-31T12:00:00", "1h", "with its zone"),
        ("1h", "1h", "is not after"),
        ("999999d", "1h", "with its zone"),
    ],
)
def test_a_window_that_is_none_is_refused(since: str, until: str, fault: str) -> None:
    with pytest.raises(typer.BadParameter, match=fault):
        window(since, until, NOW)


def read(path: Path) -> dict[tuple[str, tuple[str, ...]], float]:
    families = text_string_to_metric_families(path.read_text(encoding="utf-8"))
    return {(s.name, tuple(s.labels.values())): s.value for family in families for s in family.samples}


def test_an_audit_report_becomes_gauges_and_what_is_unknown_is_absent(tmp_path: Path) -> None:
    path = tmp_path / "audit.prom"
    write_textfile(path, audit_readings(miss_report([released("a")], [], {}, NOW, NOW), 12.0))
    found = read(path)
    assert found["mediasieve_audit_report_items", ("released",)] == 1
    assert found["mediasieve_report_made_seconds", ("audit-sample",)] == 12
    assert found["mediasieve_classifier_fnr", ("interval_high",)] == 1
    assert ("mediasieve_classifier_fnr", ("low",)) not in found


def test_drift_becomes_gauges_by_source_whatever_it_is_called(tmp_path: Path) -> None:
    change = Change(
        source='a"b\\',
        what=What.CODEC,
        before=500,
        after=600,
        psi=0.7,
        by_chance=0.01,
        ks=None,
        p_value=0.0001,
        flagged=True,
        moved="webp_lossy",
        moved_before=0.1,
        moved_after=0.6,
    )
    found = DriftReport(reference_since=NOW, since=NOW, until=NOW, changes=(change,), untested={})
    assert words(change) == "webp_lossy 10.0% -> 60.0% (500 and 600 items, p 0.0001)"
    path = tmp_path / "drift.prom"
    write_textfile(path, drift_readings(found, 1.0))
    assert read(path)["mediasieve_drift_psi", ('a"b\\', "codec mix")] == 0.7
    assert read(path)["mediasieve_drift_flagged", ('a"b\\', "codec mix")] == 1


def test_a_metric_that_is_not_in_the_table_is_refused(tmp_path: Path) -> None:
    with pytest.raises(KeyError):
        write_textfile(tmp_path / "x.prom", [Reading("mediasieve_unheard_of", (), 1.0)])


def test_the_table_of_reports_is_no_part_of_the_workers() -> None:
    assert not {m.name for m in REPORT_METRICS} & {m.name for m in METRICS}
    assert all(m.kind is Kind.GAUGE and m.labels for m in REPORT_METRICS)


def test_a_policy_of_another_prior_is_not_replayed(tmp_path: Path) -> None:
    path = tmp_path / "policy.json"
    path.write_text(Policy(version="x", fusion=Fusion(prior=0.9)).model_dump_json(), encoding="utf-8")
    done = CliRunner().invoke(app, ["replay", "--from", "7d", "--policy", str(path)])
    assert done.exit_code == 2
    assert "fusion.prior 0.9 differs" in " ".join(done.output.replace("│", " ").split())


@pytest.mark.parametrize(
    ("arguments", "fault"),
    [
        (["evaluate"], "name a dataset, or give --suite weekly"),
        (["evaluate", "--suite", "weekly"], "needs the TOML file"),
        (["evaluate", ".", "--suite", "weekly"], "stands alone"),
        (["replay", "--from", "x", "--policy", "pyproject.toml"], "policy|JSON"),
    ],
)
def test_wrong_usage_names_the_way_out(arguments: list[str], fault: str) -> None:
    done = CliRunner().invoke(app, arguments)
    assert done.exit_code != 0
    text = " ".join((done.output + str(done.exception)).replace("│", " ").split())
    assert any(word in text for word in fault.split("|")), text
