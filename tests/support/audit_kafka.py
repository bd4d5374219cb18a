"""An audit log over a real broker: records by transaction, the loop turned by the test, the command line."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from uuid import UUID, uuid5

import orjson
import pytest
from confluent_kafka import Producer, TopicPartition
from confluent_kafka.admin import AdminClient
from typer.testing import CliRunner

from pipeline.observability.metrics import Metrics
from pipeline.settings import PREFIX, load_settings
from pipeline.streaming.clock import SystemClock
from pipeline.streaming.codec import TopicNames
from pipeline.streaming.kafka.admin import TopicAdmin
from pipeline.streaming.kafka.source import KafkaSource
from schemas.topics import AUDITED_TOPICS, Topic
from tests.support.audit import finding
from tests.support.fleet import clean_environment
from tests.support.kafka import TIMEOUT_S
from tests.support.waiting import wait_until
from workers.audit.completeness import Completeness, compare_with_kafka
from workers.audit.log import LogPlace
from workers.audit.loop import AuditLoop, Hook
from workers.audit.rotation import make_keys
from workers.audit.worker import open_writer
from workers.cli.audit import app
from workers.settings import Settings

LOG_NAME = "tests.example/audit"
ASK_EVERY_S = 0.3
_NAMES = UUID(int=0)


def uid_of(media_id: str) -> UUID:
    """The decision uid of a media item of these tests."""
    return uuid5(_NAMES, media_id)


@dataclass
class AuditSite:
    """One prefix on the shared broker, one log in a directory, one pair of keys."""

    bootstrap: str
    prefix: str
    home: Path
    overrides: Mapping[str, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self._asked_s = 0.0
        self.keys_directory = self.home / "keys"
        if not self.keys_directory.exists():
            make_keys(self.keys_directory, LOG_NAME)

    @property
    def environment(self) -> dict[str, str]:
        return {
            "MEDIASIEVE_KAFKA__BOOTSTRAP": self.bootstrap,
            "MEDIASIEVE_KAFKA__TOPIC_PREFIX": self.prefix,
            "MEDIASIEVE_STORE__URL": (self.home / "store").as_uri(),
            "MEDIASIEVE_AUDIT__LOG_NAME": LOG_NAME,
            "MEDIASIEVE_AUDIT__PRIVATE_KEY": str(self.keys_directory / "audit-private.pem"),
            "MEDIASIEVE_AUDIT__PUBLIC_KEYS": str(self.keys_directory / "audit-public-keys.json"),
            "MEDIASIEVE_AUDIT__CHECKPOINT_AGE_S": "0.2",
            "MEDIASIEVE_AUDIT__BACKOFF_FIRST_S": "0.2",
            **self.overrides,
        }

    @property
    def public_key(self) -> str:
        return self.environment["MEDIASIEVE_AUDIT__PUBLIC_KEYS"]

    @property
    def settings(self) -> Settings:
        with pytest.MonkeyPatch.context() as patch:
            for name in [n for n in os.environ if n.startswith(PREFIX)]:
                patch.delenv(name)
            for name, value in self.environment.items():
                patch.setenv(name, value)
            return load_settings(Settings)

    @property
    def place(self) -> LogPlace:
        return LogPlace.of(self.settings)

    def loop(self, hook: Hook = lambda _: None) -> AuditLoop:
        """A member of the audit group, as `run_audit` makes it; turned by the test."""
        settings = self.settings
        source = KafkaSource(settings.kafka.consumer("audit") | {"auto.offset.reset": "error"}, held=True)
        loop = AuditLoop(
            source=source,
            open_log=open_writer(settings),
            settings=settings.audit,
            names=TopicNames(self.prefix),
            clock=SystemClock(),
            metrics=Metrics(),
            hook=hook,
        )
        loop.open()
        return loop

    def turn_until(self, condition: Callable[[], bool], *loops: AuditLoop) -> None:
        def turned() -> bool:
            for loop in loops:
                loop.turn()
            return condition()

        wait_until(turned, TIMEOUT_S * 2, "the loop")

    def caught_up(self) -> bool:
        """The group's lag is 0 on every partition: markers count. Asked now and then only: it costs a connection."""
        now_s = time.monotonic()
        if now_s - self._asked_s < ASK_EVERY_S:
            return False
        self._asked_s = now_s
        names = [f"{self.prefix}.{topic}" for topic in AUDITED_TOPICS]
        lag = TopicAdmin({"bootstrap.servers": self.bootstrap}, TIMEOUT_S).group_lag(f"{self.prefix}.audit", names)
        return not any(lag.values())

    def producer(self, transactional_id: str) -> Producer:
        made = Producer(
            {
                "bootstrap.servers": self.bootstrap,
                "transactional.id": f"{self.prefix}-{transactional_id}",
                "log_level": 0,
            }
        )
        made.init_transactions(TIMEOUT_S)
        return made

    def transact(
        self,
        producer: Producer,
        media_ids: Sequence[str],
        topic: Topic = Topic.BLOCK,
        *,
        commit: bool = True,
        partition: int = -1,
    ) -> None:
        """Decisions in one transaction; over the partitions by media id, or into one."""
        producer.begin_transaction()
        for media_id in media_ids:
            producer.produce(f"{self.prefix}.{topic}", finding(media_id, uid_of(media_id)), media_id, partition)
        producer.flush(TIMEOUT_S)
        (producer.commit_transaction if commit else producer.abort_transaction)(TIMEOUT_S)

    def delete_records(self, topic: Topic, partition: int, before: int) -> None:
        """What retention does."""
        admin = AdminClient({"bootstrap.servers": self.bootstrap})
        place = TopicPartition(f"{self.prefix}.{topic}", partition, before)
        for future in admin.delete_records([place]).values():
            future.result(TIMEOUT_S)

    def completeness(self) -> list[Completeness]:
        place = self.place
        return compare_with_kafka(place, place.keys(), self.settings.kafka)

    def cli(self, *arguments: str, environment: Mapping[str, str] | None = None) -> tuple[int, str]:
        """`mediasieve audit`: exit code and all that it said."""
        given = self.environment if environment is None else environment
        done = CliRunner().invoke(app, list(arguments), env=clean_environment(given))
        if done.exception is not None and not isinstance(done.exception, SystemExit):
            raise done.exception
        return done.exit_code, done.output

    def cli_json(self, *arguments: str) -> list[dict[str, Any]]:
        code, said = self.cli(*arguments, "--json")
        assert code == 0, said
        return [orjson.loads(line) for line in said.splitlines() if line.startswith("{")]
