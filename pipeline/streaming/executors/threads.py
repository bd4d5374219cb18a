"""Runs one shared stage in threads: for stages that wait on a network, or on code that releases the GIL."""

from __future__ import annotations

import queue
from collections.abc import Sequence
from concurrent.futures import Future, ThreadPoolExecutor, wait
from contextlib import suppress
from typing import Generic

from pipeline.streaming.executors.base import (
    Completed,
    open_stage,
    process_batch,
    raising_stage_failed,
    require_free_slot,
)
from pipeline.streaming.stage import In, Item, Stage


class Threads(Generic[In]):
    """`slots` batches at once; the stage's `process` must be re-entrant.

    A thread cannot be killed: one that still runs when `close` has waited long enough is left behind, its
    stage closed beneath it, and the interpreter waits for it at exit.
    """

    def __init__(self, stage: Stage[In], slots: int) -> None:
        if slots < 1:
            raise ValueError(f"slots must be at least 1, got {slots}")
        self._stage = stage
        self._slots = slots
        self._pool: ThreadPoolExecutor | None = None
        self._running: set[Future[Completed]] = set()
        self._done: queue.SimpleQueue[Future[Completed]] = queue.SimpleQueue()

    def open(self) -> None:
        """See `Executor.open`."""
        with raising_stage_failed():
            open_stage(self._stage)
        self._pool = ThreadPoolExecutor(self._slots, thread_name_prefix="stage")

    def free_slots(self) -> int:
        """See `Executor.free_slots`."""
        return self._slots - len(self._running) if self._pool is not None else 0

    def submit(self, ticket: int, batch: Sequence[Item[In]]) -> None:
        """See `Executor.submit`."""
        require_free_slot(self.free_slots())
        assert self._pool is not None  # noqa: S101 - there is a free slot, so it is open
        future = self._pool.submit(self._process, ticket, tuple(batch))
        self._running.add(future)
        future.add_done_callback(self._done.put)

    def completed(self, timeout_s: float = 0.0) -> Sequence[Completed]:
        """See `Executor.completed`."""
        if not self._running:
            return ()
        finished = []
        with suppress(queue.Empty):
            finished.append(self._done.get(timeout=max(0.0, timeout_s)))
            while True:
                finished.append(self._done.get_nowait())
        self._running.difference_update(finished)
        return tuple(future.result() for future in finished)

    def close(self, timeout_s: float) -> None:
        """See `Executor.close`."""
        pool, self._pool = self._pool, None
        if pool is None:
            return
        finished = wait(self._running, timeout_s).done
        pool.shutdown(wait=False, cancel_futures=True)
        with raising_stage_failed():
            self._stage.close()
        for future in finished:
            future.result()

    def _process(self, ticket: int, batch: tuple[Item[In], ...]) -> Completed:
        with raising_stage_failed():
            return Completed(ticket, process_batch(self._stage, batch))
