"""The tests' own Kafka client: an interrupted one is destroyed where that can be seen."""

from __future__ import annotations

import pytest
from confluent_kafka import Producer

from tests.support.kafka import closing


def test_an_interrupted_producer_is_closed_with_its_queue_and_not_by_the_garbage_collector() -> None:
    made = Producer({"bootstrap.servers": "", "log_level": 0})

    def interrupted() -> None:
        with closing(made) as producer:
            producer.produce("t", b"x")  # nobody will ever take it
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        interrupted()
    with pytest.raises(RuntimeError, match="closed"):
        made.produce("t", b"y")
