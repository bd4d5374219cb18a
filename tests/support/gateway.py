"""A gateway over SQLite, a content store in a directory and a producer by script; asked in process."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Mapping, Sequence
from concurrent.futures import Future
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import httpx
import orjson
from fastapi import FastAPI

from pipeline.media.content_store import ContentStore
from pipeline.observability.metrics import Metrics
from pipeline.streaming.codec import TopicNames
from pipeline.streaming.transport import OutRecord, Place, QueueFull, RawRecord, TopicPartition
from schemas.deadletter import DEAD_LETTER_HEADER, DeadLetter, RejectCode
from schemas.decision import Decision
from schemas.media import MediaReference
from schemas.ocsf import encode_finding, finding_from_decision
from schemas.topics import DECISION_TOPICS, Topic
from schemas.types import StageName
from schemas.wire import decode, encode
from tests.support.findings import decision_of
from tests.support.streaming import FakeClock
from workers.gateway.app import create_app
from workers.gateway.backpressure import Backpressure
from workers.gateway.intake import Intake
from workers.gateway.limits import OpenUploads, RateLimits
from workers.gateway.news import News
from workers.gateway.parts import Parts
from workers.gateway.projection import Projection
from workers.gateway.registry import Registry
from workers.gateway.settings import GatewaySettings
from workers.gateway.tables import make_tables
from workers.gateway.views import Views
from workers.web.api_keys import ApiKeys
from workers.web.authentication import Authenticator
from workers.web.database import DatabaseSettings, open_database
from workers.web.principal import Limits, Role
from workers.web.settings import AccessSettings

PNG = bytes.fromhex("89504e470d0a1a0a0000000d49484452000000100000001008020000009091683600000000")
"""The beginning of one, which is enough to be known as one."""

BASE = "http://gateway.test"
WALL_S = 1_700_001_000.0
"""What a new FakeClock says."""


class ScriptedWriter:
    """Acknowledges at once, unless `faults` says otherwise; `held` keeps futures open until `acknowledge`."""

    def __init__(self) -> None:
        self.sent: list[OutRecord] = []
        self.faults: deque[Exception | None] = deque()
        self.held: list[Future[Place]] | None = None

    def send(self, record: OutRecord) -> Future[Place]:
        fault = self.faults.popleft() if self.faults else None
        if isinstance(fault, QueueFull):
            raise fault
        self.sent.append(record)
        future: Future[Place] = Future()
        if fault is not None:
            future.set_exception(fault)
        elif self.held is not None:
            self.held.append(future)
        else:
            future.set_result(Place(TopicPartition(record.topic, 0), len(self.sent)))
        return future

    @property
    def references(self) -> list[MediaReference]:
        return [decode(MediaReference, record.value) for record in self.sent]


@dataclass
class GatewaySite:
    """One process's worth of gateway; `again()` is its restart over the same files."""

    home: Path
    settings: GatewaySettings = field(default_factory=GatewaySettings)
    clock: FakeClock = field(default_factory=FakeClock)
    writer: ScriptedWriter = field(default_factory=ScriptedWriter)

    def __post_init__(self) -> None:
        self.engine = open_database(DatabaseSettings(url=f"sqlite:///{self.home / 'web.sqlite'}"))
        make_tables(self.engine, self.clock.wall_s())
        self.metrics = Metrics()
        self.keys = ApiKeys(self.home / "keys.json")
        if not self.keys.path.exists():
            self.key()
        self.registry = Registry(self.engine, self.clock, lease_s=25.0)
        self.names = TopicNames()
        self.projection = Projection(self.engine, self.clock, self.names, self.metrics)
        self.store = ContentStore((self.home / "store").as_uri())
        self.backpressure = Backpressure(
            tuple(StageName), limit_s=self.settings.max_lag_s, window_s=self.settings.rate_window_s
        )
        self.parts = Parts(
            settings=self.settings,
            authenticator=Authenticator(AccessSettings(api_keys=self.keys.path), self._now),
            intake=Intake(self.registry, self.writer, Topic.INGEST.value, self.clock, self.metrics),
            views=Views(self.engine),
            store=self.store,
            backpressure=self.backpressure,
            rates=RateLimits(self.settings, self.clock),
            news=News(self.settings.streams_per_caller),
            clock=self.clock,
            metrics=self.metrics,
            open_uploads=OpenUploads(self.settings.uploads_open),
        )
        self.app: FastAPI = create_app(self.parts)

    def again(self) -> GatewaySite:
        self.engine.dispose()
        return GatewaySite(self.home, self.settings, self.clock, self.writer)

    def close(self) -> None:
        self.engine.dispose()

    def _now(self) -> datetime:
        return datetime.fromtimestamp(self.clock.wall_s(), UTC)

    def key(
        self,
        tenants: Sequence[str] | None = ("acme",),
        roles: Sequence[Role] = (Role.SUBMIT, Role.READ),
        limits: Limits | None = None,
        expires_at: datetime | None = None,
    ) -> dict[str, str]:
        """Headers of a new key."""
        _, key = self.keys.create(
            tenants=None if tenants is None else frozenset(tenants),
            roles=frozenset(roles),
            limits=limits,
            now=self._now(),
            expires_at=expires_at,
        )
        return {"Authorization": f"Bearer {key}"}

    def ask(self, method: str, path: str, **arguments: Any) -> httpx.Response:
        return asyncio.run(self.ask_async(method, path, **arguments))

    async def ask_async(self, method: str, path: str, **arguments: Any) -> httpx.Response:
        transport = httpx.ASGITransport(self.app, raise_app_exceptions=False)
        async with httpx.AsyncClient(transport=transport, base_url=BASE) as client:
            return await client.request(method, path, **arguments)

    def submit(self, headers: Mapping[str, str], **reference: Any) -> httpx.Response:
        return self.ask("POST", "/v1/media", headers=dict(headers), json=reference)

    def decided(self, media_id: str, example: str = "pass_released", tenant: str = "acme", offset: int = 0) -> Decision:
        """A decision of the fleet, read by the gateway."""
        decision = tenant_decision(media_id, example, tenant)
        self.projection.apply([decision_record(decision, offset)])
        return decision


