"""The child's side of `pipeline.guarded_process`: its limits, and the loop that answers requests."""

from __future__ import annotations

import contextlib
import ctypes
import faulthandler
import math
import os
import resource
import signal
import sys
import traceback
from collections.abc import Callable
from dataclasses import dataclass
from multiprocessing.connection import Connection
from multiprocessing.reduction import ForkingPickler
from typing import Any, NoReturn

_PR_SET_PDEATHSIG = 1  # linux/prctl.h


@dataclass(frozen=True, slots=True)
class Limits:
    """What a child may take. They apply once its handler is made, for good.

    `memory_bytes`: address space that calls may add to what the child holds when its handler is made (Linux).
    `cpu_s_per_call`: CPU time of one call, rounded up to whole seconds; beyond it SIGXCPU kills the child.
    `no_new_files`: no file descriptor can be opened any more, so no file and no socket; a late import fails
    too, so `make_handler` has to import and warm up everything that a call uses.
    """

    memory_bytes: int | None = None
    cpu_s_per_call: float | None = None
    no_new_files: bool = False


def child_main(connection: Connection, pickled_handler: bytes, parent_pid: int, limits: Limits) -> None:
    """Make the handler, confine the process, then answer requests until the parent closes the pipe.

    Replies are `(False, value)` or `(True, (traceback text, out of memory))`; the first one tells readiness.
    """
    _bind_to_parent(parent_pid)
    faulthandler.enable()
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    try:
        handler = ForkingPickler.loads(pickled_handler)()
        _confine(limits)
    except BaseException as error:  # reported to the parent, which raises it
        connection.send_bytes(_raised(error))
        _leave(1)
    connection.send((False, None))
    while True:
        try:
            request = connection.recv_bytes()
        except (EOFError, ConnectionError):
            _leave(0)
        if limits.cpu_s_per_call is not None:
            _allow_cpu(limits.cpu_s_per_call)
        try:
            connection.send_bytes(_answer(handler, request))
        except ConnectionError:
            _leave(0)
        del request


def _answer(handler: Callable[[Any], Any], request: bytes) -> bytes:
    try:
        return bytes(ForkingPickler.dumps((False, handler(ForkingPickler.loads(request)))))
    except BaseException as error:  # reported to the parent, which raises it
        return _raised(error)


def _raised(error: BaseException) -> bytes:
    text = "".join(traceback.format_exception(error))
    return bytes(ForkingPickler.dumps((True, (text, isinstance(error, MemoryError)))))


def _bind_to_parent(parent_pid: int) -> None:
    """Die with the parent; leave the signals of an orderly stop to it."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGINT, signal.SIGTERM})
    if sys.platform == "linux":  # elsewhere the pipe's end tells, once the handler is done
        libc = ctypes.CDLL(None, use_errno=True)
        if libc.prctl(_PR_SET_PDEATHSIG, signal.SIGKILL) != 0:
            raise OSError(ctypes.get_errno(), "prctl(PR_SET_PDEATHSIG) failed")
    if os.getppid() != parent_pid:
        _leave(1)


def _confine(limits: Limits) -> None:
    if limits.memory_bytes is not None:
        bound = _address_space_bytes() + limits.memory_bytes
        resource.setrlimit(resource.RLIMIT_AS, (bound, bound))
    if limits.no_new_files:
        _forbid_new_descriptors()


def _address_space_bytes() -> int:
    if sys.platform != "linux":
        raise OSError("Limits.memory_bytes needs Linux; leave it None on this system")
    with open("/proc/self/statm", encoding="ascii") as statm:
        return int(statm.read().split()[0]) * resource.getpagesize()


def _forbid_new_descriptors() -> None:
    """Occupy every free descriptor below the highest one in use, then set the limit to the next."""
    highest = max(map(int, os.listdir("/dev/fd")))
    spare = os.open(os.devnull, os.O_RDONLY)
    while spare <= highest:
        spare = os.open(os.devnull, os.O_RDONLY)
    os.close(spare)
    resource.setrlimit(resource.RLIMIT_NOFILE, (spare, spare))


def _allow_cpu(cpu_s: float) -> None:
    used = resource.getrusage(resource.RUSAGE_SELF)
    _, hard_s = resource.getrlimit(resource.RLIMIT_CPU)
    soft_s = math.ceil(used.ru_utime + used.ru_stime + cpu_s)
    if hard_s != resource.RLIM_INFINITY:
        soft_s = min(soft_s, hard_s)
    resource.setrlimit(resource.RLIMIT_CPU, (soft_s, hard_s))


def _leave(code: int) -> NoReturn:
    """End now: neither a thread nor an exit handler may hold up a child that has nobody to answer to."""
    for stream in (sys.stdout, sys.stderr):
        with contextlib.suppress(OSError, ValueError):  # the reader may be gone
            stream.flush()
    os._exit(code)
