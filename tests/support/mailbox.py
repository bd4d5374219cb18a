"""What the fleet has made visible so far, read as a foreign consumer reads it."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from confluent_kafka import Consumer, KafkaException, TopicPartition

from pipeline.streaming.codec import MEDIA_ID_HEADER
from pipeline.streaming.kafka.source import raw_record
from pipeline.streaming.transport import RawRecord
from schemas.deadletter import DEAD_LETTER_HEADER, DeadLetter
from schemas.decision import Decision
from schemas.ocsf import machine_decision
from schemas.topics import DECISION_TOPICS, RETRY_DELAYS_S, Topic
from schemas.wire import decode
from tests.support.kafka import PARTITIONS, TIMEOUT_S
from tests.support.waiting import wait_until

_HANDED_ON = (Topic.SUSPECT, Topic.SUSPECT_PRIORITY, Topic.ANOMALOUS, Topic.ANOMALOUS_PRIORITY)
_READ = (*DECISION_TOPICS.values(), Topic.DEAD_LETTER, *RETRY_DELAYS_S, *_HANDED_ON)


@dataclass(frozen=True, slots=True)
class Decided:
    """One record of a decision topic."""

    topic: Topic
    record: RawRecord
    decision: Decision

    @property
    def reason(self) -> str:
        return self.decision.reasons[0].code.value


@dataclass(frozen=True, slots=True)
class Dead:
    """One record of the dead-letter topic."""

    record: RawRecord
    letter: DeadLetter

    @property
    def place(self) -> str:
        return f"{self.record.tp.partition}-{self.record.offset}"


class Mailbox:
    """Everything but ingest by media id, from the first record on; committed ones only."""

    def __init__(self, bootstrap: str, topics: Mapping[Topic, str]) -> None:
        self._consumer = Consumer(
            {
                "bootstrap.servers": bootstrap,
                "group.id": "never-committed",
                "enable.auto.commit": False,
                "isolation.level": "read_committed",
            }
        )
        self._logical = {topics[t]: t for t in _READ}
        self._consumer.assign([TopicPartition(topics[t], p, 0) for t in _READ for p in range(PARTITIONS)])
        self._decided: dict[str, list[Decided]] = defaultdict(list)
        self._dead: dict[str, list[Dead]] = defaultdict(list)
        self._retried: dict[str, list[RawRecord]] = defaultdict(list)
        self._handed_on: dict[str, list[RawRecord]] = defaultdict(list)

    def close(self) -> None:
        self._consumer.close()

    def missing(self, decided: Iterable[str], retried: Iterable[str] = ()) -> list[str]:
        """Those of the media ids that have no decision, or no retry, yet."""
        self._pump()
        return [m for m in decided if not self._decided[m]] + [m for m in retried if not self._retried[m]]

    def decisions(self, media_id: str) -> list[Decided]:
        """All decisions on it so far."""
        self._pump()
        return self._decided[media_id]

    def letters(self, media_id: str) -> list[Dead]:
        """All dead letters of it so far."""
        self._pump()
        return self._dead[media_id]

    def retries(self, media_id: str) -> list[RawRecord]:
        """All its records on retry topics so far."""
        self._pump()
        return self._retried[media_id]

    def handed_on(self, media_id: str) -> list[RawRecord]:
        """All its records from stage to stage so far."""
        self._pump()
        return self._handed_on[media_id]

    def decided(self, media_id: str, timeout_s: float = TIMEOUT_S) -> Decided:
        """Wait for the first decision on it; a dead letter in its place fails at once."""

        def found() -> list[Decided]:
            assert not self._dead[media_id], f"{media_id} is a dead letter: {self._dead[media_id][0].letter}"
            return self.decisions(media_id)

        return wait_until(found, timeout_s, f"a decision on {media_id}")[0]

    def dead(self, media_id: str, timeout_s: float = TIMEOUT_S) -> Dead:
        """Wait for its first dead letter; a decision in its place fails at once."""

        def found() -> list[Dead]:
            assert not self._decided[media_id], f"{media_id} was decided: {self._decided[media_id][0].decision}"
            return self.letters(media_id)

        return wait_until(found, timeout_s, f"a dead letter of {media_id}")[0]

    def _pump(self) -> None:
        while messages := self._consumer.consume(500, 0.0):
            for message in messages:
                if (error := message.error()) is not None:
                    raise KafkaException(error)
                self._sort(raw_record(message))

    def _sort(self, record: RawRecord) -> None:
        topic = self._logical[record.tp.topic]
        if topic is Topic.DEAD_LETTER:
            letter = decode(DeadLetter, record.header(DEAD_LETTER_HEADER) or b"")
            self._dead[letter.media_id].append(Dead(record, letter))
        elif topic in RETRY_DELAYS_S:
            self._retried[(record.header(MEDIA_ID_HEADER) or b"").decode()].append(record)
        elif topic in _HANDED_ON:
            self._handed_on[(record.key or b"").decode().partition("/")[2]].append(record)
        elif (decision := machine_decision(record.value)) is not None:
            self._decided[decision.admission.media_id].append(Decided(topic, record, decision))
