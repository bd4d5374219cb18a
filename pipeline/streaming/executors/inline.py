"""Runs the stage in the caller's thread: for tests, and for debugging with one process."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Generic

from pipeline.streaming.executors.base import (
    Completed,
    StageFailed,
    open_stage,
    process_batch,
    raising_stage_failed,
    require_free_slot,
)
from pipeline.streaming.stage import In, Item, Stage


class Inline(Generic[In]):
    """One slot; `submit` does the work, `completed` hands over its result."""

    def __init__(self, stage: Stage[In]) -> None:
        self._stage = stage
        self._done: Completed | StageFailed | None = None
        self._is_open = False

    def open(self) -> None:
        """See `Executor.open`."""
        with raising_stage_failed():
            open_stage(self._stage)
        self._is_open = True

    def free_slots(self) -> int:
        """See `Executor.free_slots`."""
        return 1 if self._is_open and self._done is None else 0

    def submit(self, ticket: int, batch: Sequence[Item[In]]) -> None:
        """See `Executor.submit`. A failure of the stage is kept for `completed`."""
        require_free_slot(self.free_slots())
        try:
            with raising_stage_failed():
                self._done = Completed(ticket, process_batch(self._stage, batch))
        except StageFailed as failure:
            self._done = failure

    def completed(self, timeout_s: float = 0.0) -> Sequence[Completed]:
        """See `Executor.completed`. Never waits."""
        done, self._done = self._done, None
        if isinstance(done, StageFailed):
            raise done
        return () if done is None else (done,)

    def close(self, timeout_s: float) -> None:
        """See `Executor.close`."""
        if self._is_open:
            self._is_open = False
            with raising_stage_failed():
                self._stage.close()
