"""Steps are timed where the work runs and come back with its outcome."""

from __future__ import annotations

import pickle
import threading
import time
from typing import Any

import pytest
import structlog

from pipeline.streaming.executors.base import Completed, Executor
from pipeline.streaming.executors.inline import Inline
from pipeline.streaming.executors.processes import Processes
from pipeline.streaming.executors.threads import Threads
from pipeline.streaming.stage import Defer, DeferScope, Emit, Item, Outcome, Reject, Step
from pipeline.streaming.steps import step, with_steps
from schemas.deadletter import RejectCode
from tests.support.entries import item


class TwoSteps:
    """Two steps an item."""

    def open(self) -> None:
        pass

    def process(self, batch: list[Item[Any]]) -> list[Outcome]:
        return [with_steps(self._one, each) for each in batch]

    def close(self) -> None:
        pass

    def _one(self, each: Item[Any]) -> Outcome:
        with step("decode"):
            pass
        with step("infer"):
            pass
        return Emit(())


@pytest.mark.parametrize("make", [Inline, lambda s: Threads(s, 2), lambda s: Processes(TwoSteps, 1, 30.0)])
def test_steps_come_back_from_every_executor(make: Any) -> None:
    executor: Executor[Any] = make(TwoSteps())
    before_ns = time.time_ns()
    executor.open()
    try:
        executor.submit(1, [item("a"), item("b")])
        done = list[Completed]()
        while not done:
            done.extend(executor.completed(1.0))
    finally:
        executor.close(5.0)
    outcomes = done[0].outcomes
    assert outcomes is not None
    for outcome in outcomes:
        assert [s.name for s in outcome.steps] == ["decode", "infer"]
        decode, infer = outcome.steps
        assert before_ns - 10**9 < decode.start_ns <= decode.end_ns
        assert infer.start_ns >= decode.start_ns


def test_a_step_that_raises_is_timed_too() -> None:
    def work(_: Item[Any]) -> Outcome:
        try:
            with step("fetch"):
                raise OSError("gone")
        except OSError:
            return Reject(RejectCode.SOURCE_GONE, "gone")

    assert [s.name for s in with_steps(work, item()).steps] == ["fetch"]


def test_steps_are_no_part_of_what_an_outcome_is() -> None:
    some = (Step("fetch", 1, 2),)
    assert Emit((), some) == Emit(())
    assert Defer(DeferScope.ITEM, "503", steps=some) == Defer(DeferScope.ITEM, "503")
    assert pickle.loads(pickle.dumps(Emit((), some))).steps == some


def test_outside_of_an_item_and_in_other_threads_nothing_is_kept() -> None:
    def work(_: Item[Any]) -> Outcome:
        def aside() -> None:
            with step("aside"):
                pass

        thread = threading.Thread(target=aside)
        thread.start()
        thread.join()
        return Emit(())

    with step("nobody asks"):
        pass
    assert with_steps(work, item()).steps == ()


def test_log_lines_meanwhile_name_the_item() -> None:
    said: list[dict[str, Any]] = []

    def work(_: Item[Any]) -> Outcome:
        said.append(structlog.contextvars.get_contextvars())
        return Emit(())

    with_steps(work, item("m-9"))
    assert said == [{"media_id": "m-9", "trace_id": item().trace_id}]
    assert "trace_id" not in structlog.contextvars.get_contextvars()
