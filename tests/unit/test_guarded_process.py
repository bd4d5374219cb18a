from __future__ import annotations

import errno
import multiprocessing
import os
import pickle
import signal
import threading
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from pipeline.guarded_process import ChildDied, ChildRaised, ChildTimeout, GuardedProcess, Limits
from tests.support import handlers
from tests.support.spawning import bare_main  # noqa: F401 - a fixture

MIB = 2**20


@pytest.fixture(scope="module")
def shared() -> Iterator[GuardedProcess]:
    """One child for everything that a child survives; without new files, within memory."""
    child = GuardedProcess(handlers.make_obey, name="shared", limits=Limits(memory_bytes=256 * MIB, no_new_files=True))
    child.start()
    yield child
    child.close()


@pytest.fixture(scope="module")
def unlimited() -> Iterator[GuardedProcess]:
    """One without limits, started by a thread that has ended."""
    child = GuardedProcess(handlers.make_obey, name="unlimited")
    thread = threading.Thread(target=child.start)
    thread.start()
    thread.join()
    yield child
    child.close()


@pytest.fixture
def child() -> Iterator[GuardedProcess]:
    """One to be ended by the test."""
    child = GuardedProcess(handlers.make_obey, name="child")
    child.start()
    yield child
    child.kill()


def test_answers_in_another_process_with_this_pid(shared: GuardedProcess) -> None:
    assert shared.call(("pid",), 30) == shared.pid != os.getpid()
    assert shared.alive


def test_a_message_larger_than_the_pipe_passes_both_ways(shared: GuardedProcess) -> None:
    data = os.urandom(8 * MIB)
    assert shared.call(("echo", data), 30) == data


def test_an_exception_crosses_as_text_and_the_child_lives_on(shared: GuardedProcess) -> None:
    with pytest.raises(ChildRaised) as caught:
        shared.call(("raise",), 30)
    assert "UnpicklableError: this and that" in caught.value.traceback_text
    assert "in obey" in caught.value.traceback_text
    assert not caught.value.out_of_memory
    assert shared.call(("echo", 1), 30) == 1


def test_a_reply_that_cannot_be_pickled_is_raised(shared: GuardedProcess) -> None:
    with pytest.raises(ChildRaised, match="lambda"):
        shared.call(("lambda",), 30)
    assert shared.call(("echo", 1), 30) == 1


def test_memory_beyond_the_limit_is_a_memory_error(shared: GuardedProcess) -> None:
    assert shared.call(("allocate", 64 * MIB), 30) == 64 * MIB
    with pytest.raises(ChildRaised) as caught:
        shared.call(("allocate", 512 * MIB), 30)
    assert caught.value.out_of_memory
    assert shared.call(("allocate", 64 * MIB), 30) == 64 * MIB


@pytest.mark.parametrize("request_", [("open", "/etc/hostname"), ("open", os.devnull), ("socket",)])
def test_no_file_and_no_socket_can_be_opened(shared: GuardedProcess, request_: tuple[str, ...]) -> None:
    with pytest.raises(ChildRaised, match=rf"OSError: \[Errno {errno.EMFILE}\]"):
        shared.call(request_, 30)


def test_files_can_be_opened_without_the_limit(unlimited: GuardedProcess) -> None:
    assert unlimited.call(("open", os.devnull), 30) == ""
    assert unlimited.call(("socket",), 30) > 2


def test_a_child_outlives_the_thread_that_started_it(unlimited: GuardedProcess) -> None:
    assert unlimited.call(("echo", 1), 30) == 1


@pytest.mark.parametrize("ignored", [signal.SIGINT, signal.SIGTERM])
def test_the_child_ignores_the_signals_of_an_orderly_stop(shared: GuardedProcess, ignored: signal.Signals) -> None:
    assert shared.call(("signal", ignored), 30) == "survived"


@pytest.mark.parametrize("name", ["OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"])
def test_libraries_use_one_thread(shared: GuardedProcess, name: str) -> None:
    assert shared.call(("environment", name), 30) == "1"


def test_a_killed_child_is_named_by_its_signal(child: GuardedProcess) -> None:
    with pytest.raises(ChildDied, match="killed by SIGSEGV") as caught:
        child.call(("signal", signal.SIGSEGV), 30)
    assert caught.value.exitcode == -signal.SIGSEGV
    assert not child.alive
    with pytest.raises(ChildDied):
        child.send(("echo", 1))


def test_a_timeout_kills_the_child(child: GuardedProcess) -> None:
    with pytest.raises(ChildTimeout, match=r"took longer than 0.1 s"):
        child.call(("hang",), 0.1)
    assert not child.alive


def test_cpu_beyond_the_limit_kills_the_child() -> None:
    child = GuardedProcess(handlers.make_obey, name="spinner", limits=Limits(cpu_s_per_call=0.1))
    child.start()
    with pytest.raises(ChildDied, match="killed by SIGXCPU"):
        child.call(("spin",), 100)


@pytest.mark.parametrize(
    ("make_handler", "start_timeout_s", "error", "text"),
    [
        (handlers.make_nothing, 60, ChildRaised, "FileNotFoundError: weights.onnx"),
        (handlers.make_dying, 60, ChildDied, "exited with code 3"),
        (handlers.make_never, 0.1, ChildTimeout, "took longer than 0.1 s"),
    ],
)
def test_a_failed_start_says_why_and_leaves_nothing_behind(
    make_handler: Callable[[], Callable[[Any], Any]],
    start_timeout_s: float,
    error: type[Exception],
    text: str,
) -> None:
    child = GuardedProcess(make_handler, name="failing", start_timeout_s=start_timeout_s)
    environment = dict(os.environ)
    with pytest.raises(error, match=text):
        child.start()
    assert not child.alive
    assert dict(os.environ) == environment


def test_close_ends_an_idle_child_and_may_be_repeated(child: GuardedProcess) -> None:
    child.close()
    assert not child.alive
    child.close()


def _run_parent(main: Callable[..., None]) -> tuple[multiprocessing.context.SpawnProcess, int]:
    spawn = multiprocessing.get_context("spawn")
    ours, theirs = spawn.Pipe(duplex=False)
    parent = spawn.Process(target=main, args=(theirs,))
    parent.start()
    theirs.close()
    assert ours.poll(60)
    return parent, ours.recv()


def _ended(pid: int) -> bool:
    """Whether the process is gone within 30 s. It may be a zombie that nobody reaps: that counts."""
    try:
        pidfd = os.pidfd_open(pid)
    except ProcessLookupError:
        return True
    try:
        return bool(multiprocessing.connection.wait([pidfd], 30))
    finally:
        os.close(pidfd)


def test_a_busy_child_dies_with_a_killed_parent() -> None:
    parent, pid = _run_parent(handlers.own_a_busy_child)
    parent.kill()
    parent.join()
    assert _ended(pid)


def test_a_forgotten_child_does_not_keep_its_parent_from_exiting() -> None:
    parent, pid = _run_parent(handlers.exit_with_a_live_child)
    parent.join(30)
    assert parent.exitcode == 0
    assert _ended(pid)


@pytest.mark.parametrize(
    "error", [ChildDied(-9, "killed by SIGKILL"), ChildRaised("Traceback", True), ChildTimeout(1.5)]
)
def test_the_errors_survive_pickling(error: Exception) -> None:
    copy = pickle.loads(pickle.dumps(error))
    assert (type(copy), copy.args, str(copy)) == (type(error), error.args, str(error))
