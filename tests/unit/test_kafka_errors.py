"""Every row of the table of Kafka errors."""

from __future__ import annotations

import pytest
from confluent_kafka import KafkaError

from pipeline.streaming.kafka.errors import Fate, fate, waits

FATAL = (
    "_FENCED",
    "_FATAL",
    "INVALID_PRODUCER_EPOCH",
    "PRODUCER_FENCED",
    "TRANSACTIONAL_ID_AUTHORIZATION_FAILED",
    "CLUSTER_AUTHORIZATION_FAILED",
    "GROUP_AUTHORIZATION_FAILED",
    "TOPIC_AUTHORIZATION_FAILED",
)
STALE_MEMBER = (
    "UNKNOWN_MEMBER_ID",
    "ILLEGAL_GENERATION",
    "FENCED_INSTANCE_ID",
    "FENCED_MEMBER_EPOCH",
    "STALE_MEMBER_EPOCH",
    "REBALANCE_IN_PROGRESS",
)
TIMEOUT = ("_TIMED_OUT", "REQUEST_TIMED_OUT", "_TIMED_OUT_QUEUE")
TRANSPORT = (
    "_TRANSPORT",
    "_ALL_BROKERS_DOWN",
    "_WAIT_COORD",
    "_RETRY",
    "COORDINATOR_NOT_AVAILABLE",
    "COORDINATOR_LOAD_IN_PROGRESS",
    "NOT_COORDINATOR",
    "CONCURRENT_TRANSACTIONS",
)
MOVING = (
    "UNKNOWN_TOPIC_OR_PART",
    "_UNKNOWN_PARTITION",
    "_RESOLVE",
    "LEADER_NOT_AVAILABLE",
    "NOT_LEADER_FOR_PARTITION",
    "FENCED_LEADER_EPOCH",
    "UNKNOWN_LEADER_EPOCH",
    "_MAX_POLL_EXCEEDED",
)
UNLISTED = ("_BAD_MSG", "_INVALID_ARG", "_STATE", "UNKNOWN", "MSG_SIZE_TOO_LARGE", "INVALID_TXN_STATE", "_NOENT")


def error(code: str, *, fatal: bool = False, retriable: bool = False, abortable: bool = False) -> KafkaError:
    return KafkaError(getattr(KafkaError, code), "why", fatal, retriable, abortable)


@pytest.mark.parametrize("code", FATAL)
def test_fencing_and_missing_rights_are_fatal_whatever_the_flags_say(code: str) -> None:
    assert fate(error(code)) is Fate.FATAL
    assert fate(error(code, retriable=True, abortable=True)) is Fate.FATAL


@pytest.mark.parametrize("code", [*STALE_MEMBER, *TIMEOUT, *TRANSPORT, *UNLISTED])
def test_the_fatal_flag_wins_over_every_code(code: str) -> None:
    assert fate(error(code, fatal=True, retriable=True, abortable=True)) is Fate.FATAL


@pytest.mark.parametrize("code", STALE_MEMBER)
def test_a_stale_member_aborts_even_where_librdkafka_would_retry(code: str) -> None:
    assert fate(error(code)) is Fate.ABORT
    assert fate(error(code, retriable=True)) is Fate.ABORT


@pytest.mark.parametrize("code", [*TIMEOUT, *TRANSPORT, *UNLISTED])
def test_the_abort_flag_wins_over_a_retry(code: str) -> None:
    assert fate(error(code, retriable=True, abortable=True)) is Fate.ABORT


@pytest.mark.parametrize("code", [*TIMEOUT, *TRANSPORT])
def test_timeouts_and_absent_brokers_are_retried_without_a_flag(code: str) -> None:
    assert fate(error(code)) is Fate.RETRY


@pytest.mark.parametrize("code", UNLISTED)
def test_the_retriable_flag_is_believed_for_any_code(code: str) -> None:
    assert fate(error(code, retriable=True)) is Fate.RETRY


@pytest.mark.parametrize("code", UNLISTED)
def test_a_code_in_no_row_is_our_bug_and_fatal(code: str) -> None:
    assert fate(error(code)) is Fate.FATAL


@pytest.mark.parametrize("code", [*TIMEOUT, *TRANSPORT, *STALE_MEMBER, *MOVING])
def test_a_consumer_waits_for_what_passes_by_itself(code: str) -> None:
    assert waits(error(code))
    assert not waits(error(code, fatal=True, retriable=True))


def test_a_consumer_believes_the_retriable_flag() -> None:
    assert waits(error("UNKNOWN", retriable=True))


@pytest.mark.parametrize(
    "code", ["TOPIC_AUTHORIZATION_FAILED", "GROUP_AUTHORIZATION_FAILED", "_BAD_MSG", "_INVALID_ARG", "UNKNOWN"]
)
def test_a_consumer_does_not_wait_for_what_never_passes(code: str) -> None:
    assert not waits(error(code))
