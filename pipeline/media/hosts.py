"""How many calls each origin may hold, and when to stop asking one that does not answer."""

from __future__ import annotations

import threading
import time
from collections import OrderedDict
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

from pydantic import BaseModel, ConfigDict, Field

from pipeline.media.errors import FetchDeferred, HostBusy


class HostSettings(BaseModel):
    """Per-host limits; a host is `name:port`, a bucket or another origin."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    max_concurrent: int = Field(default=24, ge=1, le=1024, description="first attempts in flight per host")
    max_concurrent_unproven: int = Field(
        default=2,
        ge=1,
        le=1024,
        description="calls in flight to a host without a success since its last failure",
    )
    max_concurrent_retry: int = Field(default=2, ge=1, le=1024, description="later attempts in flight per host")
    busy_wait_s: float = Field(default=0.25, ge=0.0, le=0.25, description="longest wait for a busy host's slot")
    failures_to_open: int = Field(default=3, ge=1, le=1000, description="consecutive failures that open the breaker")
    cool_down_s: float = Field(default=5.0, ge=0.0, le=3600.0, description="pause before a later attempt may probe")
    forget_after_s: float = Field(
        default=600.0,
        ge=1.0,
        le=86_400.0,
        description="an open breaker unprobed for so long is forgotten: its retry lane is elsewhere",
    )
    max_hosts: int = Field(default=10_000, ge=1, le=1_000_000, description="hosts remembered, least recent out first")


@dataclass(slots=True)
class Visit:
    """One call to one host."""

    host: str
    retry: bool
    started_s: float
    probe: bool = False
    answered: bool = False


@dataclass(slots=True)
class _Host:
    changed: threading.Condition
    first: list[Visit] = field(default_factory=list)
    retries: list[Visit] = field(default_factory=list)
    waiting: int = 0
    proven: bool = False
    failures: int = 0
    opened_s: float | None = None
    probing: bool = False

    @property
    def idle(self) -> bool:
        return not (self.first or self.retries or self.waiting)


class Hosts:
    """Slots and circuit breakers of all hosts. Thread-safe.

    First attempts and later attempts have slots of their own, so that retries cannot starve fresh media. In
    each, a host without a success since its last failure gets at most `max_concurrent_unproven` calls, so that a
    dead host holds no more. `failures_to_open` failures in a row open its breaker: first attempts are then
    deferred without connecting, and one later attempt at a time may probe after `cool_down_s`.
    """

    def __init__(self, settings: HostSettings, clock: Callable[[], float] = time.monotonic) -> None:
        self._settings = settings
        self._clock = clock
        self._lock = threading.Lock()
        self._hosts: OrderedDict[str, _Host] = OrderedDict()

    def __len__(self) -> int:
        return len(self._hosts)

    @contextmanager
    def visit(self, host: str, attempt: int) -> Iterator[Visit]:
        """Hold one of the host's slots. Set `answered` on the visit once the host has sent an answer.

        A `FetchDeferred` raised inside counts as a failure of the host; otherwise an answered visit is a
        success, and one without an answer says nothing.

        Raises:
            FetchDeferred: the host is busy, or its breaker is open.
        """
        visit = self._enter(host, attempt)
        healthy: bool | None = None
        try:
            yield visit
            healthy = True if visit.answered else None
        except FetchDeferred:
            healthy = False
            raise
        except Exception:
            healthy = True if visit.answered else None
            raise
        finally:
            self._leave(visit, healthy)

    def _enter(self, host: str, attempt: int) -> Visit:
        with self._lock:
            state = self._state(host)
            visit = Visit(host, retry=attempt > 1, started_s=self._clock())
            lane = state.retries if visit.retry else state.first
            self._admit(state, visit)
            while len(lane) >= self._capacity(state, visit):
                wait_s = self._may_wait_s(state, visit, lane)
                if wait_s <= 0.0:
                    raise HostBusy("host busy", host)
                state.waiting += 1
                try:
                    state.changed.wait(wait_s)
                finally:
                    state.waiting -= 1
                self._admit(state, visit)
            visit.started_s = self._clock()
            state.probing = state.probing or visit.probe
            lane.append(visit)
            return visit

    def _state(self, host: str) -> _Host:
        state = self._hosts.get(host)
        if state is None:
            self._evict()
            state = self._hosts[host] = _Host(threading.Condition(self._lock))
        self._hosts.move_to_end(host)
        return state

    def _evict(self) -> None:
        if len(self._hosts) >= self._settings.max_hosts:
            oldest = next((name for name, state in self._hosts.items() if state.idle), None)
            if oldest is not None:
                del self._hosts[oldest]

    def _admit(self, state: _Host, visit: Visit) -> None:
        visit.probe = False
        if state.opened_s is None:
            return
        open_s = self._clock() - state.opened_s
        if open_s >= self._settings.forget_after_s:
            state.opened_s, state.failures = None, 0
            return
        if visit.retry and state.probing:
            raise HostBusy("host busy: it is being asked whether it is back", visit.host)
        if not visit.retry or open_s < self._settings.cool_down_s:
            raise FetchDeferred("circuit open: the host failed too often in a row", visit.host)
        visit.probe = True

    def _capacity(self, state: _Host, visit: Visit) -> int:
        most = self._settings.max_concurrent_retry if visit.retry else self._settings.max_concurrent
        return most if state.proven else min(most, self._settings.max_concurrent_unproven)

    def _may_wait_s(self, state: _Host, visit: Visit, lane: list[Visit]) -> float:
        if state.failures:
            return 0.0
        # For an unproven host nobody waits longer than busy_wait_s after its oldest call began: if it is dead,
        # waiting for it costs that once, and nothing for every newcomer after.
        since_s = visit.started_s if state.proven else lane[0].started_s
        return since_s + self._settings.busy_wait_s - self._clock()

    def _leave(self, visit: Visit, healthy: bool | None) -> None:
        with self._lock:
            state = self._hosts[visit.host]
            (state.retries if visit.retry else state.first).remove(visit)
            if visit.probe:
                state.probing = False
            if healthy is True:
                state.proven, state.failures, state.opened_s = True, 0, None
            elif healthy is False:
                self._fail(state, visit)
            state.changed.notify_all()

    def _fail(self, state: _Host, visit: Visit) -> None:
        state.proven = False
        state.failures += 1
        if visit.probe or (state.opened_s is None and state.failures >= self._settings.failures_to_open):
            state.opened_s = self._clock()
