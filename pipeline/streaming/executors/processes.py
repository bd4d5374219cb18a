"""Runs one stage in each of N processes: for CPU-bound stages, and for code that may crash."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from multiprocessing import connection
from typing import Any, Generic

from pipeline.guarded_process import ChildDied, ChildRaised, ChildTimeout, GuardedProcess, Limits
from pipeline.streaming.executors.base import (
    Completed,
    StageFailed,
    open_stage,
    process_batch,
    raising_stage_failed,
    require_free_slot,
)
from pipeline.streaming.side_input import Adopting, SideInput
from pipeline.streaming.stage import In, Item, Outcome, Stage

_MAX_IDLE_DEATHS = 10
"""So many deaths without a ticket, and no result between them, mean that the stage cannot work here."""


@dataclass(frozen=True, slots=True)
class _Work(Generic[In]):
    """What crosses to the child. `side` holds the side input's value alone; empty where there is none."""

    batch: tuple[Item[In], ...]
    side: tuple[Any, ...]


@dataclass(frozen=True, slots=True)
class _Job(Generic[In]):
    ticket: int
    work: _Work[In]


@dataclass(slots=True)
class _Child(Generic[In]):
    """`job` is with the process when that is ready, and for it when it still starts."""

    process: GuardedProcess
    ready: bool = False
    job: _Job[In] | None = None
    job_by_s: float = 0.0


@dataclass(frozen=True, slots=True)
class _OpenStage(Generic[In]):
    """Runs in the child. The handler processes a batch, or closes the stage when the request is None."""

    make_stage: Callable[[], Stage[In]]

    def __call__(self) -> Callable[[_Work[In] | None], tuple[Outcome, ...] | None]:
        stage = self.make_stage()
        open_stage(stage)
        return partial(_serve, stage)


def _serve(stage: Stage[In], request: _Work[In] | None) -> tuple[Outcome, ...] | None:
    if request is not None:
        for value in request.side:
            if not isinstance(stage, Adopting):
                raise StageFailed(f"{type(stage).__qualname__} is given a side input but has no method `adopt`")
            stage.adopt(value)
        return process_batch(stage, request.batch)
    stage.close()
    return None


