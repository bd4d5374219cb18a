"""All workers on one machine, each a process of its own. Kafka does the rest."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import IO, Self, TypeVar

_LOG_LINES = 15
_POLL_S = 0.1

Name = TypeVar("Name", bound=str)
"""Of a worker: a `WorkerName`, or a `StageName` where only stages run."""


@contextmanager
def sigterm_is_ctrl_c() -> Iterator[None]:
    """SIGTERM raises KeyboardInterrupt in here, so that whoever ends this process does not leave its workers behind."""
    before = signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


class FleetFailed(Exception):
    """A worker ended, or was not ready in time; the text holds its last log lines."""


@dataclass(slots=True)
class Member:
    """One worker process."""

    stage: str
    process: subprocess.Popen[bytes]
    port: int
    log_path: Path
    log: IO[bytes]

    def ready(self) -> bool:
        """Assigned and warm, by its own health endpoint."""
        try:
            with urllib.request.urlopen(f"http://127.0.0.1:{self.port}/ready", timeout=1.0) as answer:
                return bool(answer.status == 200)
        except (urllib.error.URLError, OSError):
            return False


class Fleet:
    """Starts, watches and stops the workers of one machine."""

    def __init__(self, replicas: Mapping[Name, int], environment: Mapping[str, str], log_directory: Path) -> None:
        """`replicas` by worker; `environment` is added to this process's own: MEDIASIEVE_* settings of this run."""
        self._replicas = [(name, count) for name, count in replicas.items()]
        self._environment = environment
        self._log_directory = log_directory
        self.members: list[Member] = []

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()

    def start(self) -> None:
        """Start every process; `wait_ready` says when they work."""
        self._log_directory.mkdir(parents=True, exist_ok=True)
        for stage, count in self._replicas:
            for number in range(count):
                self.members.append(self._spawn(stage, number))

    def wait_ready(self, timeout_s: float = 120.0) -> None:
        """Until every member has partitions and a warm model.

        Raises:
            FleetFailed: one ended, or the time is over.
        """
        end_s = time.monotonic() + timeout_s
        waiting = list(self.members)
        while waiting:
            self.check()
            waiting = [m for m in waiting if not m.ready()]
            if waiting and time.monotonic() > end_s:
                raise FleetFailed(f"{waiting[0].stage} not ready after {timeout_s:.0f} s\n{_tail(waiting[0].log_path)}")
            time.sleep(_POLL_S)

    def check(self) -> None:
        """Raises FleetFailed when a member has ended."""
        for member in self.members:
            code = member.process.poll()
            if code is not None:
                raise FleetFailed(f"{member.stage} worker ended with code {code}\n{_tail(member.log_path)}")

    def stop(self, timeout_s: float = 45.0) -> None:
        """SIGTERM to all: they drain; what is still there after the timeout is killed."""
        for member in self.members:
            if member.process.poll() is None:
                member.process.send_signal(signal.SIGTERM)
        end_s = time.monotonic() + timeout_s
        for member in self.members:
            try:
                member.process.wait(max(0.1, end_s - time.monotonic()))
            except subprocess.TimeoutExpired:
                member.process.kill()
                member.process.wait()
            member.log.close()
        self.members.clear()

    def _spawn(self, stage: str, number: int) -> Member:
        port = _free_port()
        path = self._log_directory / f"{stage}-{number}.log"
        log = path.open("ab")
        process = subprocess.Popen(  # noqa: S603 - our own module
            [sys.executable, "-m", f"workers.{stage}"],
            env={**os.environ, **self._environment, "MEDIASIEVE_HEALTH__PORT": str(port)},
            stderr=log,
            stdout=log,
            stdin=subprocess.DEVNULL,
            start_new_session=True,
        )
        return Member(stage, process, port, path, log)


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def _tail(path: Path) -> str:
    lines = path.read_text(encoding="utf-8", errors="replace").splitlines()[-_LOG_LINES:]
    return "\n".join([f"the last lines of {path}:", *lines])
