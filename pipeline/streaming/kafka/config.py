"""librdkafka settings of a worker: what correctness needs, then what the deployment adds."""

from __future__ import annotations

from enum import StrEnum
from typing import Annotated, Any

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, SecretStr

from schemas.topics import DEAD_LETTER_MAX_BYTES, TOPICS

_PRODUCED = {
    "message.max.bytes": DEAD_LETTER_MAX_BYTES,
    "batch.size": min(spec.max_bytes for spec in TOPICS) - 4096,
}
"""The largest record of any topic, and the largest batch of every topic: a broker's limit is on the batch, and one that
is larger is refused whole. librdkafka's own million bytes are four times what a stage's topic takes. One record may
be larger than `batch.size`, so this limits no record. 4,096 bytes are for the batch's framing."""


class GroupProtocol(StrEnum):
    """KIP-848 (`consumer`, Kafka >= 4), or the older protocol with cooperative-sticky assignment (`classic`)."""

    CONSUMER = "consumer"
    CLASSIC = "classic"


_NEEDED = frozenset(
    {
        "acks",
        "auto.offset.reset",
        "batch.size",
        "enable.auto.commit",
        "enable.auto.offset.store",
        "enable.idempotence",
        "enable.partition.eof",
        "group.id",
        "group.protocol",
        "isolation.level",
        "message.max.bytes",
        "partition.assignment.strategy",
        "transaction.timeout.ms",
        "transactional.id",
    }
)


def _no_correctness_settings(value: Any) -> Any:
    taken = sorted(_NEEDED & set(value)) if isinstance(value, dict) else []
    if taken:
        raise ValueError(f"{', '.join(taken)}: fixed by the worker, exactly-once depends on it; remove it")
    return value


class KafkaSettings(BaseModel):
    """Where the brokers are and how to speak to them."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    bootstrap: str = Field(default="127.0.0.1:9092", min_length=1, description="host:port[,host:port...]")
    cluster_name: str = Field(
        default="kafka", pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]{0,31}$", description="begins minted media ids"
    )
    topic_prefix: str = Field(
        default="",
        pattern=r"^([A-Za-z0-9][A-Za-z0-9_-]{0,63})?$",
        description="with a dot, before every topic and group name",
    )
    group_protocol: GroupProtocol = Field(default=GroupProtocol.CONSUMER, description="consumer (KIP-848) or classic")
    security_protocol: str = Field(
        default="PLAINTEXT", pattern="^(PLAINTEXT|SSL|SASL_PLAINTEXT|SASL_SSL)$", description="as librdkafka"
    )
    sasl_mechanism: str | None = Field(default=None, description="PLAIN, SCRAM-SHA-256, SCRAM-SHA-512, OAUTHBEARER")
    sasl_username: str | None = Field(default=None, description="SASL user")
    sasl_password: SecretStr | None = Field(default=None, description="SASL password; never printed")
    ssl_ca_location: str | None = Field(default=None, description="file of CA certificates")
    ssl_certificate_location: str | None = Field(default=None, description="client certificate file")
    ssl_key_location: str | None = Field(default=None, description="client key file")
    ssl_key_password: SecretStr | None = Field(default=None, description="password of the client key; never printed")
    extra: Annotated[dict[str, str], BeforeValidator(_no_correctness_settings)] = Field(
        default_factory=dict, description='further librdkafka settings, e.g. {"client.rack": "a"}'
    )

    def common(self) -> dict[str, Any]:
        """Connection settings for any client."""
        values: dict[str, Any] = {
            "bootstrap.servers": self.bootstrap,
            "security.protocol": self.security_protocol,
            "sasl.mechanism": self.sasl_mechanism,
            "sasl.username": self.sasl_username,
            "sasl.password": self.sasl_password.get_secret_value() if self.sasl_password else None,
            "ssl.ca.location": self.ssl_ca_location,
            "ssl.certificate.location": self.ssl_certificate_location,
            "ssl.key.location": self.ssl_key_location,
            "ssl.key.password": self.ssl_key_password.get_secret_value() if self.ssl_key_password else None,
        }
        return {k: v for k, v in values.items() if v is not None} | self.extra

    def group(self, name: str) -> str:
        """A consumer group's full name."""
        return f"{self.topic_prefix}.{name}" if self.topic_prefix else name

    def consumer(self, group: str) -> dict[str, Any]:
        """A group member that commits nothing by itself and reads committed records only."""
        defaults: dict[str, Any] = {"fetch.wait.max.ms": 100, "queued.max.messages.kbytes": 8192}
        needed = {
            "group.id": self.group(group),
            "group.protocol": self.group_protocol.value,
            "enable.auto.commit": False,
            "enable.auto.offset.store": False,
            "auto.offset.reset": "earliest",
            "isolation.level": "read_committed",
            "enable.partition.eof": True,
        }
        if self.group_protocol is GroupProtocol.CLASSIC:
            defaults["session.timeout.ms"] = 6000
            needed["partition.assignment.strategy"] = "cooperative-sticky"
        else:
            # The default, `uniform`, evens out the sum over all topics: a member may get retry topics only.
            defaults["group.remote.assignor"] = "range"
        return defaults | self.common() | needed

    def reader(self) -> dict[str, Any]:
        """For assigned, group-less reading of committed records (command line, verifiers)."""
        return self.common() | {
            "group.id": self.group("reader"),
            "enable.auto.commit": False,
            "auto.offset.reset": "earliest",
            "isolation.level": "read_committed",
            "enable.partition.eof": True,
            "log_level": 2,
        }

    def plain_producer(self) -> dict[str, Any]:
        """An idempotent producer without transactions, for the command line."""
        needed = {"enable.idempotence": True} | _PRODUCED
        return {"linger.ms": 5, "log_level": 2} | self.common() | needed

    def transactional_producer(self, transactional_id: str) -> dict[str, Any]:
        """The short back-off avoids a stall of about 120 ms between transactions that follow each other at once."""
        defaults = {"retry.backoff.ms": 5, "retry.backoff.max.ms": 20, "linger.ms": 0}
        needed = {"transactional.id": transactional_id, "transaction.timeout.ms": 15_000} | _PRODUCED
        return defaults | self.common() | needed
