"""What a key may name, how much it may send, and how far the fleet may be behind."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from schemas.types import StageName
from tests.support.gateway import GatewaySite, problem
from workers.gateway.backpressure import Progress
from workers.web.principal import Limits, UriScheme

URI = "https://example.org/a.png"


@pytest.fixture
def site(tmp_path: Path) -> Iterator[GatewaySite]:
    made = GatewaySite(tmp_path)
    yield made
    made.close()


@pytest.mark.parametrize("uri", ["file:///srv/rival/a.png", "S3://bucket/rival/a.png", "content:" + "0" * 64, URI])
def test_files_and_buckets_are_nobody_s_unless_granted(site: GatewaySite, uri: str) -> None:
    """The fleet's roots are shared: whoever may name any file may read every tenant's back as evidence."""
    answer = site.submit(site.key(), uri=uri)
    if uri.startswith(("http", "content")):
        assert answer.status_code == 202
    else:
        assert (answer.status_code, problem(answer)) == (403, "scheme-refused")
        assert site.writer.sent == []
        granted = site.key(limits=Limits(schemes=frozenset({UriScheme.FILE, UriScheme.S3})))
        assert site.submit(granted, uri=uri).status_code == 202
        assert site.submit(granted, uri=URI).status_code == 403, "what a key names is all that it may"


def test_a_key_may_only_name_its_sources(site: GatewaySite) -> None:
    key = site.key(limits=Limits(sources=frozenset({"upload-service"})))
    assert site.submit(key, uri=URI).status_code == 202
    assert site.writer.references[0].source == "upload-service"
    other = site.submit(key, uri=URI, source="trusted")
    assert (other.status_code, problem(other)) == (403, "source-refused")


def test_the_rate_of_a_key(site: GatewaySite) -> None:
    slow = site.key(limits=Limits(per_second=0.5, burst=2))
    statuses = [site.submit(slow, uri=URI).status_code for _ in range(3)]
    assert statuses == [202, 202, 429]
    refused = site.submit(slow, uri=URI)
    assert (problem(refused), refused.headers["retry-after"]) == ("rate-exceeded", "2")
    assert site.submit(site.key(), uri=URI).status_code == 202, "another caller is not held up"
    site.clock.advance(2.0)
    assert site.submit(slow, uri=URI).status_code == 202


def test_a_fleet_that_is_behind_refuses_with_the_time_it_needs(site: GatewaySite) -> None:
    for second in range(3):  # 10 offsets a second, 10,000 to go: 1,000 s of lag, 400 s beyond the limit of 600 s
        site.backpressure.measure(
            float(second), lambda stage, s=second: Progress(10 * s, 10_000 if stage is StageName.SPECTRAL else 0), None
        )
    refused = site.submit(site.key(), uri=URI)
    assert (refused.status_code, problem(refused)) == (429, "behind")
    assert refused.headers["retry-after"] == "400"
    assert "spectral" in refused.json()["detail"]
