"""Workers and verifier as processes of a fault test."""

from __future__ import annotations

import os
import random
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import IO, Any, Self

import orjson

from schemas.types import StageName
from tests.support.waiting import wait_until

START_S = 90.0
"""How long a process may take to start and begin its work, with others beside it on two cores."""


@dataclass(frozen=True, slots=True)
class Strike:
    """Where a worker is struck: the `nth` time it passes hook `at`, not before it has worked for `after_s`."""

    at: str
    nth: int = 1
    after_s: float = 0.0
    signal: str = "SIGKILL"

    @property
    def arguments(self) -> list[str]:
        return ["--at", self.at, "--nth", str(self.nth), "--after-s", str(self.after_s), "--signal", self.signal]


@dataclass(slots=True)
class Worker:
    """One worker process; `strike` is its fate."""

    stage: StageName
    process: subprocess.Popen[bytes]
    journal: Path
    log_path: Path
    strike: Strike | None

    @property
    def hooks(self) -> Counter[str]:
        """How often each hook was passed; `SIGKILL hook` for the strike."""
        return Counter(self.journal.read_text().splitlines()) if self.journal.exists() else Counter()

    @property
    def struck(self) -> bool:
        """The strike has fallen."""
        return self.strike is not None and self.hooks[f"{self.strike.signal} {self.strike.at}"] > 0

    @property
    def log(self) -> str:
        return self.log_path.read_text(encoding="utf-8", errors="replace")

    def tail(self) -> str:
        return "\n".join(self.log.splitlines()[-25:])

    @property
    def starting(self) -> bool:
        """It runs, and has no handler for SIGTERM yet."""
        return self.process.poll() is None and not _handles_sigterm(self.process.pid)

    def ask_to_leave(self) -> None:
        """SIGTERM, once there is a handler for it: one that still starts would die of the signal, not drain."""
        wait_until(lambda: not self.starting, START_S, f"{self.log_path.name} handles SIGTERM")
        self.process.terminate()

    def terminate(self, timeout_s: float = 60.0) -> int:
        """SIGTERM; returns the exit code."""
        self.ask_to_leave()
        return self.process.wait(timeout_s)


@dataclass(slots=True)
class Workers:
    """Starts workers with one environment; ends what is left when the test is over."""

    home: Path
    environment: Mapping[str, str]
    started: list[Worker] = field(default_factory=list)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for worker in self.started:
            if worker.process.poll() is None:
                worker.process.kill()
            worker.process.wait()

    def start(self, stage: StageName, strike: Strike | None = None, *, variant: str = "", mutant: str = "") -> Worker:
        """One more process."""
        name = f"{len(self.started):02d}-{stage}"
        journal, log_path = self.home / f"{name}.hooks", self.home / f"{name}.log"
        command = [sys.executable, "-m", "tests.fault.worker_main", stage.value, "--journal", str(journal)]
        options = ["--variant", variant, "--mutant", mutant, *(strike.arguments if strike else ())]
        with log_path.open("ab") as log:
            process = subprocess.Popen(
                [*command, *options],
                env={k: v for k, v in os.environ.items() if k != "PYTHONDONTWRITEBYTECODE"} | dict(self.environment),
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,
            )
        worker = Worker(stage, process, journal, log_path, strike)
        self.started.append(worker)
        return worker

    def drain(self, timeout_s: float = 60.0) -> list[int]:
        """SIGTERM to all that run; their exit codes."""
        running = [w for w in self.started if w.process.poll() is None]
        for worker in running:
            worker.ask_to_leave()
        return [worker.process.wait(timeout_s) for worker in running]

    def hooks(self) -> Counter[str]:
        """Of all processes that ever ran."""
        return sum((w.hooks for w in self.started), Counter())


class NoVerdict(AssertionError):
    """The verifier gave up; `open` are the transactions that it waited for."""

    def __init__(self, said: str, open_transactions: Sequence[dict[str, Any]]) -> None:
        super().__init__(said)
        self.open = open_transactions


class Verification:
    """The verifier's process."""

    def __init__(self, home: Path, bootstrap: str, prefix: str, sent: Mapping[str, int]) -> None:
        inputs = home / "inputs.json"
        inputs.write_bytes(orjson.dumps(dict(sent)))
        self._out = home / "verifier.jsonl"
        command = [sys.executable, "-m", "tests.fault.verifier", "--bootstrap", bootstrap, "--prefix", prefix]
        with self._out.open("wb") as out, (home / "verifier.log").open("wb") as log:
            self._process = subprocess.Popen(
                [*command, "--inputs", str(inputs)], stdin=subprocess.PIPE, stdout=out, stderr=log
            )
        self._log = home / "verifier.log"

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._process.kill()
        self._process.wait()
        self._stdin.close()

    @property
    def _stdin(self) -> IO[bytes]:
        assert self._process.stdin is not None
        return self._process.stdin

    @property
    def lines(self) -> Sequence[dict[str, Any]]:
        """What it has printed so far."""
        return [orjson.loads(line) for line in self._out.read_bytes().splitlines() if line.endswith(b"}")]

    @property
    def missing(self) -> int:
        """Of the last line; the whole input before the first one."""
        assert self._process.poll() is None, self._log.read_text()
        lines = self.lines
        return int(lines[-1]["missing"]) if lines else sys.maxsize

    def wait_complete(self, timeout_s: float) -> float:
        """Until nothing is missing, or the time is over; returns the seconds waited."""
        started_s = time.monotonic()
        while self.missing and time.monotonic() - started_s < timeout_s:
            time.sleep(0.2)
        return time.monotonic() - started_s

    def verdict(self, timeout_s: float = 150.0) -> tuple[int, dict[str, Any]]:
        """End the reading; exit code and verdict.

        Raises:
            NoVerdict: it ended without one.
        """
        self._stdin.close()
        code = self._process.wait(timeout_s)
        last = self.lines[-1] if self.lines else {}
        if "verdict" not in last:
            raise NoVerdict(self._log.read_text(), last.get("open", []))
        return code, last["verdict"]


def _handles_sigterm(pid: int) -> bool:
    """By the signals that the kernel knows a handler for: see proc(5), `SigCgt`."""
    try:
        status = Path(f"/proc/{pid}/status").read_text()
    except (FileNotFoundError, ProcessLookupError):
        return False
    caught = int(status.partition("SigCgt:")[2].split()[0], 16)
    return bool(caught >> (signal.SIGTERM - 1) & 1)


def shuffled(rng: random.Random, values: Sequence[str]) -> list[str]:
    """A shuffled copy."""
    copy = list(values)
    rng.shuffle(copy)
    return copy
