"""One spawned child process with limits, that answers one request at a time and cannot outlive its parent.

The child's side is `pipeline.guarded_child`. An exception never crosses the border as an object: only its
traceback text does, so that no exception class has to survive pickling.

The limits guard against broken or hostile input to honest code. They are no wall against code already under
an attacker's control: replies are pickles, so such a child could run code in its parent.
"""

from __future__ import annotations

import os
import queue
import signal
import socket
import struct
import threading
import time
from collections.abc import Callable
from concurrent.futures import Future
from multiprocessing import connection, get_context, resource_tracker
from multiprocessing.context import SpawnProcess
from multiprocessing.reduction import ForkingPickler
from multiprocessing.util import Finalize
from typing import Any

from pipeline.guarded_child import Limits, child_main

__all__ = ["ChildDied", "ChildRaised", "ChildTimeout", "GuardedProcess", "Limits"]

_STALL_S = 10
"""A child that stops reading or writing in the middle of a message for so long is taken for hung."""

_REAP_S = 10.0
_ONE_THREAD = dict.fromkeys(
    ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "OPENCV_FOR_THREADS_NUM"), "1"
)
_SPAWN = get_context("spawn")
_process_table = threading.RLock()
"""Held to reap: `Process.start` reaps every dead child, and two threads must not reap at once."""


class ChildDied(Exception):
    """The child is gone. `exitcode` is minus the signal's number, or what it exited with.

    `detail` reads `killed by SIGSEGV` or `exited with code 3`.
    """

    def __init__(self, exitcode: int | None, detail: str) -> None:
        super().__init__(exitcode, detail)
        self.exitcode = exitcode
        self.detail = detail

    def __str__(self) -> str:
        return self.detail


class ChildRaised(Exception):
    """The handler raised, which the child survived. `traceback_text` is the child's own traceback.

    `out_of_memory` tells a MemoryError, which `Limits.memory_bytes` causes, from any other exception.
    """

    def __init__(self, traceback_text: str, out_of_memory: bool = False) -> None:
        super().__init__(traceback_text, out_of_memory)
        self.traceback_text = traceback_text
        self.out_of_memory = out_of_memory

    def __str__(self) -> str:
        return self.traceback_text


class ChildTimeout(Exception):
    """The child did not answer within `timeout_s` and was killed."""

    def __init__(self, timeout_s: float) -> None:
        super().__init__(timeout_s)
        self.timeout_s = timeout_s

    def __str__(self) -> str:
        return f"took longer than {self.timeout_s:g} s"


