"""A report may only speak of what the model was shown."""

from __future__ import annotations

import json
from typing import Any

import pytest

from pipeline.detection.mllm.grounding import check_grounding
from pipeline.detection.mllm.report import ReportError, parse_report
from tests.support.mllm import report_data

NAMES = {"slope", "log_peak_max_1_16"}
SIZE = (160, 128)


def check(*changes: dict[str, Any]) -> None:
    """A report whose observations are those of `report_data`, each with its changes."""
    seen = [o | c for o, c in zip(report_data()["observations"], changes, strict=False)]
    data = report_data(observations=seen, hypothesis="gan", rank_guess=None)
    check_grounding(parse_report(json.dumps(data)), NAMES, SIZE)


def test_a_grounded_report_is_accepted() -> None:
    check({}, {})
    check({"feature": None}, {"feature": "slope", "region": None})


@pytest.mark.parametrize(
    ("spectral", "seen", "detail"),
    [
        ({"feature": "peak_of_doom"}, {}, "observations[0].feature: is not in the table"),
        ({"feature": "Slope"}, {}, "observations[0].feature"),
        ({"feature": ""}, {}, "observations[0].feature"),
        ({"band": None}, {}, "observations[0].band"),
        ({"region": [0, 0, 10, 10]}, {}, "observations[0].region: must be null for source spectrum"),
        ({}, {"band": "low"}, "observations[1].band: must be null for source image"),
        ({}, {"region": [150, 0, 11, 10], "quadrant": "top_right"}, "not inside image 1 of 160 x 128"),
        ({}, {"region": [0, 100, 10, 29], "quadrant": "bottom_left"}, "not inside image 1"),
        ({}, {"region": [10, 10, 0, 10], "quadrant": "top_left"}, "not inside image 1"),
        ({}, {"region": [10, 10, 5, 5], "quadrant": "bottom_right"}, "does not touch the quadrant bottom_right"),
        ({}, {"region": [0, 0, 40, 32], "quadrant": "centre"}, "does not touch the quadrant centre"),
    ],
)
def test_what_is_not_grounded_is_named(spectral: dict[str, Any], seen: dict[str, Any], detail: str) -> None:
    with pytest.raises(ReportError) as caught:
        check(spectral, seen)
    assert detail in caught.value.detail


@pytest.mark.parametrize(
    ("region", "quadrant"),
    [
        ([0, 0, 160, 128], "whole"),
        ([0, 0, 160, 128], "top_left"),
        ([79, 63, 2, 2], "bottom_right"),
        ([79, 63, 2, 2], "top_left"),
        ([0, 64, 80, 64], "bottom_left"),
        ([40, 32, 1, 1], "centre"),
    ],
)
def test_a_region_touches_its_quadrant(region: list[int], quadrant: str) -> None:
    check({}, {"region": region, "quadrant": quadrant})


def test_every_fault_is_named_at_once() -> None:
    with pytest.raises(ReportError) as caught:
        check({"feature": "x", "band": None}, {"band": "low"})
    assert [part.partition(":")[0] for part in caught.value.detail.split("; ")] == [
        "observations[0].feature",
        "observations[0].band",
        "observations[1].band",
    ]
