"""A producer for those who answer only when the brokers have the record."""

from __future__ import annotations

import logging
import threading
from concurrent.futures import Future
from typing import Any

from confluent_kafka import KafkaError, KafkaException, Message, Producer

from pipeline.streaming.kafka.config import KafkaSettings
from pipeline.streaming.transport import NotAcknowledged, OutRecord, Place, QueueFull, TopicPartition

_POLL_S = 0.1


class AcknowledgedWriter:
    """Idempotent, acks=all; `send` may be called from any thread.

    A record that is not acknowledged in time may be on the topic all the same: be ready to send it again.
    """

    def __init__(self, settings: KafkaSettings, ack_timeout_s: float, queue_records: int) -> None:
        """Connects at once, from a thread of its own. `queue_records`: how many may wait for their acknowledgement."""
        config: dict[str, Any] = settings.plain_producer() | {
            "message.timeout.ms": int(ack_timeout_s * 1000),
            "queue.buffering.max.messages": queue_records,
            "linger.ms": 2,
            "error_cb": self._on_error,
        }
        config.pop("log_level")
        self._producer = Producer(config, logger=logging.getLogger("librdkafka"))
        self._stop = threading.Event()
        self._fatal: str | None = None
        self._thread = threading.Thread(target=self._serve, name="acknowledgements", daemon=True)
        self._thread.start()

    @property
    def fatal(self) -> str | None:
        """Why this producer will never write again; None while it may."""
        return self._fatal

    def send(self, record: OutRecord) -> Future[Place]:
        """The future is done when the brokers have the record, or it raises NotAcknowledged.

        Raises:
            QueueFull: too many records wait for their acknowledgement.
        """
        future: Future[Place] = Future()
        future.set_running_or_notify_cancel()  # a caller that goes away takes nothing back

        def delivered(error: KafkaError | None, message: Message) -> None:
            if error is not None:
                future.set_exception(NotAcknowledged(f"{record.topic}: {error.str()}"))
            else:
                tp = TopicPartition(message.topic() or "", message.partition() or 0)
                future.set_result(Place(tp, message.offset() or 0))

        try:
            self._producer.produce(
                record.topic, record.value, record.key, headers=list(record.headers), on_delivery=delivered
            )
        except BufferError as error:
            raise QueueFull("too many records wait for the brokers") from error
        except KafkaException as error:
            future.set_exception(NotAcknowledged(f"{record.topic}: {error.args[0].str()}"))
        return future

    def close(self, timeout_s: float) -> int:
        """Wait for what is on its way; returns how many records had no answer in time."""
        left = int(self._producer.flush(timeout_s))
        self._stop.set()
        self._thread.join(timeout_s)
        return left

    def _serve(self) -> None:
        while not self._stop.is_set():
            self._producer.poll(_POLL_S)

    def _on_error(self, error: KafkaError) -> None:
        if error.fatal():
            self._fatal = error.str()
