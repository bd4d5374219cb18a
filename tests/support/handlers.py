"""Handlers for guarded children: each runs in a child and does one thing to it."""

from __future__ import annotations

import os
import signal
import socket
import time
from collections.abc import Callable
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from pipeline.guarded_process import GuardedProcess
from pipeline.media.errors import MediaError
from schemas.decision import ReasonCode


class UnpicklableError(Exception):
    """Cannot be rebuilt from its `args`: what an exception from a library often is."""

    def __init__(self, first: str, second: str) -> None:
        super().__init__(f"{first} and {second}")


def obey(request: tuple[Any, ...]) -> Any:
    """Carry out `(verb, *arguments)`."""
    verb, *arguments = request
    return _VERBS[verb](*arguments)


def _signal(number: int) -> str:
    os.kill(os.getpid(), number)
    return "survived"


def _spin() -> None:
    while True:
        pass


def _raise() -> None:
    raise UnpicklableError("this", "that")


def _threads() -> tuple[list[str | None], int]:
    names = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS")
    return [os.environ.get(n) for n in names], cv2.getNumThreads()


_VERBS: dict[str, Callable[..., Any]] = {
    "echo": lambda value: value,
    "pid": os.getpid,
    "signal": _signal,
    "exit": os._exit,
    "hang": lambda: time.sleep(3600),
    "spin": _spin,
    "raise": _raise,
    "lambda": lambda: lambda: None,
    "allocate": lambda size_bytes: len(np.ones(size_bytes, dtype=np.uint8)),
    "open": lambda path: Path(path).read_text(encoding="utf-8"),
    "socket": lambda: socket.socket().fileno(),
    "threads": _threads,
}


def make_obey() -> Callable[[tuple[Any, ...]], Any]:
    return obey


def make_nothing() -> Callable[..., Any]:
    raise FileNotFoundError("weights.onnx")


def make_never() -> Callable[[Any], Any]:
    time.sleep(3600)
    raise AssertionError("unreachable")


def make_dying() -> Callable[[Any], Any]:
    os.kill(os.getpid(), signal.SIGSEGV)
    raise AssertionError("unreachable")


def own_a_busy_child(pids: Connection) -> None:
    """Runs as a parent: starts a child, keeps it busy, tells its pid, and waits to be killed."""
    child = GuardedProcess(make_obey, name="orphan")
    child.start()
    child.send(("hang",))
    pids.send(child.pid)
    time.sleep(3600)


def exit_with_a_live_child(pids: Connection) -> None:
    """Runs as a parent: returns without closing its child."""
    child = GuardedProcess(make_obey, name="forgotten")
    child.start()
    pids.send(child.pid)


def decode(data: bytes, declared_content_type: str | None) -> Any:
    """A decoder whose bytes are instructions: `b"verb argument"`."""
    verb, _, argument = data.decode().partition(" ")
    if verb == "refuse":
        raise MediaError(ReasonCode.MEDIA_TRUNCATED, f"declared {declared_content_type}")
    if verb == "opencv":
        return cv2.resize(np.zeros((8, 8, 1), np.uint8), (int(argument), int(argument))).shape
    return obey((verb, int(argument)) if argument.isdigit() else (verb, argument) if argument else (verb,))


def make_decode() -> Callable[[bytes, str | None], Any]:
    return decode
