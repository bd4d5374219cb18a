"""Who waits for a model server, and who no longer does."""

from __future__ import annotations

import time
from dataclasses import replace

import pytest

from pipeline.detection.mllm.chat import ServerUnavailable
from pipeline.streaming.stage import Defer, DeferScope, Item
from schemas.decision import ReasonCode
from tests.support.entries import item
from workers.mllm.breaker import NotAsked
from workers.mllm.shedding import gave_up, shed, too_old, waiting

OPEN = NotAsked("circuit open for 3.0 s more: HTTP 503", 3.0)
SPENT = NotAsked("tokens_per_minute=1000 spent", 4.0, ReasonCode.MLLM_OVERLOADED)
DOWN = ServerUnavailable("connection refused", 7.0)


def aged(seconds: float) -> Item[object]:
    return replace(item(), queued_at_s=time.time() - seconds)


@pytest.mark.parametrize("error", [OPEN, SPENT])
def test_what_waited_too_long_and_is_not_asked_is_given_to_people(error: NotAsked) -> None:
    reason = shed(aged(400.0), error, 300.0)
    assert reason is not None
    assert reason.code is error.code
    assert "waited 400 s" in reason.detail
    assert str(error) in reason.detail


@pytest.mark.parametrize(("seconds", "error"), [(200.0, OPEN), (400.0, DOWN), (200.0, DOWN)])
def test_the_young_and_those_that_were_asked_wait(seconds: float, error: ServerUnavailable) -> None:
    assert shed(aged(seconds), error, 300.0) is None


def test_what_is_older_than_people_may_wait_is_not_asked_about() -> None:
    reason = too_old(aged(400.0), 300.0)
    assert reason is not None
    assert reason.code is ReasonCode.MLLM_OVERLOADED
    assert too_old(aged(200.0), 300.0) is None


def test_waiting_lasts_as_long_as_was_asked() -> None:
    assert waiting(DOWN) == Defer(DeferScope.DEPENDENCY, "MLLM server: connection refused", 7.0)
    assert waiting(OPEN).retry_after_s == 3.0


def test_what_the_runner_gives_up_keeps_its_cause() -> None:
    assert gave_up(waiting(DOWN).cause) is ReasonCode.MLLM_UNAVAILABLE
    assert gave_up(waiting(OPEN).cause) is ReasonCode.MLLM_UNAVAILABLE
    assert gave_up(waiting(SPENT).cause) is ReasonCode.MLLM_OVERLOADED
    assert gave_up("content store: full") is None
