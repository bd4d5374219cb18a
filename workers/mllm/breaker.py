"""A circuit breaker: a server that does not work is left alone, then probed by one request.

Our own, because pybreaker 1.4 holds one lock for the whole of a call, which would leave one request in flight, and
circuitbreaker 2.1 lets every waiting thread probe at once.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from enum import StrEnum
from typing import TypeAlias

import structlog

from pipeline.detection.mllm.chat import ServerUnavailable
from schemas.decision import ReasonCode

Clock: TypeAlias = Callable[[], float]
"""Monotonic seconds."""

log = structlog.get_logger(__name__)

_PROBE_WAIT_S = 1.0


class BreakerState(StrEnum):
    """Half-open: the pause is over, and one request is to show, or is showing, whether the server works."""

    CLOSED = "closed"
    OPEN = "open"
    HALF_OPEN = "half_open"


class NotAsked(ServerUnavailable):
    """The circuit is open, the server asked for a pause, or the budget is spent; `code` says which kind of trouble."""


class Breaker:
    """Closed until so many failures in a row, then open, then half-open: one probe decides. Thread-safe."""

    def __init__(self, failures: int, open_s: float, clock: Clock = time.monotonic) -> None:
        self._limit = failures
        self._open_s = open_s
        self._clock = clock
        self._lock = threading.Lock()
        self._failures = 0
        self._open_until_s: float | None = None
        self._probing = False
        self._cause = ""
        self._code = ReasonCode.MLLM_UNAVAILABLE

    @property
    def state(self) -> BreakerState:
        """As a request would find it now."""
        with self._lock:
            if self._open_until_s is None:
                return BreakerState.CLOSED
            return BreakerState.OPEN if self._clock() < self._open_until_s else BreakerState.HALF_OPEN

    def refusal(self) -> NotAsked | None:
        """Why a request would be refused now; None when it would be let through."""
        with self._lock:
            return self._refusal()

    def admit(self) -> bool:
        """Let a request through; True when it is the probe, whose result decides.

        Raises:
            NotAsked: the circuit is open, or a probe is under way.
        """
        with self._lock:
            refused = self._refusal()
            if refused:
                raise refused
            self._probing = self._open_until_s is not None
            return self._probing

    def succeeded(self, probe: bool) -> None:
        """The server works. While the circuit is open only the probe's word counts."""
        with self._lock:
            if self._open_until_s is None or probe:
                self._failures = 0
                if probe:
                    self._open_until_s, self._probing = None, False
                    log.info("mllm_circuit_closed")

    def failed(self, probe: bool, cause: str, code: ReasonCode, retry_after_s: float = 0.0) -> None:
        """The server did not work; a `retry_after_s` above 0, which it asked for, opens the circuit at once.

        `code` of the failure that opens the circuit is that of whoever waits for it in vain.
        """
        with self._lock:
            if probe:
                self._probing = False
            elif self._open_until_s is not None and retry_after_s <= 0.0:
                return
            self._failures += 1
            opens = probe or self._failures >= self._limit
            wait_s = max(retry_after_s, self._open_s if opens else 0.0)
            if wait_s > 0.0:
                self._open_until_s = max(self._clock() + wait_s, self._open_until_s or 0.0)
                self._cause, self._code = cause, code
                log.warning("mllm_circuit_open", wait_s=round(wait_s, 3), failures=self._failures, cause=cause)

    def abandoned(self, probe: bool) -> None:
        """The request says nothing of the server; another may probe it."""
        with self._lock:
            self._probing = self._probing and not probe

    def _refusal(self) -> NotAsked | None:
        if self._open_until_s is None:
            return None
        left_s = self._open_until_s - self._clock()
        if left_s > 0.0:
            return NotAsked(f"circuit open for {left_s:.1f} s more: {self._cause}", left_s, self._code)
        if not self._probing:
            return None
        return NotAsked(f"one request probes the server: {self._cause}", _PROBE_WAIT_S, self._code)
