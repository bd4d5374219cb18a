from __future__ import annotations

import threading
from concurrent.futures import CancelledError

import numpy as np
import pytest

from pipeline.detection.classifier.batching import BatcherClosed, BatchingSettings, MicroBatcher

WAIT_S = 20.0


def crop(value, count=1):
    return np.full((count, 32, 32, 3), value, np.uint8)


class Model:
    """Scores a crop by its first pixel; `gate` holds it back, `fail_on` makes it raise."""

    def __init__(self, *, gated=False, fail_on=None):
        self.batches = []
        self.entered = threading.Semaphore(0)
        self.gate = threading.Semaphore(0)
        self.gated = gated
        self.fail_on = fail_on

    def __call__(self, crops):
        values = crops[:, 0, 0, 0].astype(np.float32)
        self.batches.append(values.tolist())
        self.entered.release()
        if self.gated:
            assert self.gate.acquire(timeout=WAIT_S)
        if self.fail_on in values:
            raise RuntimeError(f"cannot score {self.fail_on}")
        return values


@pytest.fixture
def started():
    running = []

    def start(model, *, max_crops=4, max_wait_ms=0.0, **options):
        settings = BatchingSettings(max_crops=max_crops, max_wait_ms=max_wait_ms)
        batcher = MicroBatcher(model, settings, 32, **options)
        running.append((model, batcher))
        batcher.start()
        return batcher

    yield start
    for model, batcher in running:
        model.gated = False
        model.gate.release(100)
        batcher.close()


def busy(model, batcher):
    """Let the model hold a first batch, so that what follows queues up."""
    first = batcher.submit(crop(0))
    assert model.entered.acquire(timeout=WAIT_S)
    return first


def test_each_caller_gets_its_own_scores(started):
    model = Model(gated=True)
    batcher = started(model, max_crops=8)
    busy(model, batcher)
    a, b = batcher.submit(crop(3, 2)), batcher.submit(crop(7))
    model.gate.release(2)
    assert a.result(WAIT_S).tolist() == [3, 3]
    assert b.result(WAIT_S).tolist() == [7]
    assert model.batches == [[0], [3, 3, 7]]


def test_a_full_batch_does_not_wait(started):
    model = Model()
    batcher = started(model, max_crops=2, max_wait_ms=1000.0, clock=lambda: 0.0)
    a, b = batcher.submit(crop(1)), batcher.submit(crop(2))
    assert [a.result(WAIT_S)[0], b.result(WAIT_S)[0]] == [1, 2]
    assert model.batches == [[1, 2]]


def test_a_batch_never_exceeds_max_crops_and_splits_no_request(started):
    model = Model(gated=True)
    batcher = started(model, max_crops=4)
    busy(model, batcher)
    futures = [batcher.submit(crop(v, 3)) for v in (1, 2, 3)]
    model.gate.release(4)
    assert [f.result(WAIT_S).size for f in futures] == [3, 3, 3]
    assert model.batches[1:] == [[1, 1, 1], [2, 2, 2], [3, 3, 3]]


def test_the_wait_counts_from_the_first_item(started):
    now = [0.0]
    batcher = started(Model(), max_crops=100, max_wait_ms=1000.0, clock=lambda: now[0])
    first = batcher.submit(crop(0))
    now[0] = 1.0
    batcher.submit(crop(1))  # its own wait would never end: the clock stands still
    assert first.result(WAIT_S)[0] == 0


def test_a_failure_stays_in_its_batch(started):
    model = Model(gated=True, fail_on=5)
    batcher = started(model, max_crops=2)
    busy(model, batcher)
    failing = [batcher.submit(crop(5)), batcher.submit(crop(6))]
    fine = batcher.submit(crop(7))
    model.gate.release(3)
    for future in failing:
        with pytest.raises(RuntimeError, match="cannot score 5"):
            future.result(WAIT_S)
    assert fine.result(WAIT_S)[0] == 7


def test_close_answers_what_is_queued(started):
    model = Model(gated=True)
    batcher = started(model, max_wait_ms=1000.0, max_crops=2, clock=lambda: 0.0)
    futures = [batcher.submit(crop(v)) for v in (1, 2, 3)]
    assert model.entered.acquire(timeout=WAIT_S)
    model.gate.release(2)
    batcher.close()
    assert [f.result(0)[0] for f in futures] == [1, 2, 3]
    with pytest.raises(BatcherClosed):
        batcher.submit(crop(4))
    batcher.close()


def test_close_before_start_is_allowed():
    MicroBatcher(Model(), BatchingSettings(), 32).close()


def test_a_cancelled_request_is_not_scored(started):
    model = Model(gated=True)
    batcher = started(model)
    busy(model, batcher)
    cancelled, kept = batcher.submit(crop(1)), batcher.submit(crop(2))
    assert cancelled.cancel()
    model.gate.release(2)
    assert kept.result(WAIT_S)[0] == 2
    assert model.batches == [[0], [2]]
    with pytest.raises(CancelledError):
        cancelled.result(0)


def test_the_hook_sees_size_and_times(started):
    now = iter([10.0, 11.0, 11.5, 14.0])  # submitted, checked, inference from, to
    seen = []
    batcher = started(Model(), on_batch=lambda *a: seen.append(a), clock=lambda: next(now))
    batcher.submit(crop(1, 3)).result(WAIT_S)
    batcher.close()
    assert seen == [(3, 1.5, 2.5)]


@pytest.mark.filterwarnings("ignore::pytest.PytestUnhandledThreadExceptionWarning")
def test_a_broken_hook_leaves_nobody_waiting(started):
    def broken(size, wait_s, infer_s):
        raise ZeroDivisionError

    model = Model(gated=True)
    batcher = started(model, on_batch=broken, max_crops=1)
    first = busy(model, batcher)
    second = batcher.submit(crop(1))
    model.gate.release(1)
    with pytest.raises(BatcherClosed):
        second.result(WAIT_S)
    assert first.result(WAIT_S)[0] == 0
    with pytest.raises(BatcherClosed):
        batcher.submit(crop(2))


@pytest.mark.parametrize(
    "wrong",
    [
        np.zeros((1, 16, 16, 3), np.uint8),
        np.zeros((0, 32, 32, 3), np.uint8),
        np.zeros((1, 32, 32, 3), np.float32),
        np.zeros((5, 32, 32, 3), np.uint8),
    ],
)
def test_a_request_that_would_spoil_a_batch_is_refused(wrong):
    batcher = MicroBatcher(Model(), BatchingSettings(max_crops=4), 32)
    with pytest.raises(ValueError, match="crops"):
        batcher.submit(wrong)
