"""What Kafka's own scripts do, for a machine that has none: `python -m tests.runbooks.admin COMMAND ...`.

`partitions N` is `kafka-topics.sh --alter --partitions N` for each topic that may have them, `ends` is
`kafka-get-offsets.sh`, `delete-group` is `kafka-consumer-groups.sh --delete`, `to-end` is its `--reset-offsets
--to-latest`, `lag` the sum of its `--describe`. Brokers are those of the settings.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Sequence

from confluent_kafka import Consumer, TopicPartition
from confluent_kafka.admin import AdminClient, NewPartitions  # type: ignore[attr-defined]  # re-exports, unmarked

from pipeline.settings import load_settings
from pipeline.streaming.kafka.admin import TopicAdmin
from pipeline.streaming.kafka.config import KafkaSettings
from schemas.topics import AUDITED_TOPICS, DECISION_TOPICS, RETRY_DELAYS_S, TOPICS, Topic
from workers.settings import Settings

GROUP_TOPICS: dict[str, tuple[Topic, ...]] = {
    "classifier": (Topic.INGEST, *RETRY_DELAYS_S),
    "spectral": (Topic.SUSPECT, Topic.SUSPECT_PRIORITY),
    "mllm": (Topic.ANOMALOUS, Topic.ANOMALOUS_PRIORITY),
    "audit": AUDITED_TOPICS,
    "console": tuple(DECISION_TOPICS.values()),
}
_WAIT_S = 120.0
_POLL_S = 0.5


def partitions(kafka: KafkaSettings, count: str) -> None:
    """Every topic whose number is the deployment's to say gets `count`."""
    wanted = [NewPartitions(spec.topic, int(count)) for spec in TOPICS if spec.partitions is None]
    client = AdminClient(kafka.common())  # it lives until the answer is there
    for topic, done in client.create_partitions(wanted).items():
        done.result()
        print(f"{topic}: {count} partitions")


def spread(kafka: KafkaSettings, *topics: str) -> None:
    """Records by partition."""
    admin = TopicAdmin(kafka.common())
    for topic in topics:
        start, end = admin.start_offsets([topic]), admin.end_offsets([topic])
        print(f"{topic}: {' '.join(str(end[p] - start[p]) for p in sorted(end, key=lambda p: p.partition))}")


def ends(kafka: KafkaSettings, topic: str) -> None:
    """The next offset of each partition, as `kafka-get-offsets.sh` prints it."""
    for place, end in sorted(TopicAdmin(kafka.common()).end_offsets([topic]).items()):
        print(f"{topic}:{place.partition}:{end}")


def delete_group(kafka: KafkaSettings, *groups: str) -> None:
    """Forget where they are."""
    client = AdminClient(kafka.common())
    for group, done in client.delete_consumer_groups(list(groups)).items():
        done.result()
        print(f"{group}: deleted")


def to_end(kafka: KafkaSettings, *groups: str) -> None:
    """They begin with what comes from now on."""
    admin = TopicAdmin(kafka.common())
    for group in groups:
        ends = admin.end_offsets([str(topic) for topic in GROUP_TOPICS[group]])
        member = Consumer(kafka.common() | {"group.id": kafka.group(group), "enable.auto.commit": False})
        places = [TopicPartition(p.topic, p.partition, end) for p, end in ends.items()]
        member.commit(offsets=places, asynchronous=False)
        member.close()
        print(f"{group}: at the end of {len(ends)} partitions")


def lag(kafka: KafkaSettings, *groups: str) -> dict[str, int]:
    """Records that each group has not committed, transaction markers included."""
    admin = TopicAdmin(kafka.common())
    found = {g: sum(admin.group_lag(kafka.group(g), [str(t) for t in GROUP_TOPICS[g]]).values()) for g in groups}
    print("lag: " + ", ".join(f"{group} {count}" for group, count in found.items()))
    return found


def wait_lag(kafka: KafkaSettings, *groups: str) -> None:
    """Until they are at the end of their topics."""
    admin, end_s = TopicAdmin(kafka.common()), time.monotonic() + _WAIT_S
    for group in groups:
        while any(admin.group_lag(kafka.group(group), [str(t) for t in GROUP_TOPICS[group]]).values()):
            if time.monotonic() > end_s:
                lag(kafka, *groups)
                sys.exit(1)
            time.sleep(_POLL_S)
    print(f"at the end: {', '.join(groups)}")


COMMANDS: dict[str, Callable[..., object]] = {
    "partitions": partitions,
    "spread": spread,
    "ends": ends,
    "delete-group": delete_group,
    "to-end": to_end,
    "lag": lag,
    "wait-lag": wait_lag,
}


def main(arguments: Sequence[str] | None = None) -> None:
    """See the module."""
    name, *rest = sys.argv[1:] if arguments is None else arguments
    COMMANDS[name](load_settings(Settings).kafka, *rest)


if __name__ == "__main__":
    main()
