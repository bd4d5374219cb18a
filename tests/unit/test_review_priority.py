"""The formula of the queue, and its bound."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from schemas.types import Priority
from tests.support.record_strategies import decisions
from tests.support.reviewing import escalated
from workers.console.domain.priority import latest_overtaker, priority, rank, urgency_of
from workers.console.domain.settings import PrioritySettings

SETTINGS = PrioritySettings(source_severity={"front-page": 0.5})
AT = 1_700_000_000.0

times = st.floats(0.0, 1e10)
shares = st.floats(0.0, 1.0)


@pytest.mark.parametrize(
    ("changes", "urgency"),
    [
        ({"score": 0.0, "scores": ()}, 0.0),
        ({"score": 0.4, "scores": (0.4,)}, 0.25),  # half-way to the block at 0.8
        ({"score": 0.9, "scores": (0.9,)}, 0.5),
        ({"score": None, "scores": ()}, 0.3125),  # as if at `uncertain`
        ({"score": 0.0, "scores": (0.1, 0.6)}, 0.1),
        ({"score": 0.0, "scores": (), "source": "front-page"}, 0.15),
        ({"score": 0.0, "scores": (), "priority": Priority.HIGH}, 0.3),
        ({"score": 1.0, "scores": (1.0, 0.0), "priority": Priority.HIGH}, 1.0),
    ],
)
def test_urgency_is_the_weighted_mean_of_its_parts(changes: dict[str, object], urgency: float) -> None:
    assert urgency_of(escalated(0, AT, **changes), SETTINGS) == pytest.approx(urgency)


def test_an_appeal_has_the_highest_severity() -> None:
    calm = escalated(0, AT, score=0.0, scores=())
    assert urgency_of(calm, SETTINGS, appealed=True) == pytest.approx(0.3)


@given(decisions(), shares, shares, shares)
def test_urgency_lies_between_0_and_1(decision: object, margin: float, disagreement: float, severity: float) -> None:
    settings = PrioritySettings(margin=max(margin, 1e-6), disagreement=disagreement, severity=severity)
    assert 0.0 <= urgency_of(decision, settings) <= 1.0  # type: ignore[arg-type]


@given(times, shares, times, shares, times)
def test_rank_orders_as_priority_does_at_any_time(opened: float, u: float, other: float, v: float, now: float) -> None:
    apart = rank(opened, u, SETTINGS) - rank(other, v, SETTINGS)
    ahead = priority(other, v, now, SETTINGS) - priority(opened, u, now, SETTINGS)
    assert apart / SETTINGS.ageing_s == pytest.approx(ahead, abs=1e-6)


@given(times, shares, shares, st.floats(1.0, 1e9))
def test_nothing_opened_after_the_bound_comes_first(opened: float, u: float, v: float, later: float) -> None:
    after = latest_overtaker(opened, u, SETTINGS) + later
    assert rank(after, v, SETTINGS) > rank(opened, u, SETTINGS)
    assert latest_overtaker(opened, u, SETTINGS) <= opened + SETTINGS.ageing_s
