"""The records of a decision as they lie on the topics, while Kafka keeps them."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from uuid import UUID

from pipeline.streaming.codec import TopicNames
from pipeline.streaming.kafka.client import RecordReader
from pipeline.streaming.kafka.config import KafkaSettings
from pipeline.streaming.transport import RawRecord
from schemas.erasure import Erasure
from schemas.review import ReviewVerdict
from schemas.topics import DECISION_TOPICS, Topic
from schemas.wire import UnknownMajorVersion, WireError, decode
from workers.explain.events import Event, Place, read_event
from workers.explain.sources import Found, Records

_READ = (*DECISION_TOPICS.values(), Topic.REVIEWS, Topic.ERASURES)


@dataclass(frozen=True, slots=True)
class TopicSource:
    """See Source. Reads all that the topics hold at each call, and keeps what names the decision or media item."""

    settings: KafkaSettings

    def find(self, uid: UUID) -> Found | None:
        """See Source. Raises KafkaUnavailable: no answer, or a topic that does not exist."""
        return self._read(str(uid)).find(uid)

    def uids(self, tenant: str, media_id: str) -> tuple[UUID, ...]:
        """See Source. Raises KafkaUnavailable."""
        return self._read(media_id).uids(tenant, media_id)

    def _read(self, needle: str) -> Records:
        names = TopicNames(self.settings.topic_prefix)
        with RecordReader(self.settings, [names.physical(topic) for topic in _READ]) as reader:
            kept = naming(needle, reader.to_end(), names)
            return sort_records(kept, names, f"the topics of Kafka at {self.settings.bootstrap}")


def naming(needle: str, raw: Iterable[RawRecord], names: TopicNames) -> Iterator[RawRecord]:
    """Records that hold the text, before anything is parsed; and every erasure, which names media items only."""
    return (r for r in raw if needle.encode() in r.value or names.logical(r.tp.topic) is Topic.ERASURES)


def sort_records(raw: Iterable[RawRecord], names: TopicNames, source: str) -> Records:
    """Each record by what its topic carries; what cannot be read is counted in a note."""
    events: list[Event] = []
    reviews: list[ReviewVerdict] = []
    erasures: list[Erasure] = []
    unreadable = 0
    for record in raw:
        topic = names.logical(record.tp.topic)
        try:
            match topic:
                case Topic.REVIEWS:
                    reviews.append(decode(ReviewVerdict, record.value))
                case Topic.ERASURES:
                    erasures.append(decode(Erasure, record.value))
                case _:
                    place = Place(topic, record.tp.partition, record.offset)
                    events.append(read_event(record.value, place))
        except (WireError, UnknownMajorVersion):
            unreadable += 1
    notes = (f"records on the topics that could not be read: {unreadable}",) if unreadable else ()
    return Records(source, tuple(events), tuple(reviews), tuple(erasures), notes)
