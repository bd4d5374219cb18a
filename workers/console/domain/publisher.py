"""From the outbox to Kafka, at least once.

What was written with a change is sent until Kafka has acknowledged it, and only then marked. A crash in between sends
the same bytes under the same ids again: readers drop duplicates by `ce_id`, a SIEM by `metadata.uid`.
"""

from __future__ import annotations

import uuid
from collections.abc import Callable, Iterator
from concurrent.futures import Future
from typing import Any

import structlog
from sqlalchemy import Engine, insert, or_, update
from sqlalchemy.exc import IntegrityError

from pipeline.streaming.clock import Clock
from pipeline.streaming.codec import TopicNames
from pipeline.streaming.transport import NotAcknowledged, OutRecord, Place, QueueFull, Writer
from workers.console.domain.housekeeping import forget
from workers.console.domain.outbox import mark_published, waiting
from workers.console.domain.settings import ReviewSettings
from workers.console.domain.tables import publishers
from workers.console.domain.turn import over, turn
from workers.web.database import reading

log = structlog.get_logger("mediasieve")

LEAD_S = 90.0
"""How long a publisher that died is waited for: longer than a batch may take until it is acknowledged."""

_NAME = "outbox"

HOOKS = ("read", "sent", "marked")
"""Points of a turn: before anything is sent, once Kafka has it, once the database says so."""

Hook = Callable[[str], None]
"""Called at each of HOOKS; the tests crash there."""


def no_hook(_point: str) -> None:
    """In production nothing happens there."""


class OutboxPublisher:
    """One publishes at a time on a database, so that a case's records keep their order; others stand by."""

    def __init__(
        self,
        engine: Engine,
        clock: Clock,
        writer: Writer,
        *,
        names: TopicNames,
        settings: ReviewSettings,
        hook: Hook = no_hook,
    ) -> None:
        """The tables exist, see `open_tables`."""
        self._engine = engine
        self._clock = clock
        self._writer = writer
        self._names = names
        self._settings = settings
        self._hook = hook
        self._holder = str(uuid.uuid4())

    def turn(self) -> int:
        """Send one batch; returns how many records Kafka has now, 0 also where another publisher leads.

        Raises:
            NotAcknowledged: of some of them Kafka did not say that it has them; they are sent again next time.
        """
        if not self._waiting(1) or not self._lead():
            return 0
        found = self._waiting(self._settings.publish_batch)  # what another one published before is not among them
        self._hook("read")
        sent = list(self._send(found))
        done = [entry for entry, future in sent if _acknowledged(future)]
        self._hook("sent")
        if done:
            with self._engine.begin() as connection:
                mark_published(connection, done, self._clock.wall_s())
        self._hook("marked")
        if len(done) < len(sent):
            raise NotAcknowledged(f"{len(sent) - len(done)} of {len(sent)} records; they are sent again")
        return len(done)

    def tidy(self) -> int:
        """Forget what is old, some of it; returns how many rows went: ask again until it is 0."""
        with turn(self._engine, self._clock, self._settings) as now:
            return forget(now)

    def resign(self) -> None:
        """Let another publisher lead at once."""
        with self._engine.begin() as connection:
            connection.execute(update(publishers).where(publishers.c.holder == self._holder).values(until=0.0))

    def _waiting(self, limit: int) -> list[tuple[int, OutRecord]]:
        with reading(self._engine) as connection:
            return waiting(connection, limit, self._names)

    def _lead(self) -> bool:
        now = self._clock.wall_s()
        mine = or_(publishers.c.holder == self._holder, over(publishers.c.until, now, LEAD_S))
        values: dict[str, Any] = {"holder": self._holder, "until": now + LEAD_S}
        with self._engine.begin() as connection:
            done = connection.execute(update(publishers).where(publishers.c.name == _NAME, mine).values(values))
        return done.rowcount == 1 or self._first(values)

    def _first(self, values: dict[str, Any]) -> bool:
        try:
            with self._engine.begin() as connection:
                connection.execute(insert(publishers).values(name=_NAME, **values))
        except IntegrityError:  # another one leads
            return False
        return True

    def _send(self, found: list[tuple[int, OutRecord]]) -> Iterator[tuple[int, Future[Place]]]:
        for entry, record in found:
            try:
                yield entry, self._writer.send(record)
            except QueueFull:  # it and what follows it stay in the outbox until the next turn
                return


def _acknowledged(future: Future[Place]) -> bool:
    try:
        future.result()
    except NotAcknowledged as error:
        log.warning("outbox_not_acknowledged", detail=str(error))
        return False
    return True
