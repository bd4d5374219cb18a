"""What was read from the topics becomes rows, in one transaction with how far the topics were read."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import structlog
from sqlalchemy import Connection, Engine, and_, delete, func, select, update

from pipeline.observability.metrics import Metrics
from pipeline.streaming.clock import Clock
from pipeline.streaming.codec import TopicNames
from pipeline.streaming.transport import RawRecord, TopicPartition
from schemas.wire import WireError
from workers.gateway.events import Projected, project
from workers.gateway.tables import (
    COUNTERS,
    EVENTS,
    LAST_SEQ,
    POSITIONS,
    PURGED_SEQ,
    REQUESTS,
    SUBMISSIONS,
    counter,
    insert_new,
)
from workers.web.database import reading

log = structlog.get_logger(__name__)


class Projection:
    """Used by one thread. Raises what SQLAlchemy does when the database is away; nothing is changed then."""

    def __init__(self, engine: Engine, clock: Clock, names: TopicNames, metrics: Metrics) -> None:
        """The tables are there already."""
        self._engine = engine
        self._clock = clock
        self._names = names
        self._metrics = metrics

    def position(self, tp: TopicPartition) -> int | None:
        """The next offset to read; None where nothing was read yet."""
        place = select(POSITIONS.c.next_offset).where(_is(tp))
        with reading(self._engine) as connection:
            found = connection.execute(place).scalar_one_or_none()
        return None if found is None else int(found)

    def apply(self, records: Sequence[RawRecord]) -> int:
        """Store what is new among them; returns how many events that were. A record seen before changes nothing.

        Raises:
            schemas.wire.UnknownMajorVersion: a record of a newer release; nothing is stored.
        """
        events = [event for record in records if (event := self._project(record)) is not None]
        unique = list({str(e.event.event_uid): e for e in reversed(events)}.values())[::-1]
        ends = {record.tp: record.offset + 1 for record in records}
        with self._engine.begin() as connection:
            first = self._reserve(connection, len(unique))
            added = [event for i, event in enumerate(unique) if self._add(connection, first + i, event)]
            for tenant, media_id in sorted({(e.event.tenant, e.event.media_id) for e in added}):  # see tables.py
                connection.execute(self._settle(tenant, media_id))
            for tp, offset in ends.items():
                _move(connection, tp, offset)
        return len(added)

    def restart(self, tp: TopicPartition, offset: int) -> None:
        """The partition was made anew: what was read of the old one does not count."""
        with self._engine.begin() as connection:
            connection.execute(update(POSITIONS).where(_is(tp)).values(next_offset=offset))

    def purge(self, keep_s: float) -> int:
        """Forget what is older; an item nobody has decided is forgotten too. Returns how many events went."""
        before_s = self._clock.wall_s() - keep_s
        with self._engine.begin() as connection:
            last = connection.execute(select(func.max(EVENTS.c.seq)).where(EVENTS.c.read_at < before_s)).scalar_one()
            if last is not None:
                connection.execute(
                    update(COUNTERS).where(COUNTERS.c.name == PURGED_SEQ, COUNTERS.c.value < last).values(value=last)
                )
            gone = connection.execute(delete(EVENTS).where(EVENTS.c.read_at < before_s)).rowcount
            connection.execute(delete(SUBMISSIONS).where(SUBMISSIONS.c.submitted_at < before_s))
            connection.execute(delete(REQUESTS).where(REQUESTS.c.created_at < before_s))
        return int(gone)

    def _project(self, record: RawRecord) -> Projected | None:
        topic = self._names.logical(record.tp.topic)
        try:
            return project(topic, record)
        except WireError as error:
            self._metrics.count("mediasieve_gateway_unreadable_total", topic.value)
            place = {"topic": record.tp.topic, "partition": record.tp.partition, "offset": record.offset}
            log.warning("record_unreadable", detail=str(error), **place)
            return None

    def _reserve(self, connection: Connection, count: int) -> int:
        """Numbers for so many events. The row stays locked until the commit, so numbers appear in order everywhere."""
        connection.execute(update(COUNTERS).where(COUNTERS.c.name == LAST_SEQ).values(value=COUNTERS.c.value + count))
        return counter(connection, LAST_SEQ) - count + 1

    def _add(self, connection: Connection, seq: int, projected: Projected) -> bool:
        event = projected.event
        row = {
            "seq": seq,
            "event_uid": str(event.event_uid),
            "kind": event.type,
            "tenant": event.tenant,
            "media_id": event.media_id,
            "read_at": self._clock.wall_s(),
            "body": event.model_dump(mode="json"),
            "evidence": [ref.model_dump(mode="json") for ref in projected.evidence],
        }
        added = insert_new(connection, EVENTS).values(row).returning(EVENTS.c.seq)
        return connection.execute(added).first() is not None

    def _settle(self, tenant: str, media_id: str) -> Any:
        now_s = self._clock.wall_s()
        values: Mapping[str, Any] = {
            "settled_at": func.coalesce(SUBMISSIONS.c.settled_at, now_s),
            "accepted_at": func.coalesce(SUBMISSIONS.c.accepted_at, now_s),  # whoever was answered was accepted
        }
        return (
            update(SUBMISSIONS)
            .where(SUBMISSIONS.c.tenant == tenant, SUBMISSIONS.c.media_id == media_id)
            .values(**values)
        )


def _is(tp: TopicPartition) -> Any:
    return and_(POSITIONS.c.topic == tp.topic, POSITIONS.c.partition == tp.partition)


def _move(connection: Connection, tp: TopicPartition, offset: int) -> None:
    """Never back: another gateway may have read further before it lost the partition."""
    row = {"topic": tp.topic, "partition": tp.partition, "next_offset": offset}
    added = insert_new(connection, POSITIONS).values(row).returning(POSITIONS.c.next_offset)
    if connection.execute(added).first() is None:
        ahead = _is(tp) & (POSITIONS.c.next_offset < offset)
        connection.execute(update(POSITIONS).where(ahead).values(next_offset=offset))
