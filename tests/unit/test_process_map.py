from __future__ import annotations

import os
import signal
import time

import pytest

from pipeline.evaluation.process_map import HELD_PER_PROCESS, Crashed, HandlerFailed, ordered_map
from tests.support.spawning import bare_main  # noqa: F401 - a fixture


def make_handler():
    return handle


def handle(request):
    if request == "die":
        os.kill(os.getpid(), signal.SIGKILL)
    if request == "hang":
        time.sleep(60)
    if request == "raise":
        raise RuntimeError("a bug")
    if isinstance(request, float):
        time.sleep(request)
    return request


def broken_maker():
    raise ValueError("no such bundle")


def test_replies_come_in_the_order_of_the_requests_and_a_dead_process_costs_one_request():
    requests = [0.3, 1, 2, "die", 3, "hang", 4, 5]
    found = list(ordered_map(make_handler, requests, processes=2, timeout_s=3.0))
    assert [request for request, _ in found] == requests
    replies = [reply for _, reply in found]
    assert [*replies[:3], replies[4], *replies[6:]] == [0.3, 1, 2, 3, 4, 5]
    assert isinstance(replies[3], Crashed)
    assert "SIGKILL" in replies[3].detail
    assert "too long" in replies[5].detail


def test_requests_are_taken_only_as_they_are_needed():
    taken = []

    def requests():
        for number in range(1000):
            taken.append(number)
            yield number

    results = ordered_map(make_handler, requests(), processes=1, timeout_s=5.0)
    assert next(results) == (0, 0)
    assert len(taken) <= HELD_PER_PROCESS + 1
    results.close()


def test_a_handler_that_raises_is_a_bug_and_one_that_cannot_be_made_too():
    with pytest.raises(HandlerFailed, match="a bug"):
        list(ordered_map(make_handler, ["raise"], processes=1, timeout_s=5.0))
    with pytest.raises(HandlerFailed, match="no such bundle"):
        list(ordered_map(broken_maker, [1], processes=1, timeout_s=5.0))
