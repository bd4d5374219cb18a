"""Fixtures of all tests: the shared broker, and names that no other test uses."""

from __future__ import annotations

import uuid
from collections.abc import Iterator

import pytest
from hypothesis import settings

from pipeline.streaming.kafka.embedded import EmbeddedKafka
from schemas.topics import Topic
from tests.support.kafka import create_topics, delete_topics

PROCESSES_TIMEOUT_S = 300
"""For tests that start brokers, workers or command lines: minutes on a busy machine."""

# `--hypothesis-profile explore` looks at other examples each time.
settings.register_profile("ci", derandomize=True, deadline=None)
settings.register_profile("explore", deadline=None, max_examples=2000)
settings.load_profile("ci")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Mark what uses the shared broker, so that `-m "not kafka"` never starts one; processes get time to start."""
    for item in items:
        if "kafka" in getattr(item, "fixturenames", ()):
            item.add_marker(pytest.mark.kafka)
        starts_processes = item.get_closest_marker("kafka") or item.path.parent.name == "integration"
        if starts_processes and not item.get_closest_marker("timeout"):
            item.add_marker(pytest.mark.timeout(PROCESSES_TIMEOUT_S))


@pytest.fixture(scope="session")
def kafka() -> Iterator[EmbeddedKafka]:
    """One broker for the whole run. Tests that stop or kill a broker start their own."""
    with EmbeddedKafka() as running:
        yield running


@pytest.fixture
def prefix() -> str:
    """Unique name for this test's topics, group and transactional.id."""
    return f"t{uuid.uuid4().hex[:12]}"


@pytest.fixture
def topics(kafka: EmbeddedKafka, prefix: str) -> Iterator[dict[Topic, str]]:
    """All topics of the fleet, empty, with 4 partitions each; logical topic -> full name."""
    names = create_topics(kafka.bootstrap, prefix)
    yield names
    delete_topics(kafka.bootstrap, list(names.values()))
