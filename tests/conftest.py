"""Fixtures of all tests: the shared broker, and names that no other test uses."""

from __future__ import annotations

import uuid
from collections.abc import Iterator

import pytest
from hypothesis import settings

from pipeline.streaming.kafka.embedded import EmbeddedKafka
from schemas.topics import Topic
from tests.support.kafka import create_topics, delete_topics

# `--hypothesis-profile explore` looks at other examples each time.
settings.register_profile("ci", derandomize=True, deadline=None)
settings.register_profile("explore", deadline=None, max_examples=2000)
settings.load_profile("ci")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Mark what uses the shared broker, so that `-m "not kafka"` never starts one."""
    for item in items:
        if "kafka" in getattr(item, "fixturenames", ()):
            item.add_marker(pytest.mark.kafka)


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
