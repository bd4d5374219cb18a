"""One suite over every executor; below it, what only processes promise."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable, Iterator
from functools import partial
from multiprocessing.connection import wait
from pathlib import Path

import pytest

from pipeline.guarded_process import Limits
from pipeline.streaming.executors.base import Completed, Executor, StageFailed
from pipeline.streaming.executors.inline import Inline
from pipeline.streaming.executors.processes import Processes
from pipeline.streaming.executors.threads import Threads
from tests.support.spawning import bare_main  # noqa: F401 - a fixture
from tests.support.stages import DEFER, REJECT, ObedientStage, emitted, item

MakeExecutor = Callable[[Path, bool], Executor[str]]


def _inline(journal: Path, broken: bool) -> Executor[str]:
    return Inline(ObedientStage(journal, broken))


def _threads(journal: Path, broken: bool) -> Executor[str]:
    return Threads(ObedientStage(journal, broken), slots=2)


def _processes(journal: Path, broken: bool) -> Executor[str]:
    return Processes(partial(ObedientStage, journal, broken), workers=2, ticket_timeout_s=60)


SLOTS = {_inline: 1, _threads: 2, _processes: 2}
OPENED = {_inline: 1, _threads: 1, _processes: 2}


@pytest.fixture(params=SLOTS, ids=lambda make: make.__name__.strip("_"))
def make(request: pytest.FixtureRequest) -> MakeExecutor:
    return request.param  # type: ignore[no-any-return] # pytest types it as Any


@pytest.fixture
def journal(tmp_path: Path) -> Path:
    return tmp_path / "journal"


@pytest.fixture
def executor(make: MakeExecutor, journal: Path) -> Iterator[Executor[str]]:
    executor = make(journal, False)
    executor.open()
    yield executor
    executor.close(30)


def _collect(executor: Executor[str], count: int) -> list[Completed]:
    """Results in order of completion; calls that return nothing in time are bounded, so that a loss fails."""
    found: list[Completed] = []
    for _ in range(200):
        if len(found) >= count:
            return found
        found.extend(executor.completed(1.0))
    raise AssertionError(f"{len(found)} of {count} results")


def test_results_match_their_tickets(executor: Executor[str]) -> None:
    batches = {ticket: [f"m-{ticket}-{n}" for n in range(ticket % 4)] for ticket in range(20)}
    found: list[Completed] = []
    for ticket, values in batches.items():
        while executor.free_slots() == 0:
            found.extend(executor.completed(1.0))
        executor.submit(ticket, [item(v) for v in values])
    found.extend(_collect(executor, len(batches) - len(found)))
    assert {c.ticket: c.outcomes for c in found} == {
        ticket: tuple(emitted(v) for v in values) for ticket, values in batches.items()
    }
    assert len(found) == len(batches)


def test_every_fate_comes_back_equal(executor: Executor[str]) -> None:
    executor.submit(7, [item("reject"), item("defer"), item("m-1")])
    assert _collect(executor, 1) == [Completed(7, (REJECT, DEFER, emitted("m-1")))]


def test_slots_are_taken_by_submit_and_freed_by_completed(make: MakeExecutor, executor: Executor[str]) -> None:
    slots = SLOTS[make]  # type: ignore[index] # its keys are such functions
    assert executor.free_slots() == slots
    for ticket in range(slots):
        executor.submit(ticket, [item("m-1")])
        assert executor.free_slots() == slots - ticket - 1
    with pytest.raises(RuntimeError, match="no free slot"):
        executor.submit(99, [item("m-1")])
    _collect(executor, slots)
    assert executor.free_slots() == slots


def test_nothing_submitted_nothing_completed(executor: Executor[str]) -> None:
    assert list(executor.completed()) == []


def test_the_stage_is_opened_before_its_first_batch_and_closed_once(make: MakeExecutor, journal: Path) -> None:
    executor = make(journal, False)
    executor.open()
    opened = journal.read_text().split("\n")[:-1]
    assert [line.split()[0] for line in opened] == ["open"] * OPENED[make]  # type: ignore[index] # as above
    executor.submit(1, [item("m-1")])
    _collect(executor, 1)
    executor.close(30)
    executor.close(30)
    pids = [line.split()[1] for line in opened]
    closed = [line.split()[1] for line in journal.read_text().splitlines() if line.startswith("close")]
    assert sorted(closed) == sorted(pids)


def test_close_waits_for_a_running_batch(make: MakeExecutor, journal: Path) -> None:
    executor = make(journal, False)
    executor.open()
    done = journal.with_name("done")
    executor.submit(1, [item(f"touch {done}")])
    executor.close(30)
    assert done.exists()
    assert journal.read_text().splitlines()[-1].startswith("close")


def test_a_stage_that_fails_to_open_is_closed_and_reported(make: MakeExecutor, journal: Path) -> None:
    executor = make(journal, True)
    with pytest.raises(StageFailed, match="RuntimeError: the model file is broken"):
        executor.open()
    calls = [line.split()[0] for line in journal.read_text().splitlines()]
    assert "close" in calls
    assert calls.count("open") >= calls.count("close")


def test_an_exception_of_the_stage_is_raised_by_completed(executor: Executor[str]) -> None:
    executor.submit(1, [item("m-1"), item("raise")])
    with pytest.raises(StageFailed) as caught:
        _collect(executor, 1)
    assert "ZeroDivisionError: asked to raise" in str(caught.value)
    assert "in _obey" in str(caught.value)


def test_a_wrong_number_of_outcomes_is_a_failure_of_the_stage(executor: Executor[str]) -> None:
    executor.submit(1, [item("m-1"), item("drop"), item("m-2")])
    with pytest.raises(StageFailed, match="returned 2 outcomes for 3 items"):
        _collect(executor, 1)


@pytest.mark.parametrize("make", [_threads, _processes], indirect=False)
def test_a_later_ticket_may_finish_first(make: MakeExecutor, journal: Path) -> None:
    executor = make(journal, False)
    executor.open()
    done = journal.with_name("done")
    executor.submit(1, [item(f"await {done}")])
    executor.submit(2, [item("m-2")])
    assert [c.ticket for c in _collect(executor, 1)] == [2]
    done.touch()
    assert [c.ticket for c in _collect(executor, 1)] == [1]
    executor.close(30)


@pytest.fixture
def processes(journal: Path) -> Iterator[Processes[str]]:
    executor = Processes[str](partial(ObedientStage, journal), workers=2, ticket_timeout_s=60)
    executor.open()
    yield executor
    executor.close(30)


def test_a_killed_process_costs_its_own_ticket_and_is_replaced(processes: Processes[str], journal: Path) -> None:
    done = journal.with_name("done")
    processes.submit(1, [item(f"await {done}")])
    processes.submit(2, [item("m-1"), item("sigkill")])
    assert _collect(processes, 1) == [Completed(2, None, "killed by SIGKILL")]
    done.touch()
    assert _collect(processes, 1) == [Completed(1, (emitted("await"),))]
    for _ in range(60):
        if processes.free_slots() == 2:
            break
        processes.completed(1.0)
    processes.submit(3, [item("m-3")])
    processes.submit(4, [item("m-4")])
    assert sorted(c.ticket for c in _collect(processes, 2)) == [3, 4]


def test_a_process_out_of_memory_costs_its_own_ticket(journal: Path) -> None:
    limits = Limits(memory_bytes=64 * 2**20)
    executor = Processes[str](partial(ObedientStage, journal), 1, ticket_timeout_s=30.0, limits=limits)
    executor.open()
    executor.submit(1, [item(f"allocate {2**30}")])
    assert _collect(executor, 1) == [Completed(1, None, "ran out of memory")]
    for _ in range(60):
        if executor.free_slots() == 1:
            break
        executor.completed(1.0)
    executor.submit(2, [item("m-2")])
    assert _collect(executor, 1) == [Completed(2, (emitted("m-2"),))]
    executor.close(30)


def test_a_ticket_beyond_its_time_is_a_crash(journal: Path) -> None:
    executor = Processes[str](partial(ObedientStage, journal), workers=1, ticket_timeout_s=1.0)
    executor.open()
    executor.submit(1, [item("hang")])
    assert _collect(executor, 1) == [Completed(1, None, "took longer than 1 s")]
    executor.close(30)


def test_processes_that_die_idle_cost_no_ticket(processes: Processes[str], journal: Path) -> None:
    for line in journal.read_text().splitlines():
        pidfd = os.pidfd_open(int(line.split()[1]))
        signal.pidfd_send_signal(pidfd, signal.SIGKILL)
        assert wait([pidfd], 30)
        os.close(pidfd)
    processes.submit(1, [item("m-1")])
    processes.submit(2, [item("m-2")])
    assert {c.ticket: c.outcomes for c in _collect(processes, 2)} == {1: (emitted("m-1"),), 2: (emitted("m-2"),)}


def test_close_kills_what_does_not_end(journal: Path) -> None:
    executor = Processes[str](partial(ObedientStage, journal), workers=1, ticket_timeout_s=3600)
    executor.open()
    executor.submit(1, [item("hang")])
    pid = int(journal.read_text().split()[1])
    executor.close(0.1)
    with pytest.raises(ProcessLookupError):
        os.kill(pid, 0)


def test_each_ticket_goes_to_one_process_at_a_time(processes: Processes[str], journal: Path) -> None:
    done = journal.with_name("done")
    processes.submit(1, [item(f"await {done}")])
    processes.submit(2, [item(f"touch {done}")])
    assert sorted(c.ticket for c in _collect(processes, 2)) == [1, 2]
    working = {line for line in journal.read_text().splitlines() if line.startswith("process")}
    assert len(working) == 2
