"""The thread that measures how far the fleet is behind."""

from __future__ import annotations

import threading

import structlog
from sqlalchemy.exc import SQLAlchemyError

from pipeline.observability.metrics import Metrics
from pipeline.streaming.clock import Clock
from pipeline.streaming.codec import TopicNames
from pipeline.streaming.kafka.admin import AdminError, TopicAdmin
from pipeline.streaming.kafka.config import KafkaSettings
from schemas.types import StageName
from workers.gateway.backpressure import STAGE_TOPICS, Backpressure, Progress
from workers.gateway.registry import Registry

log = structlog.get_logger("mediasieve")


class GroupProgress:
    """Asks the brokers how far a stage's group is."""

    def __init__(self, settings: KafkaSettings) -> None:
        """Connects at the first question."""
        self._settings = settings
        self._names = TopicNames(settings.topic_prefix)
        self._admin = TopicAdmin(settings.common())

    def __call__(self, stage: StageName) -> Progress:
        """Raises AdminError."""
        topics = [self._names.physical(topic) for topic in STAGE_TOPICS[stage]]
        places = self._admin.group_places(self._settings.group(stage.value), topics).values()
        return Progress(sum(place.next for place in places), sum(place.lag for place in places))


class Measuring:
    """`run` in a thread of its own; asking costs connections, so it is done every few seconds."""

    def __init__(
        self,
        *,
        backpressure: Backpressure,
        progress: GroupProgress,
        registry: Registry,
        clock: Clock,
        metrics: Metrics,
        every_s: float,
    ) -> None:
        """Measures nothing yet."""
        self._backpressure = backpressure
        self._progress = progress
        self._registry = registry
        self._clock = clock
        self._metrics = metrics
        self._every_s = every_s
        self._stop = threading.Event()
        self.failure: Exception | None = None

    def run(self) -> None:
        """Until `stop`; an error that ends the process is left in `failure`."""
        try:
            while not self._stop.is_set():
                self.measure()
                self._stop.wait(self._every_s)
        except Exception as error:  # a thread has nobody to raise to; the process looks at `failure`
            self.failure = error

    def stop(self) -> None:
        """After the measurement at hand."""
        self._stop.set()

    def measure(self) -> None:
        """Once. Where the brokers have no answer the last measurement stands: nothing can be sent then either."""
        try:
            oldest_s = self._registry.oldest_open_s()
            lags = self._backpressure.measure(self._clock.monotonic_s(), self._progress, oldest_s)
        except (AdminError, SQLAlchemyError) as error:
            log.warning("lag_unknown", cause=type(error).__name__, detail=str(error)[:500])
            self._metrics.count("mediasieve_gateway_lag_unknown_total")
            return
        self._metrics.set("mediasieve_gateway_oldest_open_seconds", oldest_s or 0.0)
        self._metrics.set("mediasieve_gateway_lag_seconds", max((lag.seconds for lag in lags.values()), default=0.0))
