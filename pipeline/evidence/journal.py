"""Erasures on their topic, where the audit log finds them."""

from __future__ import annotations

from pipeline.streaming.codec import TopicNames
from pipeline.streaming.kafka.client import RecordWriter
from pipeline.streaming.kafka.config import KafkaSettings
from pipeline.streaming.transport import OutRecord
from schemas.envelope import headers_for, new_trace, schema_uri
from schemas.erasure import Erasure
from schemas.topics import Topic
from schemas.wire import encode


class KafkaJournal:
    """Writes to `evidence.erasures` with acks=all; connects at the first erasure."""

    def __init__(self, settings: KafkaSettings) -> None:
        """Where the brokers are."""
        self._settings = settings
        self._topic = TopicNames(settings.topic_prefix).physical(Topic.ERASURES)
        self._writer: RecordWriter | None = None

    def announce(self, erasure: Erasure) -> None:
        """Return once the brokers have it.

        Raises:
            KafkaUnavailable: it may not be written; nothing may be destroyed.
        """
        if self._writer is None:
            self._writer = RecordWriter(self._settings)
        subject = f"{erasure.tenant}/{erasure.media_id}"
        headers = headers_for(
            event_type=Erasure.event_type,
            source="/mediasieve/retention",
            event_id=str(erasure.erasure_id),
            subject=subject,
            time=erasure.erased_at,
            traceparent=new_trace(str(erasure.erasure_id)).format(),
            data_schema=schema_uri(Erasure),
        )
        self._writer.write(OutRecord(self._topic, subject.encode(), encode(erasure), tuple(headers)))
        self._writer.flush()
