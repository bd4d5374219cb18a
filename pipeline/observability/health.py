"""Live, ready, progress and metrics over HTTP, and the watchdog that ends a process whose loop hangs."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import orjson
import structlog
from prometheus_client import CONTENT_TYPE_LATEST
from pydantic import BaseModel, ConfigDict, Field

from pipeline.exit_codes import EXIT_STALLED
from pipeline.observability.metrics import Metrics
from pipeline.streaming.clock import Clock

log = structlog.get_logger(__name__)


class HealthSettings(BaseModel):
    """The worker's HTTP endpoint."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    host: str = Field(default="127.0.0.1", description="address to listen on; 0.0.0.0 in a container")
    port: int = Field(default=0, ge=0, le=65535, description="0: any free port, named in the first log line")
    live_after_s: float = Field(default=60.0, gt=0, description="a loop that has not turned for so long is not live")
    exit_after_s: float = Field(
        default=120.0, gt=0, description="a loop that has not turned for so long ends the process"
    )


@dataclass
class Pulse:
    """What the loop last said of itself. Written by the runner's thread, read by others."""

    clock: Clock
    turned_at_s: float = field(init=False)
    warm: bool = False
    partitions: int = 0
    in_flight: int = 0
    oldest_in_flight_s: float = 0.0

    def __post_init__(self) -> None:
        self.turned_at_s = self.clock.monotonic_s()

    @property
    def silent_s(self) -> float:
        """Seconds since the last turn; 0 while the stage is still opening."""
        return self.clock.monotonic_s() - self.turned_at_s if self.warm else 0.0

    @property
    def ready(self) -> bool:
        """Assigned and warm."""
        return self.warm and self.partitions > 0


class HealthServer:
    """GET /live, /ready, /progress, /metrics."""

    def __init__(self, settings: HealthSettings, pulse: Pulse, metrics: Metrics) -> None:
        """Listens at once; raises OSError when the port is taken."""
        self._settings = settings
        self._pulse = pulse
        self._metrics = metrics
        self._server = ThreadingHTTPServer((settings.host, settings.port), self._handler())
        self._server.daemon_threads = True
        self._stop = threading.Event()
        self._threads = [
            threading.Thread(target=self._server.serve_forever, name="health", daemon=True),
            threading.Thread(target=self._watchdog, name="watchdog", daemon=True),
        ]

    @property
    def port(self) -> int:
        """The port that was bound."""
        return int(self._server.server_address[1])

    def start(self) -> None:
        """Serve from threads of its own."""
        for thread in self._threads:
            thread.start()
        log.info("health_listening", host=self._settings.host, port=self.port)

    def stop(self) -> None:
        """Stop serving."""
        self._stop.set()
        self._server.shutdown()
        self._server.server_close()
        for thread in self._threads:
            thread.join(5.0)

    def answer(self, path: str) -> tuple[int, str, bytes]:
        """Status, content type and body for a path."""
        pulse = self._pulse
        match path:
            case "/live":
                return _said(pulse.silent_s < self._settings.live_after_s, {"silent_s": round(pulse.silent_s, 3)})
            case "/ready":
                return _said(pulse.ready, {"warm": pulse.warm, "partitions": pulse.partitions})
            case "/progress":
                facts = {
                    "in_flight": pulse.in_flight,
                    "oldest_in_flight_s": round(pulse.oldest_in_flight_s, 3),
                }
                return _said(True, facts)
            case "/metrics":
                return 200, CONTENT_TYPE_LATEST, self._metrics.exposition()
            case _:
                return 404, "application/json", b'{"error":"try /live, /ready, /progress or /metrics"}'

    def _watchdog(self) -> None:
        """Calls of librdkafka have been seen to hang for good; only the end of the process helps then."""
        while not self._stop.wait(1.0):
            if self._pulse.silent_s > self._settings.exit_after_s:
                log.error("loop_stalled", silent_s=self._pulse.silent_s)
                os._exit(EXIT_STALLED)

    def _handler(self) -> type[BaseHTTPRequestHandler]:
        answer: Callable[[str], tuple[int, str, bytes]] = self.answer

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                status, content_type, body = answer(self.path.partition("?")[0])
                self.send_response(status)
                self.send_header("Content-Type", content_type)
                self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)

            def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - the name is the base class's
                """Probes are not worth a log line."""

        return Handler


def _said(good: bool, facts: Mapping[str, object]) -> tuple[int, str, bytes]:
    return 200 if good else 503, "application/json", orjson.dumps({"ok": good, **facts})