class Processes(Generic[In]):
    """`workers` spawned children, each with its own stage, each holding at most one ticket.

    A child that dies takes only its own ticket with it, and is replaced in the background; so does one that runs
    out of the memory that `limits` grant. `make_stage` must be picklable. With `side_input` the stage is `Adopting`.
    """

    def __init__(
        self,
        make_stage: Callable[[], Stage[In]],
        workers: int,
        ticket_timeout_s: float,
        *,
        start_timeout_s: float = 120.0,
        limits: Limits | None = None,
        side_input: SideInput[Any] | None = None,
    ) -> None:
        if workers < 1:
            raise ValueError(f"workers must be at least 1, got {workers}")
        self._open_stage = _OpenStage(make_stage)
        self._workers = workers
        self._ticket_timeout_s = ticket_timeout_s
        self._start_timeout_s = start_timeout_s
        self._limits = limits
        self._side_input = side_input
        self._children: list[_Child[In]] = []
        self._done: list[Completed] = []
        self._idle_deaths = 0

    def open(self) -> None:
        """See `Executor.open`. The children start in parallel, after the side input has its first value."""
        if self._side_input is not None:
            self._open_side_input(self._side_input)
        self._children = [_Child(self._spawn()) for _ in range(self._workers)]
        try:
            for child in self._children:
                child.process.wait_ready()
                child.ready = True
        except (ChildRaised, ChildDied, ChildTimeout) as error:
            self._kill_all()
            self._close_side_input()
            raise _open_failed(error) from None

    def free_slots(self) -> int:
        """See `Executor.free_slots`."""
        return sum(c.ready and c.job is None for c in self._children)

    def submit(self, ticket: int, batch: Sequence[Item[In]]) -> None:
        """See `Executor.submit`."""
        require_free_slot(self.free_slots())
        child = next(c for c in self._children if c.ready and c.job is None)
        child.job = _Job(ticket, _Work(tuple(batch), self._side()))
        self._send(child, child.job)

    def completed(self, timeout_s: float = 0.0) -> Sequence[Completed]:
        """See `Executor.completed`. Replaces dead children, so it has to be called regularly."""
        until_s = time.monotonic() + timeout_s
        slots = self.free_slots()
        while True:
            self._collect(until_s)
            if self._done or self.free_slots() > slots or time.monotonic() >= until_s:
                done, self._done = self._done, []
                return done

    def close(self, timeout_s: float) -> None:
        """See `Executor.close`. Children that are not done in time are killed, their stages not closed."""
        self._close_side_input()
        until_s = time.monotonic() + timeout_s
        failures: list[str] = []
        closing = {c.process.connection: c for c in self._children if c.ready}
        for child in list(closing.values()):
            if child.job is None and not _ask_to_close(child):
                del closing[child.process.connection]
        while closing and (left_s := until_s - time.monotonic()) > 0:
            readable = connection.wait(list(closing), left_s)
            closing = {c: k for c, k in closing.items() if c not in readable or not _closed(k, failures)}
        self._kill_all()
        if failures:
            raise StageFailed(failures[0])

    def _open_side_input(self, side_input: SideInput[Any]) -> None:
        try:
            with raising_stage_failed():
                side_input.open()
        except StageFailed:
            side_input.close()
            raise

    def _side(self) -> tuple[Any, ...]:
        if self._side_input is None:
            return ()
        with raising_stage_failed():
            return (self._side_input.current(),)

    def _close_side_input(self) -> None:
        if self._side_input is not None:
            self._side_input.close()

    def _spawn(self) -> GuardedProcess:
        process = GuardedProcess(
            self._open_stage, name="stage", limits=self._limits, start_timeout_s=self._start_timeout_s
        )
        process.spawn()
        return process

    def _send(self, child: _Child[In], job: _Job[In]) -> None:
        try:
            child.process.send(job.work)
        except (ChildDied, ChildTimeout):  # it died idle, which is not this ticket's doing
            self._replace_idle(child)
        child.job_by_s = time.monotonic() + self._ticket_timeout_s

    def _collect(self, until_s: float) -> None:
        """Wait for one thing to happen, until `until_s` at most, and take in all that has."""
        job_times_s = [c.job_by_s for c in self._children if c.ready and c.job is not None]
        start_times_s = [c.process.start_by_s for c in self._children if not c.ready]
        wait_s = max(0.0, min([until_s, *job_times_s, *start_times_s]) - time.monotonic())
        readable = set(connection.wait([c.process.connection for c in self._children], wait_s))
        for child in self._children:
            if not child.ready:
                self._take_start(child, child.process.connection in readable)
            elif child.process.connection in readable:
                self._take_reply(child)
            elif child.job is not None and time.monotonic() >= child.job_by_s:
                child.process.kill()
                self._crashed(child, str(ChildTimeout(self._ticket_timeout_s)))
        if self._idle_deaths >= _MAX_IDLE_DEATHS:
            raise StageFailed(f"{self._idle_deaths} stage processes in a row died without work; see their logs")

    def _take_start(self, child: _Child[In], readable: bool) -> None:
        if not readable and time.monotonic() < child.process.start_by_s:
            return
        try:
            child.process.wait_ready()
        except (ChildRaised, ChildTimeout) as error:
            raise _open_failed(error) from None
        except ChildDied:
            self._replace_idle(child)
        else:
            child.ready = True
            if child.job is not None:
                self._send(child, child.job)

    def _take_reply(self, child: _Child[In]) -> None:
        try:
            outcomes = child.process.receive()
        except ChildRaised as error:
            if error.out_of_memory:
                child.process.kill()
                self._crashed(child, "ran out of memory")
                return
            child.job = None
            raise StageFailed(error.traceback_text) from None
        except (ChildDied, ChildTimeout) as error:
            self._crashed(child, str(error))
            return
        assert child.job is not None  # noqa: S101 - a child speaks only when asked
        self._done.append(Completed(child.job.ticket, outcomes))
        child.job = None
        self._idle_deaths = 0

    def _crashed(self, child: _Child[In], how: str) -> None:
        if child.job is None:
            self._replace_idle(child)
            return
        self._done.append(Completed(child.job.ticket, None, how))
        child.process, child.ready, child.job = self._spawn(), False, None

    def _replace_idle(self, child: _Child[In]) -> None:
        """Replace a child that died before it got its job, which waits for the new one."""
        self._idle_deaths += 1
        child.process, child.ready = self._spawn(), False

    def _kill_all(self) -> None:
        for child in self._children:
            child.process.kill()
        self._children, self._done = [], []


def _ask_to_close(child: _Child[Any]) -> bool:
    try:
        child.process.send(None)
    except (ChildDied, ChildTimeout):
        return False
    return True


def _closed(child: _Child[Any], failures: list[str]) -> bool:
    """Take a reply of a child that is to close; False when it was its last job's and it is asked only now."""
    had_job, child.job = child.job is not None, None
    try:
        child.process.receive()
    except (ChildDied, ChildTimeout):
        return True
    except ChildRaised as error:
        failures.append(error.traceback_text)
    return not (had_job and _ask_to_close(child))


def _open_failed(error: ChildRaised | ChildDied | ChildTimeout) -> StageFailed:
    if isinstance(error, ChildRaised):
        return StageFailed(error.traceback_text)
    return StageFailed(f"a stage process was not opened: {error}; see its standard error")
