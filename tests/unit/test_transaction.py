"""The transaction over a producer that fails by script."""

from __future__ import annotations

from collections import defaultdict, deque
from collections.abc import Iterator
from typing import Any

import pytest
import structlog
from confluent_kafka import KafkaError, KafkaException

from pipeline.streaming.clock import Deadline
from pipeline.streaming.kafka import transaction
from pipeline.streaming.kafka.transaction import KafkaTransaction
from pipeline.streaming.transport import CommitAborted, CommitPoint, Fenced, OutcomeUnknown, OutRecord, TopicPartition
from tests.support.streaming import FakeClock

RECORDS = (OutRecord("out", b"k", b"1", (("h", b"x"),)), OutRecord("out", None, b"2"))
OFFSETS = {TopicPartition("media.ingest", 2): CommitPoint(7, '{"open":true}')}
MEMBER = object()
ALL = ["begin", "produce", "produce", "flush", "send_offsets", "commit"]


def failure(code: int, *, fatal: bool = False, retriable: bool = False, abortable: bool = False) -> KafkaException:
    return KafkaException(KafkaError(code, "why", fatal, retriable, abortable))


RETRIABLE = failure(KafkaError._TRANSPORT, retriable=True)
TIMED_OUT = failure(KafkaError._TIMED_OUT, retriable=True)
ABORTABLE = failure(KafkaError.INVALID_TXN_STATE, abortable=True)
STALE = failure(KafkaError.ILLEGAL_GENERATION)
FENCED = failure(KafkaError._FENCED, fatal=True)


class Brokers:
    """What all producers of a test share: the script, the calls, the time that each failed call takes."""

    def __init__(self) -> None:
        self.clock = FakeClock()
        self.script: defaultdict[str, deque[Exception]] = defaultdict(deque)
        self.unflushed: deque[int] = deque()
        self.calls: list[str] = []
        self.configs: list[dict[str, Any]] = []
        self.sent: list[tuple[Any, ...]] = []
        self.produced: list[tuple[Any, ...]] = []

    def fail(self, call: str, *errors: Exception) -> None:
        self.script[call].extend(errors)

    def called(self, call: str) -> None:
        self.calls.append(call)
        if self.script[call]:
            self.clock.advance(1.0)
            raise self.script[call].popleft()


class FakeProducer:
    """The calls of confluent_kafka.Producer that a transaction makes."""

    brokers: Brokers

    def __init__(self, config: dict[str, Any], logger: object) -> None:
        self.brokers.configs.append(config)

    def init_transactions(self, timeout: float) -> None:
        self.brokers.called("init")

    def begin_transaction(self) -> None:
        self.brokers.called("begin")

    def produce(self, topic: str, value: bytes, key: bytes | None, headers: list[tuple[str, bytes]]) -> None:
        self.brokers.called("produce")
        self.brokers.produced.append((topic, value, key, headers))

    def poll(self, timeout: float) -> int:
        self.brokers.calls.append("poll")
        self.brokers.clock.advance(timeout)
        return 0

    def flush(self, timeout: float) -> int:
        self.brokers.called("flush")
        return self.brokers.unflushed.popleft() if self.brokers.unflushed else 0

    def send_offsets_to_transaction(self, points: list[Any], member: object, timeout: float) -> None:
        self.brokers.called("send_offsets")
        self.brokers.sent.append((points, member, timeout))

    def commit_transaction(self, timeout: float) -> None:
        self.brokers.called("commit")

    def abort_transaction(self, timeout: float) -> None:
        self.brokers.called("abort")


@pytest.fixture
def brokers(monkeypatch: pytest.MonkeyPatch) -> Iterator[Brokers]:
    made = Brokers()
    monkeypatch.setattr(FakeProducer, "brokers", made, raising=False)
    monkeypatch.setattr(transaction, "Producer", FakeProducer)
    with structlog.testing.capture_logs():
        yield made


@pytest.fixture
def ledger(brokers: Brokers) -> KafkaTransaction:
    made = KafkaTransaction({"transactional.id": "classifier-1"})
    made.open()
    brokers.calls.clear()
    return made


def commit(ledger: KafkaTransaction, brokers: Brokers, timeout_s: float = 10.0) -> None:
    ledger.commit(RECORDS, OFFSETS, MEMBER, Deadline(brokers.clock, timeout_s))


def test_records_and_offsets_go_in_one_transaction(ledger: KafkaTransaction, brokers: Brokers) -> None:
    commit(ledger, brokers)
    assert brokers.calls == ALL
    assert brokers.produced == [("out", b"1", b"k", [("h", b"x")]), ("out", b"2", None, [])]
    ((points, member, timeout_s),) = brokers.sent
    assert member is MEMBER
    assert 0 < timeout_s <= 5.0
    assert [(p.topic, p.partition, p.offset, p.metadata) for p in points] == [("media.ingest", 2, 7, '{"open":true}')]


def test_the_named_points_are_hooks_in_their_order(brokers: Brokers) -> None:
    seen: list[tuple[str, str]] = []
    ledger = KafkaTransaction({}, hook=lambda name: seen.append((name, brokers.calls[-1])))
    commit(ledger, brokers)
    assert seen == [("produced", "flush"), ("offsets_sent", "send_offsets"), ("committed", "commit")]


def test_a_producer_that_cannot_begin_ends_the_process(brokers: Brokers) -> None:
    brokers.fail("init", TIMED_OUT)
    with pytest.raises(Fenced, match="are the brokers reachable"):
        KafkaTransaction({}).open()


