"""schemathesis over the gateway's OpenAPI document, in process: bounded examples, always the same ones."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator

import orjson
import pytest
import schemathesis
from hypothesis import HealthCheck, Phase, assume, given, seed, settings
from schemathesis import GenerationMode
from schemathesis.specs.openapi.checks import negative_data_rejection, positive_data_acceptance

from tests.support.gateway import GatewaySite
from workers.gateway.settings import GatewaySettings

pytestmark = pytest.mark.filterwarnings("ignore:Using .httpx. with .starlette.testclient.")

OPERATIONS = ("submitMedia", "submitBatch", "getMedia", "getEvidence", "streamDecisions")


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[GatewaySite]:
    made = GatewaySite(tmp_path_factory.mktemp("gateway"), GatewaySettings(per_second=1e6, burst=1_000_000))
    made.parts.news.closing = True  # streams end at once
    made.decided("acme-1", "block")
    yield made
    made.close()


@pytest.fixture(scope="module")
def operations(site: GatewaySite):
    schema = schemathesis.openapi.from_asgi("/openapi.json", site.app)
    return {found.definition.raw["operationId"]: found for found in (r.ok() for r in schema.get_all_operations())}


def test_these_are_all_operations(operations) -> None:
    assert set(operations) == set(OPERATIONS)


@pytest.mark.parametrize("mode", list(GenerationMode))
@pytest.mark.parametrize("name", OPERATIONS)
def test_every_answer_is_as_documented(site: GatewaySite, operations, name: str, mode: GenerationMode) -> None:
    credentials = site.key()
    sent, statuses = 0, Counter[int]()

    @seed(7)
    @settings(
        max_examples=25,
        derandomize=False,
        database=None,
        deadline=None,
        phases=[Phase.generate],
        suppress_health_check=list(HealthCheck),
    )
    @given(operations[name].as_strategy(generation_mode=mode))
    def check(case) -> None:
        nonlocal sent
        if "Idempotency-Key" in case.headers and mode is GenerationMode.POSITIVE:
            # A key that comes twice with different bodies is refused, which no schema can say.
            case.headers["Idempotency-Key"] = f"{case.headers['Idempotency-Key'][:200]}-{sent}"
        if mode is GenerationMode.POSITIVE and case.media_type == "application/json":
            assume(_is_json_of_64_bits(case.body))
        spared = []
        if case.media_type == "multipart/form-data":
            spared.append(positive_data_acceptance)  # no schema says that bytes are an image; other tests send some
        if name == "streamDecisions":
            spared.append(positive_data_acceptance)  # no schema says which numbers have events behind them; 410 does
        if case.method == "GET":
            spared.append(negative_data_rejection)  # unknown parameters are ignored, and the credentials are ours
        answer = case.call_and_validate(headers=credentials, excluded_checks=spared)
        statuses[answer.status_code] += 1
        sent += 1

    check()
    assert sent >= 10
    assert not any(status >= 500 for status in statuses)
    if mode is GenerationMode.POSITIVE and name != "getEvidence":
        assert any(200 <= status < 300 for status in statuses) or name == "getMedia"


def _is_json_of_64_bits(body: object) -> bool:
    """What the wire can carry: integers of 64 bits, whole characters, 16 levels."""
    try:
        text = orjson.dumps(body).decode()
    except orjson.JSONEncodeError:
        return False
    return max(text.count("["), text.count("{")) <= 12
