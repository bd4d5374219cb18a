"""Dead letters for operators: list, replay, and let a worker past its own."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from dataclasses import dataclass, replace

import structlog

from pipeline.streaming.codec import MEDIA_ID_HEADER, RETRY_HEADER, TopicNames
from pipeline.streaming.kafka.client import RecordReader, RecordWriter, note_offset, read_at
from pipeline.streaming.kafka.config import KafkaSettings
from pipeline.streaming.partitions import Note
from pipeline.streaming.transport import CommitPoint, OutRecord, RawRecord, TopicPartition
from schemas.deadletter import DEAD_LETTER_HEADER, DeadLetter
from schemas.topics import RETRY_DELAYS_S, Topic
from schemas.wire import decode

log = structlog.get_logger(__name__)


class NotReplayable(Exception):
    """The original bytes are gone, or it is no dead letter."""


@dataclass(frozen=True, slots=True)
class Letter:
    """One record of `media.deadletter`: what happened, and the original."""

    record: RawRecord
    facts: DeadLetter

    @property
    def place(self) -> str:
        """`partition-offset` in the dead-letter topic: how the command line names it."""
        return f"{self.record.tp.partition}-{self.record.offset}"


def read_letters(settings: KafkaSettings) -> Iterator[Letter]:
    """All dead letters that are kept."""
    topic = TopicNames(settings.topic_prefix).physical(Topic.DEAD_LETTER)
    with RecordReader(settings, [topic]) as reader:
        for record in reader.to_end():
            header = record.header(DEAD_LETTER_HEADER)
            if header is not None:
                yield Letter(record, decode(DeadLetter, header))


def replay(letter: Letter, settings: KafkaSettings, writer: RecordWriter) -> str:
    """Publish the original again, under the media id it already had; returns the topic.

    What a producer sent goes to `media.ingest`, an internal record to the topic it was in.

    Raises:
        NotReplayable: only the first bytes were kept and the original has left its topic.
    """
    names = TopicNames(settings.topic_prefix)
    facts = letter.facts
    edge = {names.physical(t) for t in (Topic.INGEST, *RETRY_DELAYS_S)}
    topic = names.physical(Topic.INGEST) if facts.topic in edge else facts.topic
    dropped = {MEDIA_ID_HEADER, RETRY_HEADER}
    headers = [(k, v) for k, v in _original_headers(letter.record) if k not in dropped]
    headers.append((MEDIA_ID_HEADER, facts.media_id.encode()))
    writer.write(OutRecord(topic, letter.record.key, _original_value(letter, settings), tuple(headers)))
    writer.flush()
    return topic


def accept(settings: KafkaSettings, group: str, tp: TopicPartition, until: int) -> CommitPoint:
    """Let the group's next reader of `tp` dead-letter records below `until` without counting them.

    The permission is written beside the committed offset, so it holds for whichever member reads the partition.

    Raises:
        KafkaUnavailable: the group has members.
    """
    now = note_offset(settings, group, tp, None) or CommitPoint(0)
    wanted = CommitPoint(now.offset, replace(Note.decode(now.note), accept=until).encode())
    written = note_offset(settings, group, tp, wanted) or wanted
    log.warning("deadletter_accept", group=settings.group(group), partition=str(tp), until=until, offset=now.offset)
    return written


def _original_headers(record: RawRecord) -> tuple[tuple[str, bytes], ...]:
    names = [name for name, _ in record.headers]
    last = len(names) - 1 - names[::-1].index(DEAD_LETTER_HEADER)
    return record.headers[:last]


def _original_value(letter: Letter, settings: KafkaSettings) -> bytes:
    facts = letter.facts
    if not facts.value_truncated:
        return letter.record.value
    original = read_at(settings, TopicPartition(facts.topic, facts.partition), facts.offset)
    if original is None or hashlib.sha256(original.value).hexdigest() != facts.value_sha256:
        raise NotReplayable(
            f"{letter.place}: only {len(letter.record.value)} of {facts.value_bytes} bytes were kept and "
            f"{facts.topic}[{facts.partition}]@{facts.offset} is gone; ask the producer to send it again"
        )
    return original.value
