"""The fleet that all tests of this folder share: three stages, one process each."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from pipeline.streaming.kafka.embedded import EmbeddedKafka
from schemas.types import StageName
from tests.support.fleet import LiveFleet, running_fleet
from tests.support.otlp import Collector, collector
from workers.demo_media import make_demo_media


@pytest.fixture(scope="session")
def spans() -> Iterator[Collector]:
    """Takes the spans of the shared fleet."""
    with collector() as kept:
        yield kept


@pytest.fixture(scope="session")
def fleet(kafka: EmbeddedKafka, spans: Collector, tmp_path_factory: pytest.TempPathFactory) -> Iterator[LiveFleet]:
    """A whole fleet over the sample media; nothing may be left on its retry topics. It traces what producers flag."""
    directory = tmp_path_factory.mktemp("fleet")
    make_demo_media(directory / "media")
    tracing = {
        "MEDIASIEVE_TRACE__EXPORTER": "otlp",
        "MEDIASIEVE_TRACE__ENDPOINT": spans.endpoint,
        "MEDIASIEVE_TRACE__RATIO": "0",
        "OTEL_BSP_SCHEDULE_DELAY": "200",
    }
    with running_fleet(kafka, directory, dict.fromkeys(StageName, 1), tracing) as running:
        yield running
