"""Topics of the fleet on a cluster: create, compare, and how far readers are behind."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import Future
from concurrent.futures import TimeoutError as FutureTimeoutError
from dataclasses import dataclass
from typing import Any, NamedTuple, TypeVar

from confluent_kafka import (
    Consumer,
    IsolationLevel,
    KafkaError,
    KafkaException,
    TopicPartition,
)
from confluent_kafka.admin import (  # type: ignore[attr-defined]  # re-exports, but does not say so
    AdminClient,
    AlterConfigOpType,
    ConfigEntry,
    ConfigResource,
    NewTopic,
    OffsetSpec,
    ResourceType,
    TopicMetadata,
)

from schemas.topics import TopicSpec

T = TypeVar("T")

_POLL_S = 0.02

# Answers of brokers that start, or that have not heard of a new topic yet.
_NOT_YET = frozenset(
    {
        KafkaError.COORDINATOR_LOAD_IN_PROGRESS,
        KafkaError.COORDINATOR_NOT_AVAILABLE,
        KafkaError.FENCED_LEADER_EPOCH,
        KafkaError.LEADER_NOT_AVAILABLE,
        KafkaError.NOT_COORDINATOR,
        KafkaError.NOT_LEADER_FOR_PARTITION,
        KafkaError.UNKNOWN_LEADER_EPOCH,
        KafkaError.UNKNOWN_TOPIC_OR_PART,
    }
)
_EARLIEST = OffsetSpec.earliest()  # type: ignore[no-untyped-call]  # the library has no annotation here
_LATEST = OffsetSpec.latest()  # type: ignore[no-untyped-call]  # as above


class AdminError(Exception):
    """The cluster did not do what was asked; the text names cluster, action and cause."""


class _NotYetError(AdminError):
    """The same question may well be answered a little later."""


class PartitionId(NamedTuple):
    """One partition of a topic, by the topic's full name."""

    topic: str
    partition: int


@dataclass(frozen=True, slots=True)
class Difference:
    """A topic that is not as its spec wants it.

    `setting` is a Kafka topic setting, or `topic` (found: missing), `partitions` or `replication.factor`.
    """

    topic: str
    setting: str
    expected: str
    found: str


@dataclass(frozen=True, slots=True)
class Change:
    """What `apply` did about a difference; with a text in `refused` it did nothing, for that reason."""

    difference: Difference
    refused: str = ""


_REFUSALS = {
    "partitions": "other partitions hash keys to other places and lose their order: empty the topic first",
    "replication.factor": "needs a reassignment of partitions, which is the operator's to plan",
}


def topic_name(spec: TopicSpec, prefix: str) -> str:
    """Full name of a topic: `prefix.name`, or the name alone."""
    return f"{prefix}.{spec.topic.value}" if prefix else spec.topic.value


def topic_settings(spec: TopicSpec, replication_factor: int) -> dict[str, str]:
    """Kafka settings that the fleet relies on."""
    return {
        "cleanup.policy": spec.cleanup,
        "max.message.bytes": str(spec.max_bytes),
        "min.insync.replicas": "2" if replication_factor >= 3 else "1",
        "retention.ms": str(spec.retention_ms),
        "unclean.leader.election.enable": "false",
    }


class GroupPlace(NamedTuple):
    """A group's next offset in one partition, and the partition's end."""

    next: int
    end: int

    @property
    def lag(self) -> int:
        """Offsets that the group has not read."""
        return max(0, self.end - self.next)


