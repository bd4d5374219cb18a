"""A cluster that moves leaders answers some requests with "not yet": the administration asks again."""

from __future__ import annotations

from concurrent.futures import Future
from types import SimpleNamespace

import pytest
from confluent_kafka import KafkaError, KafkaException

from pipeline.streaming.kafka.admin import AdminError, TopicAdmin


class Moving:
    """Refuses the first requests for offsets with one code, then answers 7."""

    def __init__(self, code: int, refusals: int) -> None:
        self.code, self.refusals = code, refusals

    def list_offsets(self, wanted, **_):
        self.refusals -= 1
        futures = {}
        for partition in wanted:
            future: Future = Future()
            if self.refusals >= 0:
                future.set_exception(KafkaException(KafkaError(self.code)))
            else:
                future.set_result(SimpleNamespace(offset=7))
            futures[partition] = future
        return futures


def admin(client: Moving, timeout_s: float = 5.0) -> TopicAdmin:
    found = TopicAdmin({"bootstrap.servers": "127.0.0.1:1"}, timeout_s)
    found._topics = lambda: {"t": SimpleNamespace(partitions={0: None})}  # type: ignore[method-assign]
    found._client = client
    return found


@pytest.mark.parametrize(
    "code",
    [KafkaError.FENCED_LEADER_EPOCH, KafkaError.UNKNOWN_LEADER_EPOCH, KafkaError.NOT_LEADER_FOR_PARTITION],
)
def test_a_leader_that_moves_is_asked_again(code):
    assert list(admin(Moving(code, 2)).end_offsets(["t"]).values()) == [7]


def test_what_does_not_pass_is_an_error_at_once():
    client = Moving(KafkaError.TOPIC_AUTHORIZATION_FAILED, 1)
    with pytest.raises(AdminError, match="offset of t"):
        admin(client).end_offsets(["t"])


def test_a_leader_that_never_comes_is_an_error_in_the_end():
    with pytest.raises(AdminError, match="offset of t"):
        admin(Moving(KafkaError.FENCED_LEADER_EPOCH, 10**6), timeout_s=0.1).end_offsets(["t"])
