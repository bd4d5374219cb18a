"""A review queue over a database in a file, with a clock that tests drive and decisions by the number."""

from __future__ import annotations

import hashlib
from concurrent.futures import Future
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from uuid import UUID

import orjson
from pydantic import SecretStr
from sqlalchemy import Engine, select

from pipeline.streaming.codec import TopicNames
from pipeline.streaming.transport import NotAcknowledged, OutRecord, Place, QueueFull, TopicPartition
from schemas.decision import Decision, Outcome, Risk
from schemas.media import StageScore, decision_uid
from schemas.topics import Topic
from schemas.types import Priority, StageName
from tests.support.findings import decision
from tests.support.streaming import FakeClock
from workers.console.domain.intake import Decided, Intake
from workers.console.domain.publisher import Hook, OutboxPublisher
from workers.console.domain.service import ReviewService
from workers.console.domain.settings import ReviewSettings
from workers.console.domain.tables import outbox
from workers.console.domain.turn import moment
from workers.web.database import DatabaseSettings, open_database, reading

NEVER_GOLD = 1.0
"""A draw that is at least every share."""

_TRACE = "00-" + "ab" * 16 + "-" + "cd" * 8 + "-01"
_SCORES = (StageName.CLASSIFIER, StageName.SPECTRAL, StageName.MLLM)


def escalated(
    number: int,
    at_s: float,
    *,
    outcome: Outcome = Outcome.ESCALATE,
    tenant: str = "news-desk",
    score: float | None = 0.5,
    scores: tuple[float, ...] = (0.5, 0.5),
    source: str | None = "desk",
    priority: Priority = Priority.NORMAL,
    **admission: Any,
) -> Decision:
    """Decision `number`, made at `at_s` seconds since the epoch; held, unless said otherwise."""
    base = decision("escalate_uncertain")
    sha256 = hashlib.sha256(str(number).encode()).hexdigest()
    media_id = admission.pop("media_id", f"img-{number}")
    uid = decision_uid(tenant, media_id, sha256, "policy-7", "2026.11")
    stages = tuple(
        StageScore(stage=stage, score=value, bundle_version="2026.11", model="m")
        for stage, value in zip(_SCORES, scores, strict=False)
    )
    changes = {
        "decision_uid": uid,
        "outcome": outcome,
        "risk": Risk.LOW_RISK if outcome is Outcome.PASS else None,
        "final_score": score,
        "scores": stages,
        "decided_at": moment(at_s),
        "facts": base.facts.model_copy(update={"sha256": sha256}) if base.facts else None,
        "admission": base.admission.model_copy(
            update={
                "tenant": tenant,
                "media_id": media_id,
                "decision_uid": uid,
                "source": source,
                "priority": priority,
                **admission,
            }
        ),
    }
    return Decision.model_validate({**base.model_dump(), **{k: _plain(v) for k, v in changes.items()}})


@dataclass
class Kafka:
    """A writer in memory. `faults` are what the next records meet."""

    records: list[OutRecord] = field(default_factory=list)
    faults: list[type[Exception] | None] = field(default_factory=list)

    def send(self, record: OutRecord) -> Future[Place]:
        fault = self.faults.pop(0) if self.faults else None
        if fault is QueueFull:
            raise QueueFull("full")
        future: Future[Place] = Future()
        if fault is NotAcknowledged:
            future.set_exception(NotAcknowledged("away"))
        else:
            self.records.append(record)
            future.set_result(Place(TopicPartition(record.topic, 0), len(self.records)))
        return future

    def ids(self) -> list[str]:
        """CloudEvents ids in the order of the records."""
        return [dict(record.headers)["ce_id"].decode() for record in self.records]

    def told(self, topic: Topic) -> list[dict[str, Any]]:
        """What is on a topic, each event once."""
        once = {dict(r.headers)["ce_id"]: r for r in self.records if r.topic == topic.value}
        return [orjson.loads(record.value) for record in once.values()]


class Site:
    """One database; `service` and `intake` may be made again, as another process would."""

    def __init__(
        self, home: Path, settings: ReviewSettings | None = None, draw: float = NEVER_GOLD, url: str | None = None
    ) -> None:
        """`url`: of an empty database; none: SQLite in `home`."""
        self.url = url or f"sqlite:////{home / 'review.sqlite'}"
        self.settings = settings or ReviewSettings()
        self.clock = FakeClock()
        self.draw = draw
        self.kafka = Kafka()
        self.engine = self.database()
        self.service = self.process()
        self.intake = Intake(self.engine, self.clock, self.settings)

    def database(self) -> Engine:
        return open_database(DatabaseSettings(url=SecretStr(self.url)))

    def process(self, engine: Engine | None = None) -> ReviewService:
        return ReviewService(engine or self.engine, self.clock, self.settings, draw=lambda: self.draw)

    def publisher(self, hook: Hook = lambda _: None) -> OutboxPublisher:
        return OutboxPublisher(
            self.engine, self.clock, self.kafka, names=TopicNames(), settings=self.settings, hook=hook
        )

    def publish(self) -> None:
        """All that waits."""
        publisher = self.publisher()
        while publisher.turn():
            pass
        publisher.resign()

    def add(self, *decided: Decision) -> list[str]:
        """Store decisions; returns their case ids."""
        self.intake.store([Decided(one, _TRACE) for one in decided])
        return [str(one.decision_uid) for one in decided]

    def held(self, number: int = 0, **changes: Any) -> str:
        """A new held decision of this moment; returns its case id."""
        return self.add(escalated(number, self.clock.wall_s(), **changes))[0]

    def waiting(self) -> list[tuple[str, bytes]]:
        """Topic and value of what is in the outbox, published or not."""
        with reading(self.engine) as connection:
            rows = connection.execute(select(outbox.c.topic, outbox.c.value).order_by(outbox.c.entry_id))
            return [(row.topic, row.value) for row in rows]


def uid(case_id: str) -> UUID:
    return UUID(case_id)


def _plain(value: Any) -> Any:
    if isinstance(value, tuple):
        return [one.model_dump() for one in value]
    return value.model_dump() if hasattr(value, "model_dump") else value
