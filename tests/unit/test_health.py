"""What the endpoint answers, and when the watchdog ends the process."""

from __future__ import annotations

import os
import urllib.error
import urllib.request
from collections.abc import Iterator

import orjson
import pytest
import structlog

from pipeline.exit_codes import EXIT_STALLED
from pipeline.observability.health import HealthServer, HealthSettings, Pulse
from pipeline.observability.metrics import Metrics
from tests.support.streaming import FakeClock


@pytest.fixture
def clock() -> FakeClock:
    return FakeClock()


@pytest.fixture
def pulse(clock: FakeClock) -> Pulse:
    return Pulse(clock)


@pytest.fixture
def server(pulse: Pulse) -> Iterator[HealthServer]:
    """Bound, not serving: `answer` needs no socket."""
    made = HealthServer(HealthSettings(live_after_s=30, exit_after_s=120), pulse, Metrics())
    yield made
    made._server.server_close()


def status(server: HealthServer, path: str) -> int:
    return server.answer(path)[0]


def said(server: HealthServer, path: str) -> dict[str, object]:
    facts: dict[str, object] = orjson.loads(server.answer(path)[2])
    return facts


def test_a_stage_that_opens_slowly_is_live_but_not_ready(server: HealthServer, clock: FakeClock, pulse: Pulse) -> None:
    clock.advance(1000)
    assert (status(server, "/live"), status(server, "/ready")) == (200, 503)
    assert pulse.silent_s == 0.0


def test_a_loop_that_does_not_turn_is_not_live(server: HealthServer, clock: FakeClock, pulse: Pulse) -> None:
    pulse.warm = True
    clock.advance(29.9)
    assert status(server, "/live") == 200
    clock.advance(0.1)
    assert status(server, "/live") == 503
    assert said(server, "/live") == {"ok": False, "silent_s": 30.0}
    pulse.turned_at_s = clock.monotonic_s()
    assert status(server, "/live") == 200


@pytest.mark.parametrize(
    ("warm", "partitions", "expected"), [(False, 0, 503), (False, 2, 503), (True, 0, 503), (True, 2, 200)]
)
def test_ready_is_warm_and_assigned(
    server: HealthServer, pulse: Pulse, warm: bool, partitions: int, expected: int
) -> None:
    pulse.warm, pulse.partitions = warm, partitions
    assert status(server, "/ready") == expected


def test_progress_tells_what_is_in_flight(server: HealthServer, pulse: Pulse) -> None:
    pulse.in_flight, pulse.oldest_in_flight_s = 3, 1.23456
    assert said(server, "/progress") == {"ok": True, "in_flight": 3, "oldest_in_flight_s": 1.235}


def test_metrics_are_in_prometheus_text(server: HealthServer) -> None:
    code, content_type, body = server.answer("/metrics")
    assert code == 200
    assert content_type.startswith("text/plain")
    assert b"mediasieve_ready 0.0" in body


def test_any_other_path_names_those_there_are(server: HealthServer) -> None:
    code, _, body = server.answer("/healthz")
    assert code == 404
    assert b"/live, /ready, /progress or /metrics" in body


class Ticks:
    """The watchdog's waits: each takes `step_s` of the fake clock; the test ends after `count`."""

    def __init__(self, clock: FakeClock, step_s: float, count: int) -> None:
        self.clock, self.step_s, self.left = clock, step_s, count

    def wait(self, timeout: float) -> bool:
        self.left -= 1
        self.clock.advance(self.step_s)
        return self.left < 0


class Exited(BaseException):
    """In place of the end of the process."""


@pytest.fixture
def exits(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    codes: list[int] = []

    def end(code: int) -> None:
        codes.append(code)
        raise Exited

    monkeypatch.setattr(os, "_exit", end)
    return codes


def test_the_watchdog_ends_a_process_whose_loop_hangs(
    server: HealthServer, clock: FakeClock, pulse: Pulse, exits: list[int]
) -> None:
    pulse.warm = True
    server._stop = Ticks(clock, step_s=60.0, count=10)  # type: ignore[assignment]  # no real waiting
    with structlog.testing.capture_logs() as logs, pytest.raises(Exited):
        server._watchdog()
    assert exits == [EXIT_STALLED]
    assert logs == [{"event": "loop_stalled", "log_level": "error", "silent_s": 180.0}]


def test_the_watchdog_leaves_a_process_alone_that_turned_lately(
    server: HealthServer, clock: FakeClock, pulse: Pulse, exits: list[int]
) -> None:
    pulse.warm = True
    server._stop = Ticks(clock, step_s=1.0, count=100)  # type: ignore[assignment]  # no real waiting
    server._watchdog()
    assert exits == []


def test_the_watchdog_waits_for_a_stage_that_opens_slowly(
    server: HealthServer, clock: FakeClock, exits: list[int]
) -> None:
    server._stop = Ticks(clock, step_s=600.0, count=100)  # type: ignore[assignment]  # no real waiting
    server._watchdog()
    assert exits == []


def test_the_endpoint_serves_what_answer_says(pulse: Pulse) -> None:
    running = HealthServer(HealthSettings(), pulse, Metrics())
    with structlog.testing.capture_logs() as logs:
        running.start()
    assert logs[0]["port"] == running.port
    try:
        where = f"http://127.0.0.1:{running.port}"
        with urllib.request.urlopen(f"{where}/progress?x=1", timeout=10) as response:
            assert orjson.loads(response.read())["in_flight"] == 0
        with pytest.raises(urllib.error.HTTPError, match="503") as caught:
            urllib.request.urlopen(f"{where}/ready", timeout=10)
        caught.value.close()
    finally:
        running.stop()
