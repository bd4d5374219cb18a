"""A running fleet on the shared broker, and what a foreign producer does with it."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from uuid import uuid4

import orjson
from confluent_kafka import KafkaError, KafkaException, Message, Producer

from pipeline.streaming.kafka.embedded import EmbeddedKafka
from schemas.topics import Topic
from tests.support.kafka import TIMEOUT_S, create_topics, delete_topics
from tests.support.mailbox import Dead, Decided, Mailbox
from tests.support.pinned_bundle import make_pinned_bundle
from workers.fleet import Fleet, Name

LIMITED_SOURCE = "limited"
"""A producer that may publish for the tenant `acme` alone."""

Headers = Sequence[tuple[str, bytes]]


@dataclass(frozen=True, slots=True)
class LiveFleet:
    """Workers as processes of their own, under a topic prefix of their own."""

    bootstrap: str
    prefix: str
    topics: Mapping[Topic, str]
    environment: Mapping[str, str]
    media: Path
    fleet: Fleet
    mailbox: Mailbox
    producer: Producer

    def send(self, uri: str, **fields: object) -> str:
        """Publish a reference under a media id of its own, which is returned."""
        media_id = str(fields.setdefault("media_id", uuid4().hex))
        self.send_raw(orjson.dumps({"uri": uri, **fields}))
        return media_id

    def send_raw(
        self,
        value: bytes,
        key: bytes | None = None,
        headers: Headers = (),
        topic: Topic = Topic.INGEST,
    ) -> str:
        """Publish any bytes; returns the media id that a record without one gets.

        Raises:
            KafkaException: the broker refused the record.
        """
        errors: list[KafkaError | None] = []
        places: list[str] = []

        def delivered(error: KafkaError | None, message: Message) -> None:
            errors.append(error)
            places.append(f"kafka-{message.topic()}-{message.partition()}-{message.offset()}")

        self.producer.produce(self.topics[topic], value, key, headers=list(headers), on_delivery=delivered)
        assert self.producer.flush(TIMEOUT_S) == 0
        if errors[0] is not None:
            raise KafkaException(errors[0])
        return places[0]

    def decided(self, media_id: str) -> Decided:
        """Wait for its decision; a worker that has ended is an error."""
        self.fleet.check()
        return self.mailbox.decided(media_id)

    def dead(self, media_id: str) -> Dead:
        """Wait for its dead letter; a worker that has ended is an error."""
        self.fleet.check()
        return self.mailbox.dead(media_id)

    def uri(self, name: str) -> str:
        """file:// URI of a file, present or not, below the folder that the workers may read."""
        return (self.media / name).resolve().as_uri()


@contextmanager
def running_fleet(
    kafka: EmbeddedKafka,
    directory: Path,
    replicas: Mapping[Name, int],
    settings: Mapping[str, str] | None = None,
) -> Iterator[LiveFleet]:
    """Topics, workers, producer and mailbox; `directory` gets media, evidence, logs and the pinned bundle.

    One decoder and one spectral process keep a start short on a machine with few cores.
    """
    prefix = f"f{uuid4().hex[:12]}"
    topics = create_topics(kafka.bootstrap, prefix)
    media = directory / "media"
    media.mkdir(exist_ok=True)
    environment = {
        "MEDIASIEVE_KAFKA__BOOTSTRAP": kafka.bootstrap,
        "MEDIASIEVE_KAFKA__TOPIC_PREFIX": prefix,
        "MEDIASIEVE_STORE__URL": (directory / "store").as_uri(),
        "MEDIASIEVE_CLASSIFIER__FETCH__FILE_ROOTS": orjson.dumps([str(media)]).decode(),
        "MEDIASIEVE_CLASSIFIER__PRODUCERS": orjson.dumps({LIMITED_SOURCE: {"tenants": ["acme"]}}).decode(),
        "MEDIASIEVE_CLASSIFIER__SANDBOX__WORKERS": "1",
        "MEDIASIEVE_CLASSIFIER__AUDIT_SAMPLE__SHARE": "0",  # so that no run draws what another does not
        "MEDIASIEVE_SPECTRAL__PROCESSES": "1",
        **(settings or {}),
    }
    if "MEDIASIEVE_BUNDLE" not in environment:
        environment["MEDIASIEVE_BUNDLE"] = str(make_pinned_bundle(directory / "bundle"))
    mailbox = Mailbox(kafka.bootstrap, topics)
    try:
        with Fleet(replicas, environment, directory / "logs") as fleet:
            fleet.wait_ready()
            yield LiveFleet(
                kafka.bootstrap, prefix, topics, environment, media, fleet, mailbox, foreign_producer(kafka.bootstrap)
            )
    finally:
        mailbox.close()
        delete_topics(kafka.bootstrap, list(topics.values()))


def foreign_producer(bootstrap: str) -> Producer:
    """Knows nothing of us. Its own size limit lies above the topic's, so that the broker is the one to refuse."""
    return Producer({"bootstrap.servers": bootstrap, "linger.ms": 0, "message.max.bytes": 4 * 2**20, "log_level": 0})


def command_line(*arguments: str, environment: Mapping[str, str] | None = None) -> subprocess.CompletedProcess[str]:
    """Run `mediasieve` as a person does, with no settings but those given."""
    return subprocess.run(
        [command(), *arguments],
        env=clean_environment(environment or {}),
        capture_output=True,
        text=True,
        timeout=200,
        check=False,
    )


def command() -> str:
    """The installed console script of this interpreter."""
    return str(Path(sys.executable).with_name("mediasieve"))


def clean_environment(settings: Mapping[str, str]) -> dict[str, str]:
    """This process's environment without settings of its own, then the given ones. Wide, so that rich wraps nothing."""
    inherited = {k: v for k, v in os.environ.items() if not k.startswith("MEDIASIEVE_")}
    return {**inherited, "COLUMNS": "300", **settings}
