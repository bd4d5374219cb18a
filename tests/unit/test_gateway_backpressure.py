"""Lag in seconds, and Retry-After from it."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from schemas.types import StageName
from workers.gateway.backpressure import MAX_RETRY_S, Backpressure, Lag, Progress, StageMeter


def meter(*seen: tuple[float, int, int], window_s: float = 60.0) -> StageMeter:
    made = StageMeter(window_s)
    for now_s, read, unread in seen:
        made.add(now_s, Progress(read, unread))
    return made


def test_one_measurement_says_nothing() -> None:
    assert meter((0, 0, 1000)).lag(None) is None


def test_lag_is_what_is_unread_over_the_rate() -> None:
    assert meter((0, 0, 1000), (10, 200, 900)).lag(None) == Lag(45.0, 900, 20.0)


def test_the_rate_is_that_of_the_window() -> None:
    moving = meter((0, 0, 0), (60, 6000, 0), (120, 6600, 600), (180, 7200, 600))
    assert moving.lag(None) == Lag(60.0, 600, 10.0)


def test_a_stage_that_stands_still_is_as_late_as_it_has_stood() -> None:
    still = meter((0, 5, 0), (100, 5, 7), (160, 5, 7), (200, 5, 9))
    assert still.lag(None) == Lag(200.0, 9, 0.0)
    assert still.lag(30.0) == Lag(30.0, 9, 0.0), "no later than the oldest submission"


def test_an_idle_stage_has_no_lag_however_long_it_is_idle() -> None:
    idle = meter((0, 5, 0), (1000, 5, 0), (2000, 5, 1))
    assert idle.lag(None) == Lag(1000.0, 1, 0.0)
    assert meter((0, 5, 0), (1000, 5, 0)).lag(None) == Lag(0.0, 0, 0.0)


def test_a_burst_after_a_quiet_night_is_no_lag() -> None:
    """The rate is how fast the stage works while it has work, not how much there was to do."""
    quiet = [(5.0 * n, n // 6, 0) for n in range(240)]  # one item in half a minute, each read at once
    begin_s, read = quiet[-1][0], quiet[-1][1]
    burst = [(begin_s + 5, read + 50, 950), (begin_s + 10, read + 150, 850)]
    assert meter(*quiet, burst[0], window_s=120.0).lag(5.0) == Lag(0.0, 950, 0.0), "not known yet, and new"
    assert meter(*quiet, *burst, window_s=120.0).lag(10.0) == Lag(42.5, 850, 20.0)


def test_time_without_work_does_not_count() -> None:
    stop_and_go = meter((0, 0, 100), (10, 100, 0), (50, 100, 0), (60, 100, 100), (70, 200, 100), window_s=120.0)
    assert stop_and_go.lag(None) == Lag(10.0, 100, 10.0)


def test_a_topic_made_anew_begins_anew() -> None:
    assert meter((0, 900, 0), (10, 3, 50)).lag(None) is None
    assert meter((0, 900, 0), (10, 3, 50), (20, 13, 40)).lag(None) == Lag(40.0, 40, 1.0)


@given(st.integers(1, 10**6), st.floats(0.01, 1e5), st.floats(1, 1e4))
def test_after_the_wait_the_stage_is_back_at_the_limit(unread: int, rate: float, limit_s: float) -> None:
    lag = Lag(unread / rate, unread, rate)
    wait_s = lag.retry_after_s(limit_s)
    if wait_s is None:
        assert lag.seconds <= limit_s
    elif wait_s < MAX_RETRY_S:
        assert (unread - rate * wait_s) / rate <= limit_s * (1 + 1e-9)
        assert (unread - rate * (wait_s - 1)) / rate >= limit_s * (1 - 1e-9) or wait_s == 1
    else:
        assert wait_s == MAX_RETRY_S


def test_the_stage_that_needs_longest_is_named() -> None:
    made = Backpressure((StageName.CLASSIFIER, StageName.MLLM), limit_s=10.0, window_s=60.0)
    assert made.refusal() is None
    unread = {StageName.CLASSIFIER: 300, StageName.MLLM: 900}
    for now_s in (0.0, 10.0):
        made.measure(now_s, lambda stage, now_s=now_s: Progress(int(100 + now_s * 10), unread[stage]), None)
    found = made.refusal()
    assert found is not None
    assert (found[0], found[2]) == (StageName.MLLM, 80)


def test_a_failed_measurement_leaves_the_last_one() -> None:
    made = Backpressure((StageName.CLASSIFIER,), limit_s=1.0, window_s=60.0)
    for now_s in (0.0, 10.0):
        made.measure(now_s, lambda _, now_s=now_s: Progress(int(now_s), 100), None)

    def away(_: StageName) -> Progress:
        raise OSError("away")

    with pytest.raises(OSError, match="away"):
        made.measure(20.0, away, None)
    assert made.lags[StageName.CLASSIFIER].seconds == 100.0
