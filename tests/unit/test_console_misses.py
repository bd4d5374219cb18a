"""What stage 1 misses, on the dashboard."""

from __future__ import annotations

import sys
from datetime import UTC, datetime
from pathlib import Path

import pytest

from pipeline.evaluation.intervals import Interval
from pipeline.evaluation.monitoring.misses import Bounds, Truth, miss_report
from tests.support.consoles import OTHER_TENANT, office
from tests.support.pages import Browser
from workers.console.web.app import create_app
from workers.console.web.misses import ReportFailed, ReportProcess, StageOneMisses
from workers.web.principal import Role

SINCE, UNTIL = datetime(2026, 11, 1, tzinfo=UTC), datetime(2026, 11, 8, tzinfo=UTC)
REPORT = miss_report((), (), {}, SINCE, UNTIL).model_copy(
    update={
        "released": 40_000,
        "sampled": 412,
        "truths": dict.fromkeys(Truth, 0) | {Truth.REAL_BY_STAGES: 400, Truth.UNLABELLED: 12},
        "missed_share": Bounds(low=0.0, high=0.029, interval=Interval(0.0, 0.0504)),
        "fnr": Bounds(low=0.0, high=0.0375, interval=Interval(0.0, 0.0625)),
        "notes": ("12 of 412 samples have no label",),
    }
)


def test_the_estimate_is_shown_and_counts_only_to_who_sees_all_tenants(tmp_path: Path) -> None:
    misses = StageOneMisses(REPORT.model_dump_json, 3600.0)
    misses.measure()
    with office(tmp_path, misses=misses) as opened:
        opened.hire("sam", [OTHER_TENANT])
        opened.desk.accounts.add("chief", "correct horse battery", None, [Role.READ])
        with Browser(create_app(opened.desk)) as sam, Browser(create_app(opened.desk)) as chief:
            theirs, all_ = (
                browser.log_in(name).get("/dashboard").text for browser, name in ((sam, "sam"), (chief, "chief"))
            )
    for page in (theirs, all_):
        assert "0 % to 3.75 %" in page
        assert "95 % interval 0 % to 6.25 %" in page
    assert "412 of 40,000 passes" in all_
    assert "12 of 412 samples have no label" in all_
    assert "412" not in theirs
    assert "40,000" not in theirs


@pytest.mark.parametrize("said", ["", "{}", "no json"])
def test_a_report_that_cannot_be_read_is_no_estimate(said: str) -> None:
    misses = StageOneMisses(lambda: said, 3600.0)
    assert misses.misses()[0] is None
    assert "being measured" in misses.misses()[1]
    misses.measure()
    assert misses.misses() == (None, "It could not be measured; the console's log says why (misses_unknown).")


def test_an_old_estimate_is_not_shown_for_a_new_one() -> None:
    answers = [REPORT.model_dump_json()]
    misses = StageOneMisses(lambda: answers.pop() if answers else failing(), 3600.0)
    misses.measure()
    assert misses.misses() == (REPORT, "")
    misses.measure()
    assert misses.misses()[0] is None


def failing() -> str:
    raise ReportFailed("no broker answers")


def test_a_command_that_fails_is_told_with_its_last_line(monkeypatch: pytest.MonkeyPatch) -> None:
    report = ReportProcess(7.0)
    assert report.command[-2:] == ("--since", "10080m")
    monkeypatch.setattr(report, "command", (sys.executable, "-c", "import sys; sys.exit('first\\nlast line')"))
    with pytest.raises(ReportFailed, match=r"^last line$"):
        report()


def test_stopping_ends_the_command_that_runs(monkeypatch: pytest.MonkeyPatch) -> None:
    report = ReportProcess(7.0)
    monkeypatch.setattr(report, "command", (sys.executable, "-c", "import signal; signal.pause()"))
    misses = StageOneMisses(report, 3600.0, report.end)
    misses.start()
    misses.stop(timeout_s=60.0)
    assert not misses.is_running
    with pytest.raises(ReportFailed, match="the console ends"):
        report()