class GuardedProcess:
    """A child that runs one handler; for one thread at a time, and for one life: a dead one is not restarted.

    `make_handler` must be picklable; it runs in the child, loads and warms up, and returns the handler. The
    child's numeric libraries use one thread each, it ignores SIGINT and SIGTERM (the parent drains it), and
    it dies with its parent.
    """

    def __init__(
        self,
        make_handler: Callable[[], Callable[[Any], Any]],
        *,
        name: str,
        limits: Limits | None = None,
        start_timeout_s: float = 120.0,
    ) -> None:
        self._make_handler = make_handler
        self._name = name
        self._limits = limits or Limits()
        self._start_timeout_s = start_timeout_s
        self._process: SpawnProcess | None = None
        self._connection: connection.Connection | None = None
        self._ready = False
        self.start_by_s = 0.0
        """When a spawned child must be ready, on the monotonic clock."""

    def start(self) -> None:
        """Start the child and wait until its handler is made.

        Raises:
            ChildRaised: `make_handler` raised; the child has ended.
            ChildDied: it died while starting.
            ChildTimeout: it was not ready within `start_timeout_s`, and was killed.
        """
        self.spawn()
        self.wait_ready()

    def spawn(self) -> None:
        """Start the child and return at once; `connection` is readable when it is ready, or has failed."""
        if self._process is not None:
            raise RuntimeError(f"{self._name} was started before; make a new GuardedProcess")
        handler = bytes(ForkingPickler.dumps(self._make_handler))
        ours, theirs = _SPAWN.Pipe()
        _limit_stalls(ours)
        process = _SPAWN.Process(target=child_main, args=(theirs, handler, os.getpid(), self._limits), name=self._name)
        self.start_by_s = time.monotonic() + self._start_timeout_s
        try:
            _spawner.start(process)
        finally:
            theirs.close()  # so that the child's death is an end of file here
        self._process, self._connection = process, ours
        # multiprocessing joins its children at exit; one that ignores SIGTERM has to be killed before that.
        Finalize(self, _kill, args=(process,), exitpriority=20)

    def wait_ready(self) -> None:
        """Wait until the handler is made; returns at once when it is known to be.

        Raises:
            ChildRaised, ChildDied, ChildTimeout: as `start`.
        """
        if self._ready:
            return
        if not self.connection.poll(max(0.0, self.start_by_s - time.monotonic())):
            self.kill()
            raise ChildTimeout(self._start_timeout_s)
        try:
            self.receive()
        except ChildRaised:
            self.close()
            raise
        self._ready = True

    @property
    def connection(self) -> connection.Connection:
        """For `multiprocessing.connection.wait`: readable when a reply, or the child's end, is there."""
        if self._connection is None:
            raise RuntimeError(f"{self._name} has not been started")
        return self._connection

    def send(self, request: Any) -> None:
        """Hand the child one request; the one before it must have been answered.

        Raises:
            ChildDied: the child is gone.
            ChildTimeout: it does not read, and was killed.
        """
        try:
            self.connection.send(request)
        except BlockingIOError:
            self.kill()
            raise ChildTimeout(_STALL_S) from None
        except OSError:
            raise self._death() from None

    def receive(self) -> Any:
        """Return the reply to the last request; to be called when `connection` is readable.

        Raises:
            ChildRaised: the handler raised.
            ChildDied: the child is gone.
            ChildTimeout: it stopped in the middle of its reply, and was killed.
        """
        try:
            raised, value = self.connection.recv()
        except BlockingIOError:
            self.kill()
            raise ChildTimeout(_STALL_S) from None
        except (EOFError, OSError):
            raise self._death() from None
        if raised:
            raise ChildRaised(*value)
        return value

    def call(self, request: Any, timeout_s: float) -> Any:
        """Send, wait, receive.

        Raises:
            ChildRaised: the handler raised; the child lives on.
            ChildDied: the child is gone.
            ChildTimeout: no reply within `timeout_s`; the child was killed.
        """
        self.send(request)
        if not self.connection.poll(timeout_s):
            self.kill()
            raise ChildTimeout(timeout_s)
        return self.receive()

    @property
    def pid(self) -> int | None:
        """The child's process id; None before it is started."""
        return self._process.pid if self._process is not None else None

    @property
    def alive(self) -> bool:
        """Whether the child has been started and still runs."""
        with _process_table:
            return self._process is not None and self._process.is_alive()

    def kill(self) -> None:
        """SIGKILL, and wait until the child is gone. Harmless when it already is."""
        if self._process is not None:
            _kill(self._process)
            self.connection.close()

    def close(self, timeout_s: float = 5.0) -> None:
        """Close the child's pipe, so that it ends once idle; killed when it has not within `timeout_s`."""
        if self._process is not None:
            self.connection.close()
            connection.wait([self._process.sentinel], timeout_s)
            _kill(self._process)

    def _death(self) -> ChildDied:
        assert self._process is not None  # noqa: S101 - only a started child can die
        connection.wait([self._process.sentinel], _REAP_S)
        _kill(self._process)
        self.connection.close()
        return ChildDied(self._process.exitcode, _describe(self._process.exitcode))


class _Spawner:
    """Starts every child of this process from one thread that never ends.

    The kernel sends a child's parent-death signal when the THREAD that started it ends, so no short-lived
    thread may start one. The thread also keeps the inherited environment and signal mask to itself.
    """

    def __init__(self) -> None:
        self._requests: queue.SimpleQueue[tuple[SpawnProcess, Future[None]]] = queue.SimpleQueue()
        self._lock = threading.Lock()
        self._thread: threading.Thread | None = None

    def start(self, process: SpawnProcess) -> None:
        with self._lock:
            if self._thread is None:
                self._thread = threading.Thread(target=self._serve, name="process-spawner", daemon=True)
                self._thread.start()
        started: Future[None] = Future()
        self._requests.put((process, started))
        started.result()

    def _serve(self) -> None:
        while True:
            process, started = self._requests.get()
            try:
                _start_guarded(process)
            except BaseException as error:  # handed to the caller, which raises it
                started.set_exception(error)
            else:
                started.set_result(None)


def _start_guarded(process: SpawnProcess) -> None:
    """Start with one thread a library, and with SIGINT and SIGTERM blocked until the child ignores them."""
    resource_tracker.ensure_running()  # its first start would unblock the signals again
    signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT, signal.SIGTERM})
    before = {name: os.environ.get(name) for name in _ONE_THREAD}
    os.environ.update(_ONE_THREAD)
    try:
        with _process_table:
            process.start()
    finally:
        for name, value in before.items():
            if value is None:
                del os.environ[name]
            else:
                os.environ[name] = value


def _limit_stalls(ours: connection.Connection) -> None:
    """A read or write that makes no progress for `_STALL_S` raises BlockingIOError."""
    limit = struct.pack("ll", _STALL_S, 0)
    with socket.socket(fileno=os.dup(ours.fileno())) as same:
        same.setsockopt(socket.SOL_SOCKET, socket.SO_SNDTIMEO, limit)
        same.setsockopt(socket.SOL_SOCKET, socket.SO_RCVTIMEO, limit)


def _kill(process: SpawnProcess) -> None:
    with _process_table:
        process.kill()
        process.join()


def _describe(exitcode: int | None) -> str:
    if exitcode is None or exitcode >= 0:
        return f"exited with code {exitcode}"
    try:
        return f"killed by {signal.Signals(-exitcode).name}"
    except ValueError:
        return f"killed by signal {-exitcode}"


_spawner = _Spawner()
