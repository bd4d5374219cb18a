"""The fleet that all tests of this folder share: three stages, one process each."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from pipeline.streaming.kafka.embedded import EmbeddedKafka
from schemas.types import StageName
from tests.support.fleet import LiveFleet, running_fleet
from workers.demo_media import make_demo_media


@pytest.fixture(scope="session")
def fleet(kafka: EmbeddedKafka, tmp_path_factory: pytest.TempPathFactory) -> Iterator[LiveFleet]:
    """A whole fleet over the sample media; nothing may be left on its retry topics."""
    directory = tmp_path_factory.mktemp("fleet")
    make_demo_media(directory / "media")
    with running_fleet(kafka, directory, dict.fromkeys(StageName, 1)) as running:
        yield running