def tenant_decision(media_id: str, example: str, tenant: str) -> Decision:
    """The example's decision on another item of another tenant."""
    found = decision_of(media_id, example)
    admission = found.admission.model_copy(update={"tenant": tenant})
    return found.model_copy(update={"admission": admission})


def decision_record(decision: Decision, offset: int = 0, topic: Topic | None = None) -> RawRecord:
    """As the topic of its outcome holds it."""
    where = topic or DECISION_TOPICS[decision.outcome]
    return RawRecord(TopicPartition(where.value, 0), offset, None, encode_finding(finding_from_decision(decision)))


def dead_letter_record(media_id: str, tenant: str | None = "acme", offset: int = 0) -> RawRecord:
    """As the dead-letter topic holds it."""
    letter = DeadLetter(
        code=RejectCode.SOURCE_GONE,
        detail="the origin answers 404",
        stage="classifier",
        topic=Topic.INGEST.value,
        partition=0,
        offset=offset,
        media_id=media_id,
        tenant=tenant,
        trace_id="0af7651916cd43dd8448eb211c80319c",
        value_sha256="ab" * 32,
        value_bytes=12,
        failed_at=datetime.fromtimestamp(WALL_S, UTC),
    )
    tp = TopicPartition(Topic.DEAD_LETTER.value, 0)
    return RawRecord(tp, offset, None, b"{}", ((DEAD_LETTER_HEADER, encode(letter)),))


def problem(answer: httpx.Response) -> str:
    """The kind of problem, once the answer is known to be one."""
    assert answer.headers["content-type"] == "application/problem+json", answer.text
    body = orjson.loads(answer.content)
    assert body["status"] == answer.status_code
    return str(body["type"]).rpartition("/")[2]
