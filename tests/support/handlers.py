"""Handlers for guarded children: each runs in a child and does one thing to it."""

from __future__ import annotations

import os
import socket
import time
from collections.abc import Callable
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

from pipeline.guarded_process import GuardedProcess


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


_VERBS: dict[str, Callable[..., Any]] = {
    "echo": lambda value: value,
    "pid": os.getpid,
    "signal": _signal,
    "exit": os._exit,
    "hang": lambda: time.sleep(3600),
    "spin": _spin,
    "raise": _raise,
    "lambda": lambda: lambda: None,
    "allocate": lambda size_bytes: len(bytearray(size_bytes)),
    "open": lambda path: Path(path).read_text(encoding="utf-8"),
    "socket": lambda: socket.socket().fileno(),
    "environment": os.environ.get,
}


def make_obey() -> Callable[[tuple[Any, ...]], Any]:
    return obey


def make_nothing() -> Callable[..., Any]:
    raise FileNotFoundError("weights.onnx")


def make_never() -> Callable[[Any], Any]:
    time.sleep(3600)
    raise AssertionError("unreachable")


def make_dying() -> Callable[[Any], Any]:
    os._exit(3)


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
