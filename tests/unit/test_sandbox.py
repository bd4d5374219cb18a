from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

from pipeline.guarded_process import ChildRaised, Limits
from pipeline.media.errors import MediaError
from pipeline.media.sandbox import DecodeSandbox
from schemas.decision import ReasonCode
from tests.support import decoders, handlers
from tests.support.spawning import bare_main  # noqa: F401 - a fixture

MIB = 2**20


@pytest.fixture(scope="module")
def sandbox() -> Iterator[DecodeSandbox[Any]]:
    limits = Limits(memory_bytes=256 * MIB, cpu_s_per_call=30, no_new_files=True)
    sandbox = DecodeSandbox[Any](decoders.make_decode, workers=2, limits=limits, timeout_s=20)
    sandbox.open()
    yield sandbox
    sandbox.close()


def test_many_threads_share_the_children(sandbox: DecodeSandbox[Any]) -> None:
    with ThreadPoolExecutor(8) as threads:
        replies = list(threads.map(sandbox.call, [f"echo {n}".encode() for n in range(200)]))
        pids = set(threads.map(sandbox.call, [b"pid"] * 50))
    assert replies == list(range(200))
    assert 1 <= len(pids) <= 2


def test_a_media_error_crosses_as_itself(sandbox: DecodeSandbox[Any]) -> None:
    with pytest.raises(MediaError) as caught:
        sandbox.call(b"refuse", "image/png")
    assert (caught.value.code, caught.value.detail) == (ReasonCode.MEDIA_TRUNCATED, "declared image/png")


@pytest.mark.parametrize("data", [b"allocate 1000000000", b"opencv 40000"])
def test_too_little_memory_is_too_large_a_medium(sandbox: DecodeSandbox[Any], data: bytes) -> None:
    with pytest.raises(MediaError, match="needs more than 268435456 bytes") as caught:
        sandbox.call(data)
    assert caught.value.code is ReasonCode.MEDIA_TOO_LARGE


def test_any_other_exception_is_a_bug(sandbox: DecodeSandbox[Any]) -> None:
    with pytest.raises(ChildRaised, match="UnpicklableError"):
        sandbox.call(b"raise")


def test_a_file_cannot_be_opened(sandbox: DecodeSandbox[Any]) -> None:
    with pytest.raises(ChildRaised, match="Too many open files"):
        sandbox.call(b"open /etc/hostname")


def test_opencv_uses_one_thread(sandbox: DecodeSandbox[Any]) -> None:
    assert sandbox.call(b"threads") == 1


def test_a_dead_child_costs_one_item_and_is_replaced(sandbox: DecodeSandbox[Any]) -> None:
    def outcome(data: bytes) -> Any:
        try:
            return sandbox.call(data)
        except MediaError as error:
            return error.code, error.detail

    work = [b"signal 11" if n % 20 == 0 else f"echo {n}".encode() for n in range(60)]  # more deaths than children
    with ThreadPoolExecutor(4) as threads:
        outcomes = list(threads.map(outcome, work))
    died = (ReasonCode.ANALYSIS_CRASH, "decoder killed by SIGSEGV")
    assert outcomes == [died if n % 20 == 0 else n for n in range(60)]


def test_a_timeout_is_an_analysis_crash_and_calls_after_close_are_refused() -> None:
    sandbox = DecodeSandbox[Any](decoders.make_decode, workers=1, limits=Limits(), timeout_s=0.2)
    with pytest.raises(RuntimeError, match="not open"):
        sandbox.call(b"pid")
    sandbox.open()
    with pytest.raises(MediaError, match=r"decoder took longer than 0.2 s") as caught:
        sandbox.call(b"hang")
    assert caught.value.code is ReasonCode.ANALYSIS_CRASH
    sandbox.close()
    sandbox.close()
    with pytest.raises(RuntimeError, match="not open"):
        sandbox.call(b"pid")


def test_a_failed_start_is_raised_by_open() -> None:
    sandbox = DecodeSandbox[Any](handlers.make_nothing, workers=1, limits=Limits(), timeout_s=20)
    with pytest.raises(ChildRaised, match=r"weights\.onnx"):
        sandbox.open()


def test_at_least_one_worker() -> None:
    with pytest.raises(ValueError, match="at least 1"):
        DecodeSandbox[Any](decoders.make_decode, workers=0, limits=Limits(), timeout_s=20)
