"""Micro-batching: many callers, one inference thread, one call of the model for all who wait."""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Callable
from concurrent.futures import Future
from dataclasses import dataclass
from typing import Annotated, TypeAlias

import numpy as np
from pydantic import BaseModel, ConfigDict, Field

from pipeline.detection.classifier.backends.base import Logits
from pipeline.detection.classifier.preprocess import Pixels

OnBatch: TypeAlias = Callable[[int, float, float], None]
"""Called after each batch with its crops, the seconds its first item waited, and the seconds of inference."""


class BatchingSettings(BaseModel):
    """When a batch closes."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    max_crops: Annotated[int, Field(ge=1, le=4096, description="a batch never holds more crops")] = 64
    max_wait_ms: Annotated[
        float, Field(ge=0.0, le=1000.0, description="longest wait for company, from a batch's first item on")
    ] = 2.0


class BatcherClosed(Exception):
    """Submitted after `close()`, or the inference thread is gone."""


@dataclass(frozen=True, slots=True)
class _Request:
    crops: Pixels
    future: Future[Logits]
    submitted_s: float


class MicroBatcher:
    """Collects crops of concurrent callers and scores them together.

    Args:
        score: uint8 (N, S, S, 3) -> float32 (N,); runs in the one inference thread.
        settings: when a batch closes.
        size_px: S; anything else is refused at `submit`, so that it cannot spoil a batch.
        on_batch: for metrics.
        clock: seconds, monotonic.
    """

    def __init__(
        self,
        score: Callable[[Pixels], Logits],
        settings: BatchingSettings,
        size_px: int,
        on_batch: OnBatch | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._score = score
        self._settings = settings
        self._shape = (size_px, size_px, 3)
        self._on_batch = on_batch
        self._clock = clock
        self._waiting: deque[_Request] = deque()
        self._changed = threading.Condition()
        self._closed = False
        self._thread = threading.Thread(target=self._run, name="micro-batcher", daemon=True)

    def start(self) -> None:
        """Start the inference thread; once."""
        self._thread.start()

    def submit(self, crops: Pixels) -> Future[Logits]:
        """Queue 1 to `max_crops` crops, uint8 (K, S, S, 3); the future holds float32 (K,).

        Raises:
            ValueError: another shape or dtype, or too many crops.
            BatcherClosed: no thread will ever score them.
        """
        if crops.dtype != np.uint8 or crops.ndim != 4 or crops.shape[1:] != self._shape or not len(crops):
            raise ValueError(f"crops: expected uint8 (K, {self._shape}) with K > 0, got {crops.dtype} {crops.shape}")
        if len(crops) > self._settings.max_crops:
            raise ValueError(f"crops: {len(crops)} exceed max_crops {self._settings.max_crops}; raise max_crops")
        request = _Request(crops, Future(), self._clock())
        with self._changed:
            if self._closed:
                raise BatcherClosed("the batcher is closed")
            self._waiting.append(request)
            self._changed.notify()
        return request.future

    def close(self) -> None:
        """Score what is queued, then stop the thread; may be called twice, and without `start`."""
        with self._changed:
            self._closed = True
            self._changed.notify()
        if self._thread.is_alive():
            self._thread.join()

    def _run(self) -> None:
        try:
            while batch := self._next_batch():
                self._infer(batch)
        finally:
            # Reached with requests left only when the metrics hook raised: nobody may wait for ever.
            with self._changed:
                self._closed = True
                left = list(self._waiting)
                self._waiting.clear()
            for request in left:
                request.future.set_exception(BatcherClosed("the inference thread has stopped"))

    def _next_batch(self) -> list[_Request]:
        """Block until a batch closes; empty means closed and drained."""
        with self._changed:
            while not self._waiting and not self._closed:
                self._changed.wait()
            while not self._closed and not self._is_full():
                first = self._waiting[0]
                left_s = first.submitted_s + self._settings.max_wait_ms / 1000.0 - self._clock()
                if left_s <= 0.0:
                    break
                self._changed.wait(left_s)
            return self._take()

    def _is_full(self) -> bool:
        return sum(len(r.crops) for r in self._waiting) >= self._settings.max_crops

    def _take(self) -> list[_Request]:
        batch: list[_Request] = []
        room = self._settings.max_crops
        while self._waiting and len(self._waiting[0].crops) <= room:
            request = self._waiting.popleft()
            room -= len(request.crops)
            batch.append(request)
        return batch

    def _infer(self, batch: list[_Request]) -> None:
        live = [r for r in batch if r.future.set_running_or_notify_cancel()]
        if not live:
            return
        crops = np.concatenate([r.crops for r in live])
        started_s = self._clock()
        try:
            logits = self._score(crops)
        except Exception as error:  # handed to the callers that wait for it, each of which raises it
            for request in live:
                request.future.set_exception(error)
            return
        worked_s = self._clock() - started_s
        start = 0
        for request in live:
            request.future.set_result(logits[start : start + len(request.crops)])
            start += len(request.crops)
        if self._on_batch is not None:
            self._on_batch(len(crops), started_s - live[0].submitted_s, worked_s)
