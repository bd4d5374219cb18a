"""The ledger of production: outputs, dead letters and offsets in one Kafka transaction."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Future
from functools import partial
from typing import Any

import structlog
from confluent_kafka import KafkaError, KafkaException, Producer
from confluent_kafka import TopicPartition as KafkaPartition

from pipeline.streaming.clock import Deadline
from pipeline.streaming.kafka.errors import Fate, fate
from pipeline.streaming.transport import (
    CommitAborted,
    CommitPoint,
    Fenced,
    Member,
    OutcomeUnknown,
    OutRecord,
    TopicPartition,
)

log = structlog.get_logger(__name__)

_INIT_TIMEOUT_S = 60.0
_CALL_TIMEOUT_S = 5.0
_OVERDUE_S = 2.0


class KafkaTransaction:
    """One producer, one transactional id for the life of the process.

    The id is the process's own, so it fences nobody else; a zombie is fenced by its group membership, which is
    read fresh for each commit.
    """

    def __init__(self, config: dict[str, Any], hook: Callable[[str], None] = lambda _: None) -> None:
        """`config` as made by KafkaSettings.transactional_producer."""
        self._config = config
        self._hook = hook
        self._producer: Producer | None = None

    def open(self) -> None:
        """See Ledger. Ends what an earlier producer of this id left open."""
        self._producer = Producer(self._config, logger=logging.getLogger("librdkafka"))
        try:
            self._producer.init_transactions(_INIT_TIMEOUT_S)
        except KafkaException as error:
            raise Fenced(f"cannot begin transactions: {error}; are the brokers reachable?") from error

    def commit(
        self,
        out: Sequence[OutRecord],
        offsets: Mapping[TopicPartition, CommitPoint],
        member: Member,
        deadline: Deadline,
    ) -> None:
        """See Ledger."""
        producer = self._ready()
        points = [KafkaPartition(tp.topic, tp.partition, p.offset, p.note) for tp, p in offsets.items()]
        try:
            producer.begin_transaction()
            for record in out:
                self._produce(producer, record, deadline)
            self._flush(producer, deadline)
            self._hook("produced")
            self._repeat(partial(_send_offsets, producer, points, member), deadline)
            self._hook("offsets_sent")
        except KafkaException as error:
            self._abort(error, deadline)
        except TimeoutError as error:
            self._reinit("the offsets' call did not return")
            raise CommitAborted("the offsets' call did not return; a new producer ended its transaction") from error
        self._finish(producer, deadline)
        self._hook("committed")

    def close(self) -> None:
        """See Ledger."""
        self._producer = None

    def _ready(self) -> Producer:
        if self._producer is None:
            self.open()
        assert self._producer is not None  # noqa: S101 - open() made it or raised
        return self._producer

    def _produce(self, producer: Producer, record: OutRecord, deadline: Deadline) -> None:
        while True:
            try:
                producer.produce(record.topic, record.value, record.key, headers=list(record.headers))
                return
            except BufferError:
                if deadline.expired:
                    raise KafkaException(KafkaError(KafkaError._TIMED_OUT, "local queue stays full")) from None
                producer.poll(0.05)

    def _flush(self, producer: Producer, deadline: Deadline) -> None:
        """All records acknowledged before the offsets go; a failed delivery makes the transaction abortable."""
        if producer.flush(deadline.left_s) > 0:
            raise KafkaException(KafkaError(KafkaError._TIMED_OUT, "records not acknowledged in time"))

    def _repeat(self, call: Callable[[float], None], deadline: Deadline) -> None:
        """Retriable errors are retried inside the deadline; others, and the last one, propagate."""
        while True:
            try:
                call(min(_CALL_TIMEOUT_S, max(0.05, deadline.left_s)))
                return
            except KafkaException as error:
                if fate(error.args[0]) is not Fate.RETRY or deadline.expired:
                    raise

    def _finish(self, producer: Producer, deadline: Deadline) -> None:
        try:
            self._repeat(producer.commit_transaction, deadline)
        except KafkaException as error:
            match fate(error.args[0]):
                case Fate.ABORT:
                    self._abort(error, deadline)
                case Fate.FATAL:
                    raise Fenced(str(error)) from error
                case _:
                    self._reinit(f"the commit's outcome is unknown: {error}")
                    raise OutcomeUnknown(str(error)) from error

    def _abort(self, error: KafkaException, deadline: Deadline) -> None:
        """Never returns: CommitAborted, or Fenced."""
        if fate(error.args[0]) is Fate.FATAL:
            raise Fenced(str(error)) from error
        try:
            self._repeat(self._ready().abort_transaction, deadline)
        except KafkaException as second:
            if fate(second.args[0]) is Fate.FATAL:
                raise Fenced(str(second)) from second
            self._reinit(f"the abort did not finish: {second}")
        raise CommitAborted(str(error)) from error

    def _reinit(self, why: str) -> None:
        """A new producer of the same id: the broker ends the old one's transaction, one way or the other."""
        log.warning("transaction_reinit", why=why)
        self._producer = None
        self.open()


def _send_offsets(producer: Producer, points: list[KafkaPartition], member: Member, timeout_s: float) -> None:
    """In a thread of its own, because librdkafka may never return from it.

    Its timeout is not looked at while the group's coordinator is sought, and one that died may be sought for ever
    (https://github.com/confluentinc/librdkafka/issues/5456 and 5511).

    Raises:
        TimeoutError: it did not return in time. The thread ends with the call; a later producer of the same
            transactional id fences what it may still send.
    """
    done: Future[None] = Future()

    def call() -> None:
        try:
            producer.send_offsets_to_transaction(points, member, timeout_s)
        except BaseException as error:
            done.set_exception(error)
        else:
            done.set_result(None)

    threading.Thread(target=call, name="send-offsets", daemon=True).start()
    done.result(timeout_s + _OVERDUE_S)
