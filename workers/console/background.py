"""What the console does besides answering pages: one thread reads decisions, one publishes the outbox."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Protocol

import structlog

from pipeline.observability.metrics import Metrics
from pipeline.streaming.transport import NotAcknowledged
from workers.console.consumer import DecisionConsumer
from workers.console.domain.publisher import OutboxPublisher
from workers.console.domain.service import ReviewService
from workers.web.database import DATABASE_AWAY, why_away

log = structlog.get_logger("mediasieve")

_BACKOFF_S = 2.0
_TELL_EVERY_TURNS = 20
_TIDY_EVERY_TURNS = 600
_CLOSE_S = 20.0


class ProducerLost(Exception):
    """The producer will never write again; a restart makes a new one."""


class Producing(Protocol):
    """The part of AcknowledgedWriter that is looked at here."""

    @property
    def fatal(self) -> str | None:
        """Why it will never write again."""

    def close(self, timeout_s: float) -> int:
        """Wait for what is on its way."""


class Background:
    """Both threads. The first that fails ends the other, and is told by `failure`."""

    def __init__(
        self,
        consumer: DecisionConsumer,
        publisher: OutboxPublisher,
        writer: Producing,
        service: ReviewService,
        *,
        metrics: Metrics,
        publish_every_s: float,
    ) -> None:
        """Nothing runs before `start`. `writer` is the publisher's."""
        self._consumer = consumer
        self._publisher = publisher
        self._writer = writer
        self._service = service
        self._metrics = metrics
        self._every_s = publish_every_s
        self._stop = threading.Event()
        self._failure: Exception | None = None
        self._threads = [
            threading.Thread(target=self._guarded, args=(work,), name=name, daemon=True)
            for name, work in (("decisions", self._consume), ("outbox", self._publish))
        ]

    @property
    def failure(self) -> Exception | None:
        """Why they ended by themselves; None while all is well."""
        return self._failure

    def start(self) -> None:
        """Begin to read and to publish."""
        for thread in self._threads:
            thread.start()

    def stop(self, timeout_s: float = 60.0) -> None:
        """Finish the turn in hand, leave the group, let another publisher lead."""
        self._stop.set()
        for thread in self._threads:
            thread.join(timeout_s)
        self._writer.close(_CLOSE_S)

    def _guarded(self, work: Callable[[], None]) -> None:
        try:
            work()
        except Exception as error:
            log.error("background_failed", cause=type(error).__name__, detail=str(error))
            self._failure = self._failure or error
            self._stop.set()

    def _consume(self) -> None:
        try:
            self._consumer.open()
            while not self._stop.is_set():
                if not self._consumer.turn():
                    self._stop.wait(_BACKOFF_S)
        finally:
            self._consumer.close()

    def _publish(self) -> None:
        turns = 0
        while not self._stop.is_set():
            if self._writer.fatal is not None:
                raise ProducerLost(self._writer.fatal)
            try:
                sent = self._publisher.turn()
                self._now_and_then(turns)
                turns += 1
            except (NotAcknowledged, *DATABASE_AWAY) as error:
                log.warning("outbox_waits", cause=type(error).__name__, detail=why_away(error))
                self._stop.wait(_BACKOFF_S)
                continue
            if not sent:
                self._stop.wait(self._every_s)
        self._resign()

    def _resign(self) -> None:
        try:
            self._publisher.resign()
        except DATABASE_AWAY as error:  # then another one leads a little later
            log.warning("outbox_not_resigned", detail=why_away(error))

    def _now_and_then(self, turns: int) -> None:
        if turns % _TELL_EVERY_TURNS == 0:
            now = self._service.backlog()
            self._metrics.set("mediasieve_review_waiting_cases", now.waiting)
            self._metrics.set("mediasieve_review_oldest_case_seconds", now.oldest_age_s)
            self._metrics.set("mediasieve_review_outbox_records", now.unpublished)
        if turns % _TIDY_EVERY_TURNS == 0:
            while self._publisher.tidy():
                pass
