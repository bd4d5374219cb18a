"""A producer that knows nothing of the fleet and sends at a steady pace, whatever happens to the brokers."""

from __future__ import annotations

import threading
from collections.abc import Sequence
from pathlib import Path

import orjson
from confluent_kafka import KafkaError, Message, Producer

from pipeline.streaming.kafka.config import KafkaSettings
from schemas.topics import Topic
from tests.support.waiting import wait_until

_TURN_S = 0.1
_CLOSE_S = 120.0


class SteadyProducer:
    """References to the files in turn, each under a media id of its own: `PREFIX-00000` and so on."""

    def __init__(self, kafka: KafkaSettings, files: Sequence[Path], per_s: float, prefix: str = "photo") -> None:
        self._producer = Producer(kafka.plain_producer())
        self._files, self._per_s, self._prefix = files, per_s, prefix
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._sent = 0
        self.published: set[str] = set()
        """Acknowledged by the brokers."""
        self.failures: list[str] = []

    def start(self) -> None:
        """Send until `stop`."""
        self._thread.start()

    def reaches(self, count: int, timeout_s: float = 120.0) -> None:
        """Until so many are acknowledged."""
        wait_until(lambda: len(self.published) >= count, timeout_s, f"{count} published")

    def stop(self) -> None:
        """Send no more; every one that was sent is acknowledged then.

        Raises:
            AssertionError: the brokers refused one.
        """
        self._stop.set()
        self._thread.join()
        left = self._producer.flush(_CLOSE_S)
        assert not left
        assert not self.failures, self.failures

    def _run(self) -> None:
        owed = 0.0
        while not self._stop.wait(_TURN_S):
            owed += _TURN_S * self._per_s
            while owed >= 1.0:
                owed -= 1.0
                self._send()
            self._producer.poll(0)

    def _send(self) -> None:
        media_id = f"{self._prefix}-{self._sent:05d}"
        path = self._files[self._sent % len(self._files)]
        self._sent += 1

        def delivered(error: KafkaError | None, _: Message) -> None:
            if error is None:
                self.published.add(media_id)
            else:
                self.failures.append(f"{media_id}: {error}")

        value = orjson.dumps({"uri": path.as_uri(), "media_id": media_id, "source": "camera-app"})
        self._producer.produce(Topic.INGEST, value, media_id, on_delivery=delivered)
