"""A map over processes that keeps the order, holds few requests at a time and survives a process that dies."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from multiprocessing import connection
from typing import Any, Generic, TypeVar

from pipeline.guarded_process import ChildDied, ChildRaised, ChildTimeout, GuardedProcess

T = TypeVar("T")

START_TIMEOUT_S = 600.0
"""Generous: a busy machine takes minutes to import and load."""

HELD_PER_PROCESS = 8
"""Requests taken before the oldest is answered, so that one slow image does not stop the others."""


class HandlerFailed(Exception):
    """The handler raised, or a process could not start: a bug or a bad bundle. The text holds the traceback."""


@dataclass(frozen=True, slots=True)
class Crashed:
    """No reply: the process died of the request, ran out of memory or took too long."""

    detail: str


@dataclass(slots=True)
class _Held(Generic[T]):
    request: T
    reply: Any = None
    done: bool = False


@dataclass(slots=True)
class _Child(Generic[T]):
    process: GuardedProcess
    job: _Held[T] | None = None
    job_by_s: float = 0.0


def ordered_map(
    make_handler: Callable[[], Callable[[T], Any]], requests: Iterable[T], *, processes: int, timeout_s: float
) -> Iterator[tuple[T, Any]]:
    """Yield (request, reply) in the order of the requests; the reply is `Crashed` when there is none.

    Args:
        make_handler: picklable; makes the handler in each process.
        requests: taken as they are needed.
        processes: how many, each with one thread.
        timeout_s: for one request; then its process is killed and replaced.

    Raises:
        HandlerFailed: the handler raised, or a process did not start.
    """
    children: list[_Child[T]] = [_Child(_spawn(make_handler)) for _ in range(processes)]
    try:
        for child in children:
            _wait_ready(child.process)
        yield from _run(children, make_handler, iter(requests), timeout_s)
    finally:
        for child in children:
            child.process.kill()


def _run(
    children: list[_Child[T]], make_handler: Callable[[], Callable[[T], Any]], requests: Iterator[T], timeout_s: float
) -> Iterator[tuple[T, Any]]:
    window: deque[_Held[T]] = deque()
    exhausted = False
    while True:
        for child in children:
            if child.job is None and not exhausted and len(window) < HELD_PER_PROCESS * len(children):
                try:
                    held = _Held(next(requests))
                except StopIteration:
                    exhausted = True
                    break
                window.append(held)
                _give(child, held, make_handler, timeout_s)
        if not window:
            return
        if not window[0].done:
            _collect(children, make_handler)
        while window and window[0].done:
            first = window.popleft()
            yield first.request, first.reply


def _give(child: _Child[T], held: _Held[T], make_handler: Callable[[], Callable[[T], Any]], timeout_s: float) -> None:
    child.job, child.job_by_s = held, time.monotonic() + timeout_s
    try:
        child.process.send(held.request)
    except (ChildDied, ChildTimeout) as error:
        _crashed(child, str(error), make_handler)


def _collect(children: list[_Child[T]], make_handler: Callable[[], Callable[[T], Any]]) -> None:
    """Wait until one process answers, dies or runs out of time."""
    busy = [child for child in children if child.job is not None]
    wait_s = max(0.0, min(child.job_by_s for child in busy) - time.monotonic())
    readable = set(connection.wait([child.process.connection for child in busy], wait_s))
    for child in busy:
        if child.process.connection in readable:
            _take(child, make_handler)
        elif time.monotonic() >= child.job_by_s:
            child.process.kill()
            _crashed(child, "took too long and was stopped", make_handler)


def _take(child: _Child[T], make_handler: Callable[[], Callable[[T], Any]]) -> None:
    try:
        reply = child.process.receive()
    except ChildRaised as error:
        if not error.out_of_memory:
            raise HandlerFailed(error.traceback_text) from None
        child.process.kill()
        _crashed(child, "ran out of memory", make_handler)
    except (ChildDied, ChildTimeout) as error:
        _crashed(child, str(error), make_handler)
    else:
        _settle(child, reply)


def _crashed(child: _Child[T], detail: str, make_handler: Callable[[], Callable[[T], Any]]) -> None:
    _settle(child, Crashed(f"the process that analysed it {detail}"))
    child.process = _spawn(make_handler)
    _wait_ready(child.process)


def _settle(child: _Child[T], reply: Any) -> None:
    assert child.job is not None  # noqa: S101 - only a child with a job is settled
    child.job.reply, child.job.done = reply, True
    child.job = None


def _spawn(make_handler: Callable[[], Callable[[T], Any]]) -> GuardedProcess:
    process = GuardedProcess(make_handler, name="score", start_timeout_s=START_TIMEOUT_S)
    process.spawn()
    return process


def _wait_ready(process: GuardedProcess) -> None:
    try:
        process.wait_ready()
    except (ChildRaised, ChildDied, ChildTimeout) as error:
        raise HandlerFailed(str(error)) from None
