"""Waiting work is gathered by kind and cost, in order, and everybody hears of their own result."""

from __future__ import annotations

import threading
from collections.abc import Sequence
from concurrent.futures import Future, ThreadPoolExecutor

import pytest

from pipeline.detection.mllm.backends.batching import Batcher, BatcherClosed
from tests.support.waiting import wait_until


class Gate:
    """Runs batches once it is opened, and remembers them."""

    def __init__(self) -> None:
        self.open = threading.Event()
        self.begun = threading.Event()
        self.batches: list[list[str]] = []

    def __call__(self, batch: Sequence[str]) -> list[str | Exception]:
        self.batches.append(list(batch))
        self.begun.set()
        assert self.open.wait(10)
        return [KeyError(work) if work.startswith("bad") else work.upper() for work in batch]


def gathered(
    works: Sequence[tuple[str, str, tuple[int, ...]]], max_cost: int = 100
) -> tuple[list[list[str]], list[Future[str]]]:
    """The batches and answers when all `works` arrive in order while a first batch is running."""
    gate = Gate()
    batcher: Batcher[str, str] = Batcher(gate, max_cost)
    with ThreadPoolExecutor(len(works) + 1) as pool:
        pool.submit(batcher.submit, "first", "a", (1, 1))
        assert gate.begun.wait(10)
        futures = []
        for count, work in enumerate(works, 1):
            futures.append(pool.submit(batcher.submit, *work))
            wait_until(lambda count=count: len(batcher._waiting) == count, 10, "the work queued up")
        gate.open.set()
    batcher.close()
    return gate.batches[1:], futures


def test_what_waits_goes_together() -> None:
    batches, futures = gathered([(name, "a", (10, 10)) for name in "xyz"])
    assert batches == [["x", "y", "z"]]
    assert [future.result() for future in futures] == ["X", "Y", "Z"]


def test_a_batch_costs_its_rows_times_the_dearest_of_each_part() -> None:
    # (30 + 20) x 2 = 100 fits; a third row would cost 150. Alone, x and y cost 31 and 21.
    batches, _ = gathered([("x", "a", (30, 1)), ("y", "a", (1, 20)), ("z", "a", (1, 1))])
    assert batches == [["x", "y"], ["z"]]


def test_kinds_do_not_mix_and_the_oldest_goes_first() -> None:
    batches, _ = gathered([("x", "b", (1,)), ("y", "a", (1,)), ("z", "b", (1,))])
    assert batches == [["x", "z"], ["y"]]


def test_work_of_another_kind_does_not_make_a_batch_dearer() -> None:
    batches, _ = gathered([("x", "a", (40,)), ("y", "b", (90,)), ("z", "a", (40,))])
    assert batches == [["x", "z"], ["y"]]


def test_one_failure_is_its_own() -> None:
    _, (good, bad) = gathered([("good", "a", (1,)), ("bad", "a", (1,))])
    assert good.result() == "GOOD"
    with pytest.raises(KeyError, match="bad"):
        bad.result()


def test_a_runner_that_raises_is_heard_of_by_all_and_the_thread_goes_on() -> None:
    def run(batch: Sequence[str]) -> list[str | Exception]:
        if batch[0] == "poison":
            raise ArithmeticError("no")
        return list(batch)

    batcher: Batcher[str, str] = Batcher(run, 10)
    with pytest.raises(ArithmeticError):
        batcher.submit("poison", "a", (1,))
    assert batcher.submit("fine", "a", (1,)) == "fine"
    batcher.close()


def test_what_costs_more_than_a_batch_is_refused() -> None:
    batcher: Batcher[str, str] = Batcher(list, 10)
    with pytest.raises(ValueError, match="costs 11"):
        batcher.submit("x", "a", (5, 6))
    batcher.close()


def test_close_answers_what_waits_and_takes_nothing_more() -> None:
    gate = Gate()
    batcher: Batcher[str, str] = Batcher(gate, 1)
    with ThreadPoolExecutor(3) as pool:
        futures = [pool.submit(batcher.submit, name, "a", (1,)) for name in "xy"]
        assert gate.begun.wait(10)
        wait_until(lambda: len(batcher._waiting) == 1, 10, "the second queued up")
        closing = pool.submit(batcher.close)
        wait_until(lambda: batcher._closed, 10, "close was called")
        gate.open.set()
        assert sorted(future.result() for future in futures) == ["X", "Y"]
        closing.result()
    batcher.close()
    with pytest.raises(BatcherClosed):
        batcher.submit("z", "a", (1,))
