"""A thread that gathers waiting work into batches by its cost."""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable, Hashable, Sequence
from concurrent.futures import Future
from dataclasses import dataclass, field
from typing import Generic, TypeVar

Work = TypeVar("Work")
Result = TypeVar("Result")


class BatcherClosed(Exception):
    """No thread is left that would do the work."""


@dataclass(eq=False, slots=True)
class _Waiting(Generic[Work, Result]):
    work: Work
    kind: Hashable
    cost: tuple[int, ...]
    future: Future[Result] = field(default_factory=Future)


class Batcher(Generic[Work, Result]):
    """While one batch runs, what arrives waits and makes up the next: nothing is delayed to fill a batch.

    A batch begins with the oldest work and takes, in order, more of the same kind while its cost is within `max_cost`:
    rows x the sum of the dearest of each part, since rows are padded to the longest. Work of another kind waits for
    its turn, which comes because the oldest goes first.

    Args:
        run: answers a batch, in its order: a result or the exception that its `submit` raises. Called by one thread.
        max_cost: of one batch.
    """

    def __init__(self, run: Callable[[Sequence[Work]], Sequence[Result | Exception]], max_cost: int) -> None:
        self._run = run
        self._max_cost = max_cost
        self._waiting: deque[_Waiting[Work, Result]] = deque()
        self._changed = threading.Condition()
        self._closed = False
        self._thread = threading.Thread(target=self._serve, name="mllm-batches", daemon=True)
        self._thread.start()

    def submit(self, work: Work, kind: Hashable, cost: tuple[int, ...]) -> Result:
        """Wait for the result.

        Args:
            work: what `run` is given.
            kind: works of unequal kinds share no batch.
            cost: its parts, as many for every work.

        Raises:
            ValueError: alone it costs more than `max_cost`.
            BatcherClosed: after `close`.
        """
        if sum(cost) > self._max_cost:
            raise ValueError(f"costs {sum(cost)}, more than a whole batch may: {self._max_cost}")
        entry: _Waiting[Work, Result] = _Waiting(work, kind, cost)
        with self._changed:
            if self._closed:
                raise BatcherClosed("Batcher.submit after close")
            self._waiting.append(entry)
            self._changed.notify()
        return entry.future.result()

    def close(self) -> None:
        """Run what waits, then end the thread. A second call does nothing."""
        with self._changed:
            self._closed = True
            self._changed.notify()
        self._thread.join()

    def _serve(self) -> None:
        while batch := self._next():
            try:
                results = self._run([entry.work for entry in batch])
                answered = list(zip(batch, results, strict=True))
            except Exception as error:  # whoever waits must hear of it, or would wait for ever
                answered = [(entry, error) for entry in batch]
            for entry, result in answered:
                if isinstance(result, Exception):
                    entry.future.set_exception(result)
                else:
                    entry.future.set_result(result)

    def _next(self) -> list[_Waiting[Work, Result]]:
        """Empty once closed and drained."""
        with self._changed:
            while not self._waiting and not self._closed:
                self._changed.wait()
            batch: list[_Waiting[Work, Result]] = []
            dearest: tuple[int, ...] = ()
            for entry in list(self._waiting):
                if batch and entry.kind != batch[0].kind:
                    continue
                dearest = tuple(map(max, dearest, entry.cost)) if batch else entry.cost
                if batch and sum(dearest) * (len(batch) + 1) > self._max_cost:
                    break
                batch.append(entry)
                self._waiting.remove(entry)
            return batch
