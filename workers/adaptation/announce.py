"""Pointers and updates on their topics."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime

from pipeline.streaming.codec import TopicNames
from pipeline.streaming.kafka.client import RecordWriter
from pipeline.streaming.kafka.config import KafkaSettings
from pipeline.streaming.transport import OutRecord
from schemas.base import Record
from schemas.envelope import headers_for, new_trace, schema_uri
from schemas.reference import ReferencePointer
from schemas.review import ReferenceUpdate
from schemas.topics import Topic
from schemas.wire import encode


class KafkaAnnouncer:
    """See Announcer. Connects at the first publication."""

    def __init__(self, settings: KafkaSettings) -> None:
        """Where the brokers are."""
        self._settings = settings
        self._names = TopicNames(settings.topic_prefix)

    def announce(self, pointer: ReferencePointer, updates: Sequence[ReferenceUpdate]) -> None:
        """See Announcer: the audit log hears of a change no later than the workers do."""
        writer = RecordWriter(self._settings)
        for update in updates:
            writer.write(self._record(Topic.REFERENCE_UPDATES, update.content_sha256, update, update.updated_at))
        writer.flush()
        writer.write(self._record(Topic.REFERENCES, pointer.base, pointer, pointer.published_at))
        writer.flush()

    def _record(self, topic: Topic, key: str, record: Record, time: datetime) -> OutRecord:
        if isinstance(record, ReferenceUpdate):
            event_id = str(record.update_id)
        else:
            assert isinstance(record, ReferencePointer)  # noqa: S101 - the two kinds there are
            event_id = f"{record.base}-{record.sequence}"
        headers = headers_for(
            event_type=type(record).event_type,
            source="/mediasieve/references",
            event_id=event_id,
            subject=key,
            time=time,
            traceparent=new_trace(event_id).format(),
            data_schema=schema_uri(type(record)),
        )
        return OutRecord(self._names.physical(topic), key.encode(), encode(record), tuple(headers))
