"""Peaks in words, citations as places, charts as geometry, and the lag of the fleet."""

from __future__ import annotations

import re
from datetime import UTC, datetime, timedelta

import pytest

from pipeline.detection.spectral.features import NAMES
from pipeline.detection.spectral.panel import CURVE_BOX, HEIGHT_PX, MAP_PX, RESIDUAL_XY, SPECTRUM_XY, WIDTH_PX
from pipeline.streaming.kafka.admin import AdminError
from schemas.decision import Outcome
from schemas.media import Feature
from schemas.types import StageName
from tests.support.consoles import WallClock
from tests.support.mllm import report_data
from workers.console.domain.models import FlowCell, FlowHour, FlowStats, ScoreBin
from workers.console.web.charts import Tier, funnel, histogram, nice_ceiling, stacked
from workers.console.web.citations import citations, pieces
from workers.console.web.figures import figures, tiers
from workers.console.web.lag import FleetLag
from workers.console.web.peaks import peaks
from workers.gateway.backpressure import Progress

PEAK = Feature(name="log_peak_max_1_16", value=1.5, percentile=99.6)
SLOPE = Feature(name="radial_slope_alpha", value=1.2, percentile=3.0)


@pytest.mark.parametrize("name", NAMES)
def test_every_feature_has_words_and_no_mark_outside_of_the_panel(name: str) -> None:
    (peak,) = peaks((Feature(name=name, value=1.0),))
    assert peak.title != name.replace("_", " ")
    assert "no words" not in peak.meaning
    assert peak.strange == "No percentile was noted."
    for circle in peak.circles:
        assert SPECTRUM_XY[0] <= circle.x < SPECTRUM_XY[0] + MAP_PX
        assert SPECTRUM_XY[1] <= circle.y < SPECTRUM_XY[1] + MAP_PX
    for box in peak.boxes:
        assert 0 <= box.x < box.x + box.width <= WIDTH_PX
        assert 0 <= box.y < box.y + box.height <= HEIGHT_PX


def test_points_lie_where_the_panel_draws_them() -> None:
    (half,) = peaks((Feature(name="log_peak_max_1_2", value=1.0),))
    left, top = SPECTRUM_XY
    middle = MAP_PX / 2
    assert {(c.x, c.y) for c in half.circles} == {(left, top), (left, top + middle), (left + middle, top)}
    (sixteenths,) = peaks((PEAK,))
    assert len(sixteenths.circles) == 256 - 64
    (grid,) = peaks((Feature(name="harmonic_1_2_of_8", value=1.0),))
    assert len(grid.circles) == 8
    assert (left + (2 / 16 + 0.5) * MAP_PX, top + (4 / 16 + 0.5) * MAP_PX) in {(c.x, c.y) for c in grid.circles}


def test_bands_of_the_curve_lie_at_their_frequencies() -> None:
    (band,) = peaks((Feature(name="radial_0.250_0.281", value=1.0),))
    (box,) = band.boxes
    left, _, right, _ = CURVE_BOX
    assert box.x == pytest.approx((left + right) / 2)
    assert box.width == pytest.approx((right - left) * 0.031 / 0.5)
    (detail,) = peaks((Feature(name="luma_detail_1px_to_2px", value=1.0),))
    assert (detail.boxes[0].x, detail.boxes[0].y) == RESIDUAL_XY


def test_how_strange_a_feature_is_is_said_from_the_nearer_end() -> None:
    high, low = peaks((PEAK, SLOPE))
    assert high.strange == "Higher than in 99.6 % of the reference photographs."
    assert low.strange == "Lower than in 97.0 % of the reference photographs."
    assert (high.number, low.number) == (1, 2)


def test_a_feature_of_a_later_release_keeps_its_name() -> None:
    (unknown,) = peaks((Feature(name="wavelet_kurtosis", value=1.0),))
    assert unknown.title == "wavelet kurtosis"
    assert unknown.label_at is None


def test_citations_point_at_panel_image_and_feature() -> None:
    spectral, seen = citations(report_data(), peaks((PEAK, SLOPE)))
    assert (spectral.letter, spectral.peak, spectral.box) == ("A", 1, None)
    assert spectral.where == "spectrum, top left, high band, log_peak_max_1_16"
    assert seen.path is None
    assert seen.box is not None
    assert (seen.box.x, seen.box.y, seen.box.width, seen.box.height) == (60, 40, 30, 30)


@pytest.mark.parametrize("quadrant", ["top_left", "top_right", "bottom_left", "bottom_right", "centre", "whole"])
@pytest.mark.parametrize("band", ["low", "mid", "high", None])
def test_a_cited_band_is_drawn_in_its_part_of_the_spectrum(quadrant: str, band: str | None) -> None:
    seen = {"source": "spectrum", "band": band, "quadrant": quadrant, "observation": "x"}
    (cited,) = citations({"observations": [seen]}, ())
    assert cited.path is not None
    numbers = [tuple(map(float, pair)) for pair in re.findall(r"[MAL ](\d+\.\d) (\d+\.\d)(?=[AMLZ]| ?A|$)", cited.path)]
    centre = (SPECTRUM_XY[0] + MAP_PX / 2, SPECTRUM_XY[1] + MAP_PX / 2)
    ends = [(x, y) for x, y in numbers if (x, y) not in {(r, r) for r in (66.7, 133.3, 200.0)}]
    assert ends
    for x, y in ends:
        assert SPECTRUM_XY[0] - 0.1 <= x <= SPECTRUM_XY[0] + MAP_PX + 0.1
        assert SPECTRUM_XY[1] - 0.1 <= y <= SPECTRUM_XY[1] + MAP_PX + 0.1
        if quadrant == "top_left":
            assert x <= centre[0] + 0.1
            assert y <= centre[1] + 0.1
        if quadrant == "bottom_right":
            assert x >= centre[0] - 0.1
            assert y >= centre[1] - 0.1