class TopicAdmin:
    """Asks and changes a cluster; every request, repeated or not, ends after about `timeout_s`.

    `config` holds librdkafka settings, `bootstrap.servers` among them. All methods raise AdminError.
    """

    def __init__(self, config: Mapping[str, Any], timeout_s: float = 10.0) -> None:
        self._config = dict(config)
        self._client = AdminClient({"log_level": 2} | self._config)
        self._where = f"Kafka at {config.get('bootstrap.servers')}"
        self._timeout_s = timeout_s

    def apply(
        self, specs: Iterable[TopicSpec], partitions: int, replication_factor: int, prefix: str = ""
    ) -> list[Change]:
        """Create missing topics and set differing settings; returns when all leaders answer.

        `partitions` is for topics whose spec names no number. Numbers of partitions and replicas of topics that exist
        are never changed, but reported as refused.
        """
        wanted = list(specs)
        differences = self.check(wanted, partitions, replication_factor, prefix)
        missing = {d.topic for d in differences if d.setting == "topic"}
        self._create([s for s in wanted if topic_name(s, prefix) in missing], partitions, replication_factor, prefix)
        self._alter([d for d in differences if d.setting != "topic" and d.setting not in _REFUSALS])
        return [Change(d, _REFUSALS.get(d.setting, "")) for d in differences]

    def check(
        self, specs: Iterable[TopicSpec], partitions: int, replication_factor: int, prefix: str = ""
    ) -> list[Difference]:
        """Differences between the specs and the cluster, in the order of the specs; empty: all is well."""
        wanted = list(specs)
        topics = self._topics()
        present = [name for s in wanted if (name := topic_name(s, prefix)) in topics]
        settings = self._settings(present)
        differences: list[Difference] = []
        for spec in wanted:
            name = topic_name(spec, prefix)
            if name not in topics:
                differences.append(Difference(name, "topic", "present", "missing"))
                continue
            expected = {
                "partitions": str(spec.partitions or partitions),
                "replication.factor": str(replication_factor),
                **topic_settings(spec, replication_factor),
            }
            found = {
                "partitions": str(len(topics[name].partitions)),
                "replication.factor": str(_replication_factor(topics[name])),
                **settings[name],
            }
            differences += [
                Difference(name, setting, value, found.get(setting, "unset"))
                for setting, value in expected.items()
                if found.get(setting) != value
            ]
        return differences

    def end_offsets(self, topics: Sequence[str]) -> dict[PartitionId, int]:
        """Offset after the last record of each partition (high watermark: open transactions count too)."""
        return self._offsets(self._partitions(topics), _LATEST)

    def start_offsets(self, topics: Sequence[str]) -> dict[PartitionId, int]:
        """Offset of the oldest record that each partition may still hold."""
        return self._offsets(self._partitions(topics), _EARLIEST)

    def group_lag(self, group: str, topics: Sequence[str]) -> dict[PartitionId, int]:
        """Offsets between what the group committed and the end of each partition; see `group_places`."""
        return {p: place.lag for p, place in self.group_places(group, topics).items()}

    def group_places(self, group: str, topics: Sequence[str]) -> dict[PartitionId, GroupPlace]:
        """How far the group is, and where each partition ends.

        Transaction markers and records of open transactions count: never less than what is unread. Without a
        commit, or with one that retention has passed, the group's place is the oldest offset that is kept.
        """
        partitions = self._partitions(topics)
        committed = self._committed(group, partitions)
        # Asked for last, so that a group that works meanwhile can only look further behind than it is.
        start = self._offsets(partitions, _EARLIEST)
        end = self._offsets(partitions, _LATEST)
        return {p: GroupPlace(max(committed[p], start[p]), end[p]) for p in partitions}

    def _create(self, specs: Sequence[TopicSpec], partitions: int, replication_factor: int, prefix: str) -> None:
        if not specs:
            return
        new = [
            NewTopic(
                topic_name(spec, prefix),
                num_partitions=spec.partitions or partitions,
                replication_factor=replication_factor,
                config=topic_settings(spec, replication_factor),
            )
            for spec in specs
        ]
        futures = self._call("create topics", self._client.create_topics, new, request_timeout=self._timeout_s)
        for name, future in futures.items():
            self._result(f"create topic {name}", future)
        self._await_leaders(set(futures))
        self.end_offsets(sorted(futures))  # a leader by metadata may not serve yet

    def _await_leaders(self, names: set[str]) -> None:
        """Creation is done when the controller says so; brokers learn of it a little later."""
        deadline_s = time.monotonic() + self._timeout_s
        while True:
            topics = self._topics()
            ready = {
                name
                for name in names & topics.keys()
                if topics[name].partitions and all(p.leader >= 0 for p in topics[name].partitions.values())
            }
            if ready == names:
                return
            if time.monotonic() > deadline_s:
                late = ", ".join(sorted(names - ready))
                raise AdminError(f"{self._where}: no leaders after {self._timeout_s:g} s for new topics {late}")
            time.sleep(_POLL_S)

    def _alter(self, differences: Sequence[Difference]) -> None:
        entries: dict[str, list[ConfigEntry]] = {}
        for d in differences:
            entry = ConfigEntry(d.setting, d.expected, incremental_operation=AlterConfigOpType.SET)
            entries.setdefault(d.topic, []).append(entry)
        if not entries:
            return
        resources = [
            ConfigResource(ResourceType.TOPIC, topic, incremental_configs=changed) for topic, changed in entries.items()
        ]
        futures = self._call(
            "alter settings",
            self._client.incremental_alter_configs,
            resources,
            request_timeout=self._timeout_s,
        )
        for resource, future in futures.items():
            names = ", ".join(entry.name for entry in entries[resource.name])
            self._result(f"set {names} of topic {resource.name}", future)

    def _topics(self) -> dict[str, TopicMetadata]:
        metadata = self._call("list topics", self._client.list_topics, timeout=self._timeout_s)
        return dict(metadata.topics)

    def _settings(self, names: Sequence[str]) -> dict[str, dict[str, str]]:
        if not names:
            return {}
        resources = [ConfigResource(ResourceType.TOPIC, name) for name in names]

        def ask() -> dict[str, dict[str, str]]:
            futures = self._call(
                "describe topics", self._client.describe_configs, resources, request_timeout=self._timeout_s
            )
            described = {r.name: self._result(f"describe topic {r.name}", f) for r, f in futures.items()}
            return {
                name: {setting: entry.value for setting, entry in entries.items()}
                for name, entries in described.items()
            }

        return self._patiently(ask)

    def _partitions(self, names: Sequence[str]) -> list[PartitionId]:
        topics = self._topics()
        if missing := sorted(set(names) - topics.keys()):
            raise AdminError(f"{self._where}: no such topic: {', '.join(missing)}")
        return [PartitionId(name, number) for name in names for number in sorted(topics[name].partitions)]

    def _offsets(self, partitions: Sequence[PartitionId], spec: OffsetSpec) -> dict[PartitionId, int]:
        if not partitions:
            return {}
        wanted = {TopicPartition(*p): spec for p in partitions}

        def ask() -> dict[PartitionId, int]:
            futures = self._call(
                "list offsets",
                self._client.list_offsets,
                wanted,
                isolation_level=IsolationLevel.READ_UNCOMMITTED,
                request_timeout=self._timeout_s,
            )
            return {
                PartitionId(p.topic, p.partition): self._result(f"offset of {p.topic}[{p.partition}]", f).offset
                for p, f in futures.items()
            }

        return self._patiently(ask)

    def _committed(self, group: str, partitions: Sequence[PartitionId]) -> dict[PartitionId, int]:
        if not partitions:
            return {}
        # Not AdminClient.list_consumer_group_offsets: librdkafka 2.16.0 ends the process with SIGSEGV when a
        # broker answers NOT_COORDINATOR, as it does to a new cluster's first group (librdkafka issue 5040).
        # A consumer that subscribes to nothing is no member of the group.
        consumer = Consumer({**self._config, "group.id": group, "enable.auto.commit": False})
        wanted = [TopicPartition(*p) for p in partitions]

        def ask() -> dict[PartitionId, int]:
            found = self._call(f"offsets of group {group}", consumer.committed, wanted, timeout=self._timeout_s)
            return {PartitionId(p.topic, p.partition): p.offset for p in found}

        try:
            return self._patiently(ask)
        finally:
            consumer.close()

    def _patiently(self, ask: Callable[[], T]) -> T:
        deadline_s = time.monotonic() + self._timeout_s
        while True:
            try:
                return ask()
            except _NotYetError:
                if time.monotonic() > deadline_s:
                    raise
            time.sleep(_POLL_S)

    def _call(self, action: str, function: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
        try:
            return function(*args, **kwargs)
        except KafkaException as error:
            raise self._error(action, error) from error

    def _result(self, action: str, future: Future[Any]) -> Any:
        try:
            # A little more than the request's own limit, whose error says more than ours.
            return future.result(self._timeout_s + 5.0)
        except FutureTimeoutError as error:
            raise AdminError(f"{self._where}: {action}: no answer after {self._timeout_s:g} s") from error
        except KafkaException as error:
            raise self._error(action, error) from error

    def _error(self, action: str, error: KafkaException) -> AdminError:
        kind = _NotYetError if error.args[0].code() in _NOT_YET else AdminError
        return kind(f"{self._where}: {action}: {error}")


def _replication_factor(topic: TopicMetadata) -> int:
    """The least of all partitions: a topic is as safe as its weakest partition."""
    return min((len(p.replicas) for p in topic.partitions.values()), default=0)
