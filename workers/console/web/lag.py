"""How far the fleet is behind, measured by a thread of the console's own."""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence

import structlog

from pipeline.streaming.clock import Clock
from pipeline.streaming.kafka.admin import AdminError
from schemas.types import StageName
from workers.console.web.desk import StageLag
from workers.gateway.backpressure import Backpressure, Progress

log = structlog.get_logger("mediasieve")

_NOT_YET = "The consumer lag is not known yet: it takes two measurements."
_EVERY_S = 10.0
_WINDOW_S = 120.0


class FleetLag:
    """A LagSource. `start` and `stop` its thread; the pages never wait for the brokers."""

    def __init__(self, progress: Callable[[StageName], Progress], clock: Clock) -> None:
        """`progress` says where a stage's group is; it may raise AdminError."""
        self._progress = progress
        self._clock = clock
        self._measured = Backpressure(tuple(StageName), limit_s=0.0, window_s=_WINDOW_S)
        self._fault = ""
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, name="lag", daemon=True)

    def start(self) -> None:
        """Begin to measure."""
        self._thread.start()

    def stop(self, timeout_s: float = 20.0) -> None:
        """After the measurement at hand."""
        self._stop.set()
        self._thread.join(timeout_s)

    def lag(self) -> tuple[Sequence[StageLag], str]:
        """See LagSource. Where the brokers have no answer nothing is said of the lag, rather than what it was."""
        if self._fault:
            return (), f"The consumer lag is not known now: {self._fault}"
        lags = self._measured.lags
        return tuple(StageLag(stage, lag.unread, lag.seconds) for stage, lag in lags.items()), _NOT_YET

    def measure(self) -> None:
        """Once."""
        try:
            self._measured.measure(self._clock.monotonic_s(), self._progress, None)
        except AdminError as error:
            log.warning("lag_unknown", cause=type(error).__name__, detail=str(error)[:500])
            self._fault = str(error)[:500]
        else:
            self._fault = ""

    def _run(self) -> None:
        self.measure()
        while not self._stop.wait(_EVERY_S):
            self.measure()