@pytest.mark.parametrize("report", [None, {}, {"observations": "x"}, {"observations": [1, {"source": "smell"}]}])
def test_a_report_that_cannot_be_read_cites_nothing(report: dict[str, object] | None) -> None:
    assert citations(report, peaks((PEAK,))) == ()


def test_an_answer_is_cut_where_it_names_a_feature() -> None:
    cut = pieces("log_peak_max_1_16 and radial_slope_alpha, not log_peak_max_1_16x.", peaks((PEAK, SLOPE)))
    assert [(p.text, p.peak) for p in cut] == [
        ("log_peak_max_1_16", 1),
        (" and ", None),
        ("radial_slope_alpha", 2),
        (", not log_peak_max_1_16x.", None),
    ]
    assert "".join(p.text for p in pieces("any text", ())) == "any text"


SINCE = datetime(2026, 11, 1, 10, tzinfo=UTC)
FLOW = FlowStats(
    since=SINCE,
    cells=(
        FlowCell(stage=StageName.CLASSIFIER, outcome=Outcome.PASS, count=90),
        FlowCell(stage=StageName.CLASSIFIER, outcome=Outcome.ESCALATE, count=1),
        FlowCell(stage=StageName.SPECTRAL, outcome=Outcome.PASS, count=6),
        FlowCell(stage=StageName.MLLM, outcome=Outcome.BLOCK, count=2),
        FlowCell(stage=StageName.MLLM, outcome=Outcome.ESCALATE, count=1),
    ),
    hours=(
        FlowHour(at=SINCE, outcome=Outcome.PASS, count=96),
        FlowHour(at=SINCE + timedelta(hours=2), outcome=Outcome.BLOCK, count=2),
    ),
    scores=(ScoreBin(low=0.95, outcome=Outcome.BLOCK, count=2), ScoreBin(low=0.0, outcome=Outcome.PASS, count=96)),
    unscored=2,
)


def test_what_left_later_has_entered_before() -> None:
    first, second, third = tiers(FLOW)
    assert (first.entered, second.entered, third.entered) == (100, 9, 3)
    assert (first.went_on, second.went_on, third.went_on) == (9, 3, 0)


def test_the_dashboards_charts_hold_every_count_once() -> None:
    told = figures(FLOW, SINCE + timedelta(hours=3))
    assert told.total == 100
    assert [bar.said for bar in told.over_time.bars] == ["10:00: 96 pass", "12:00: 2 block"]
    by_outcome = {outcome: (count, [bar.said for bar in chart.bars]) for outcome, count, chart in told.scores}
    assert by_outcome[Outcome.BLOCK] == (2, ["0.95 to 1.00: 2"])
    assert by_outcome[Outcome.PASS] == (96, ["0.00 to 0.05: 96"])
    assert by_outcome[Outcome.ESCALATE] == (0, [])


def test_long_spans_have_wider_columns() -> None:
    assert figures(FLOW, SINCE + timedelta(hours=47)).column == "hour"
    assert figures(FLOW, SINCE + timedelta(days=7)).column == "6 hours"
    assert figures(FLOW, SINCE + timedelta(days=30)).column == "24 hours"


def test_an_empty_fleet_draws_empty_charts() -> None:
    told = figures(FlowStats(since=SINCE, cells=(), hours=(), scores=(), unscored=0), SINCE + timedelta(hours=3))
    assert told.total == 0
    assert told.over_time.is_empty
    assert all(chart.is_empty for _, _, chart in told.scores)


def test_bars_stand_on_each_other_and_never_above_the_axis() -> None:
    chart = stacked([("a", [("pass", 3), ("block", 7)]), ("b", [("pass", 1), ("block", 0)])], height=100.0)
    low, high, alone = chart.bars
    assert (low.y, low.height) == (70.0, 30.0)
    assert (high.y, high.height) == (0.0, 70.0)
    assert (alone.y, alone.height) == (90.0, 10.0)
    assert [tick.text for tick in chart.y_ticks] == ["0", "5", "10"]
    assert histogram([0, 4], "pass").bars[0].kind == "pass"


def test_a_funnel_is_as_wide_as_what_enters() -> None:
    drawn = funnel([Tier("one", 75, 0, 0, 25), Tier("two", 25, 0, 0, 0)])
    assert drawn.bands[0].points.startswith("0.0,0.0 640.0,0.0 480.0,")
    assert drawn.bands[1].share == 0.25


@pytest.mark.parametrize(("value", "wanted"), [(0, 1), (1, 1), (1.1, 2), (2.1, 5), (7, 10), (10, 10), (999, 1000)])
def test_axes_end_at_round_numbers(value: float, wanted: float) -> None:
    assert nice_ceiling(value) == wanted


def test_lag_is_known_after_two_measurements_and_unsaid_when_the_brokers_are_away() -> None:
    clock, read = WallClock(), [0]
    away = [False]

    def progress(stage: StageName) -> Progress:
        if away[0]:
            raise AdminError("no broker answers")
        return Progress(read[0], 50 if stage is StageName.MLLM else 0)

    lag = FleetLag(progress, clock)
    lag.measure()
    assert lag.lag()[0] == ()
    assert "not known yet" in lag.lag()[1]
    clock.now, read[0] = clock.now + 10.0, 100
    lag.measure()
    told = {one.stage: (one.records, one.seconds) for one in lag.lag()[0]}
    assert told == {StageName.CLASSIFIER: (0, 0.0), StageName.SPECTRAL: (0, 0.0), StageName.MLLM: (50, 5.0)}
    away[0] = True
    lag.measure()
    assert lag.lag() == ((), "The consumer lag is not known now: no broker answers")