@pytest.mark.parametrize("call", ["send_offsets", "commit"])
def test_retriable_errors_are_retried_by_the_same_call(call: str, ledger: KafkaTransaction, brokers: Brokers) -> None:
    brokers.fail(call, RETRIABLE, TIMED_OUT)
    commit(ledger, brokers)
    assert brokers.calls.count(call) == 3
    assert [c for c in brokers.calls if c != call] == [c for c in ALL if c != call]


@pytest.mark.parametrize("error", [ABORTABLE, STALE], ids=["abortable", "stale member"])
@pytest.mark.parametrize("call", ["begin", "produce", "flush", "send_offsets", "commit"])
def test_an_abortable_error_aborts(call: str, error: Exception, ledger: KafkaTransaction, brokers: Brokers) -> None:
    brokers.fail(call, error)
    with pytest.raises(CommitAborted):
        commit(ledger, brokers)
    assert brokers.calls[-1] == "abort"
    assert brokers.calls.count("abort") == 1
    assert len(brokers.configs) == 1
    brokers.calls.clear()
    commit(ledger, brokers)
    assert brokers.calls == ALL, "the same producer goes on"


@pytest.mark.parametrize("call", ["begin", "produce", "flush", "send_offsets", "commit"])
def test_a_fatal_error_ends_the_process_without_an_abort(call: str, ledger: KafkaTransaction, brokers: Brokers) -> None:
    brokers.fail(call, FENCED)
    with pytest.raises(Fenced):
        commit(ledger, brokers)
    assert "abort" not in brokers.calls
    assert len(brokers.configs) == 1


def test_offsets_that_never_get_through_are_aborted_at_the_deadline(ledger: KafkaTransaction, brokers: Brokers) -> None:
    brokers.fail("send_offsets", *[TIMED_OUT] * 99)
    with pytest.raises(CommitAborted):
        commit(ledger, brokers, timeout_s=3.0)
    assert brokers.calls.count("send_offsets") == 3
    assert "commit" not in brokers.calls


def test_a_commit_that_times_out_is_unknown_and_the_same_id_begins_again(
    ledger: KafkaTransaction, brokers: Brokers
) -> None:
    brokers.fail("commit", *[TIMED_OUT] * 3)
    with pytest.raises(OutcomeUnknown):
        commit(ledger, brokers, timeout_s=3.0)
    assert brokers.calls[-1] == "init"
    assert "abort" not in brokers.calls, "it may have been committed"
    assert brokers.configs == [{"transactional.id": "classifier-1"}] * 2
    brokers.calls.clear()
    commit(ledger, brokers)
    assert brokers.calls == ALL


def test_after_an_unknown_outcome_brokers_that_stay_away_end_the_process(
    ledger: KafkaTransaction, brokers: Brokers
) -> None:
    brokers.fail("commit", TIMED_OUT)
    brokers.fail("init", TIMED_OUT)
    with pytest.raises(Fenced):
        commit(ledger, brokers, timeout_s=0.5)


def test_an_abort_is_retried(ledger: KafkaTransaction, brokers: Brokers) -> None:
    brokers.fail("send_offsets", ABORTABLE)
    brokers.fail("abort", RETRIABLE)
    with pytest.raises(CommitAborted):
        commit(ledger, brokers)
    assert brokers.calls.count("abort") == 2
    assert len(brokers.configs) == 1


@pytest.mark.parametrize("call", ["send_offsets", "commit"])
def test_an_abort_that_does_not_finish_begins_the_same_id_again(
    call: str, ledger: KafkaTransaction, brokers: Brokers
) -> None:
    brokers.fail(call, ABORTABLE)
    brokers.fail("abort", *[TIMED_OUT] * 3)
    with pytest.raises(CommitAborted):
        commit(ledger, brokers, timeout_s=3.0)
    assert brokers.calls[-1] == "init", "which ends the open transaction"
    assert brokers.configs == [{"transactional.id": "classifier-1"}] * 2


def test_a_fatal_error_of_the_abort_ends_the_process(ledger: KafkaTransaction, brokers: Brokers) -> None:
    brokers.fail("send_offsets", ABORTABLE)
    brokers.fail("abort", FENCED)
    with pytest.raises(Fenced):
        commit(ledger, brokers)


def test_records_that_are_not_acknowledged_are_aborted(ledger: KafkaTransaction, brokers: Brokers) -> None:
    brokers.unflushed.append(1)
    with pytest.raises(CommitAborted, match="not acknowledged in time"):
        commit(ledger, brokers)
    assert brokers.calls[-1] == "abort"
    assert "send_offsets" not in brokers.calls


def test_a_full_queue_is_served_until_there_is_room(ledger: KafkaTransaction, brokers: Brokers) -> None:
    brokers.fail("produce", BufferError("full"), BufferError("full"))
    commit(ledger, brokers)
    assert brokers.calls == ["begin", "produce", "poll", "produce", "poll", *ALL[1:]]
    assert [p[1] for p in brokers.produced] == [b"1", b"2"]


def test_a_queue_that_stays_full_is_aborted_at_the_deadline(ledger: KafkaTransaction, brokers: Brokers) -> None:
    brokers.fail("produce", *[BufferError("full")] * 99)
    with pytest.raises(CommitAborted, match="queue stays full"):
        commit(ledger, brokers, timeout_s=3.0)
    assert "send_offsets" not in brokers.calls


def test_a_closed_ledger_opens_again_at_the_next_commit(ledger: KafkaTransaction, brokers: Brokers) -> None:
    ledger.close()
    commit(ledger, brokers)
    assert brokers.calls == ["init", *ALL]
