"""Waiting for a condition: the tests' only way to pass time."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import TypeVar

T = TypeVar("T")

POLL_S = 0.015


def wait_until(condition: Callable[[], T], timeout_s: float, what: str) -> T:
    """First true value of `condition`; asked once more at the deadline.

    Raises:
        AssertionError: names `what` when the time is over.
    """
    deadline_s = time.monotonic() + timeout_s
    while True:
        late = time.monotonic() > deadline_s
        if value := condition():
            return value
        if late:
            raise AssertionError(f"not within {timeout_s:g} s: {what}")
        time.sleep(POLL_S)
