"""One table: what a Kafka error means for the process.

Sources: librdkafka's transaction API (`retriable`, `txn_requires_abort`, `fatal` of `rd_kafka_error_t`) and the
protocol's fencing codes. A code that is in no row is our bug and ends the process.
"""

from __future__ import annotations

from enum import Enum, auto

from confluent_kafka import KafkaError


class Fate(Enum):
    """What to do next."""

    RETRY = auto()
    """Call the same function again inside the deadline."""
    ABORT = auto()
    """The transaction can't commit: abort it, then commit the same results in a new one."""
    UNKNOWN = auto()
    """The broker may have done it: re-initialise the producer and ask what is committed."""
    FATAL = auto()
    """Exit without committing."""


_FENCED = frozenset(
    {
        KafkaError._FENCED,
        KafkaError._FATAL,
        KafkaError.INVALID_PRODUCER_EPOCH,
        KafkaError.PRODUCER_FENCED,
        KafkaError.TRANSACTIONAL_ID_AUTHORIZATION_FAILED,
        KafkaError.CLUSTER_AUTHORIZATION_FAILED,
        KafkaError.GROUP_AUTHORIZATION_FAILED,
        KafkaError.TOPIC_AUTHORIZATION_FAILED,
    }
)
_STALE_MEMBER = frozenset(
    {
        KafkaError.UNKNOWN_MEMBER_ID,
        KafkaError.ILLEGAL_GENERATION,
        KafkaError.FENCED_INSTANCE_ID,
        KafkaError.FENCED_MEMBER_EPOCH,
        KafkaError.STALE_MEMBER_EPOCH,
        KafkaError.REBALANCE_IN_PROGRESS,
    }
)
_TIMEOUT = frozenset({KafkaError._TIMED_OUT, KafkaError.REQUEST_TIMED_OUT, KafkaError._TIMED_OUT_QUEUE})
_TRANSPORT = frozenset(
    {
        KafkaError._TRANSPORT,
        KafkaError._ALL_BROKERS_DOWN,
        KafkaError._WAIT_COORD,
        KafkaError._RETRY,
        KafkaError.COORDINATOR_NOT_AVAILABLE,
        KafkaError.COORDINATOR_LOAD_IN_PROGRESS,
        KafkaError.NOT_COORDINATOR,
        KafkaError.CONCURRENT_TRANSACTIONS,
    }
)


def fate(error: KafkaError) -> Fate:
    """The row of the table that the error falls into."""
    code = error.code()
    if error.fatal() or code in _FENCED:
        return Fate.FATAL
    if error.txn_requires_abort() or code in _STALE_MEMBER:
        return Fate.ABORT
    if error.retriable() or code in _TRANSPORT or code in _TIMEOUT:
        return Fate.RETRY
    return Fate.FATAL


def waits(error: KafkaError) -> bool:
    """True for a consumer's error that passes by itself (a broker is away, a leader moves)."""
    if error.fatal():
        return False
    moving = {
        KafkaError.UNKNOWN_TOPIC_OR_PART,
        KafkaError._UNKNOWN_PARTITION,
        KafkaError._RESOLVE,
        KafkaError.LEADER_NOT_AVAILABLE,
        KafkaError.NOT_LEADER_FOR_PARTITION,
        KafkaError.FENCED_LEADER_EPOCH,
        KafkaError.UNKNOWN_LEADER_EPOCH,
        KafkaError._MAX_POLL_EXCEEDED,
    }
    return error.retriable() or error.code() in _TRANSPORT | _TIMEOUT | _STALE_MEMBER | moving
