"""Records that wait for Kafka in the database, written with the change that they tell of."""

from __future__ import annotations

import orjson
from sqlalchemy import Connection, delete, func, insert, select, update

from pipeline.streaming.codec import TopicNames
from pipeline.streaming.transport import OutRecord
from schemas.envelope import child_of, headers_for, new_trace, parse_traceparent, schema_uri
from schemas.topics import Topic
from workers.console.domain.events import Event
from workers.console.domain.tables import outbox

SOURCE = "/mediasieve/console"


def post(connection: Connection, event: Event, key: str, traceparent: str, now: float) -> None:
    """Publish the event if, and only if, the transaction is committed."""
    trace = parse_traceparent(traceparent.encode()) or new_trace(key)
    headers = headers_for(
        event_type=event.event_type,
        source=SOURCE,
        event_id=str(event.event_id),
        subject=key,
        time=event.at,
        traceparent=child_of(trace).format(),
        data_schema=schema_uri(event.schema),
    )
    connection.execute(
        insert(outbox).values(
            event_id=str(event.event_id),
            topic=event.topic.value,
            key=key,
            value=event.value,
            headers=orjson.dumps([(name, value.decode()) for name, value in headers]),
            written_at=now,
        )
    )


def waiting(connection: Connection, limit: int, names: TopicNames) -> list[tuple[int, OutRecord]]:
    """The oldest unpublished records with their numbers; those of one case in the order of its events."""
    rows = connection.execute(
        select(outbox).where(outbox.c.published_at.is_(None)).order_by(outbox.c.entry_id).limit(limit)
    )
    return [
        (
            row.entry_id,
            OutRecord(
                names.physical(Topic(row.topic)),
                row.key.encode(),
                row.value,
                tuple((name, value.encode()) for name, value in orjson.loads(row.headers)),
            ),
        )
        for row in rows
    ]


def mark_published(connection: Connection, entries: list[int], now: float) -> None:
    """Kafka has them."""
    connection.execute(update(outbox).where(outbox.c.entry_id.in_(entries)).values(published_at=now))


def count_waiting(connection: Connection) -> int:
    """How many records Kafka does not have yet."""
    counted = connection.scalar(select(func.count()).where(outbox.c.published_at.is_(None)).select_from(outbox))
    return counted or 0


def forget_published(connection: Connection, before: float, limit: int) -> int:
    """Delete at most so many of those that Kafka has had since before that time; returns how many."""
    old = select(outbox.c.entry_id).where(outbox.c.published_at < before).limit(limit)
    return connection.execute(delete(outbox).where(outbox.c.entry_id.in_(old))).rowcount
