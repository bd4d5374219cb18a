"""How long the parts of a stage's work took, item by item, in whichever process or thread it ran."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

import structlog

from pipeline.streaming.stage import Item, Outcome, Step

_here = threading.local()


@contextmanager
def step(name: str) -> Iterator[None]:
    """Time a part of the work, also when it raises. The name is one word of a fixed set: it labels a metric.

    The beginning is of the wall clock, the length of the monotonic one, so that no clock correction makes it negative.
    Outside of `with_steps` nothing is kept.
    """
    taken: list[Step] | None = getattr(_here, "steps", None)
    if taken is None:
        yield
        return
    start_ns, began_ns = time.time_ns(), time.monotonic_ns()
    try:
        yield
    finally:
        taken.append(Step(name, start_ns, start_ns + time.monotonic_ns() - began_ns))


def with_steps(work: Callable[[Item[Any]], Outcome], item: Item[Any]) -> Outcome:
    """Do the work on one item; the outcome says which steps it took. Log lines meanwhile name media id and trace."""
    _here.steps = taken = list[Step]()
    try:
        with structlog.contextvars.bound_contextvars(media_id=item.media_id, trace_id=item.trace_id):
            return replace(work(item), steps=tuple(taken))
    finally:
        _here.steps = None
