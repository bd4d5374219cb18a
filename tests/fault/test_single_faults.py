"""One fault at a time. The scenarios mostly wait for timeouts, hence they run side by side."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from uuid import uuid4

import pytest

from pipeline.streaming.kafka.config import KafkaSettings
from pipeline.streaming.kafka.embedded import EmbeddedKafka
from tests.fault.inputs import environment
from tests.fault.processes import Workers
from tests.fault.scenarios import SCENARIOS, Site, protocol_of
from tests.support.kafka import create_topics, delete_topics

pytestmark = [pytest.mark.fault, pytest.mark.kafka, pytest.mark.timeout(600)]

SIDE_BY_SIDE = 8


def play(name: str, settings: KafkaSettings, home: Path) -> str:
    """One scenario; returns what it measured."""
    media = home / "media"
    media.mkdir()
    with Workers(home, environment(settings, home, media, None)) as workers:
        return SCENARIOS[name](Site(settings, home, workers))


@pytest.fixture(scope="module")
def playing(
    request: pytest.FixtureRequest, kafka: EmbeddedKafka, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[dict[str, Future[str]]]:
    """The scenarios that were asked for, all started at once."""
    wanted = [name for name in SCENARIOS if any(item.name == f"test_fault[{name}]" for item in request.session.items)]
    prefixes = {name: f"t{uuid4().hex[:12]}" for name in wanted}
    # All topics first: workers that start beside it would make their creation slow.
    topics = [topic for prefix in prefixes.values() for topic in create_topics(kafka.bootstrap, prefix).values()]
    futures = {}
    with ThreadPoolExecutor(SIDE_BY_SIDE) as pool:
        for name, prefix in prefixes.items():
            settings = KafkaSettings(bootstrap=kafka.bootstrap, topic_prefix=prefix, group_protocol=protocol_of(name))
            futures[name] = pool.submit(play, name, settings, tmp_path_factory.mktemp(name))
        yield futures
    delete_topics(kafka.bootstrap, topics)


@pytest.mark.parametrize("name", SCENARIOS)
def test_fault(name: str, playing: dict[str, Future[str]], capsys: pytest.CaptureFixture[str]) -> None:
    measured = playing[name].result()
    with capsys.disabled():
        print(f"\n{name}: {measured}")
