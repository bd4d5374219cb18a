"""docker-compose.kafka.yml against the compose specification's schema and our rules. Runs no container."""

from __future__ import annotations

import base64
import importlib.util
import json
import re
import shutil
import subprocess
from pathlib import Path
from typing import Any

import jsonschema
import pytest
import yaml

from pipeline.streaming.kafka.jars import KAFKA_VERSION
from workers.audit.rotation import key_files

ROOT = Path(__file__).parents[2]
COMPOSE_FILE = ROOT / "docker-compose.kafka.yml"
BROKERS = ("kafka-1", "kafka-2", "kafka-3")
STAGES = ("classifier", "spectral", "mllm")
WORKERS = (*STAGES, "audit")
OURS = ("topics", "audit-keys", *WORKERS)
VARIABLE = re.compile(r"\$\{(\w+):-([^}]*)\}")


def resolved(value: Any) -> Any:
    """What compose makes of the file when no variable is set: `${NAME:-default}` -> default."""
    match value:
        case str():
            return VARIABLE.sub(lambda found: found[2], value)
        case dict():
            return {key: resolved(item) for key, item in value.items()}
        case list():
            return [resolved(item) for item in value]
        case _:
            return value


@pytest.fixture(scope="module")
def raw() -> dict[str, Any]:
    document: dict[str, Any] = yaml.safe_load(COMPOSE_FILE.read_text())
    return document


@pytest.fixture(scope="module")
def services(raw: dict[str, Any]) -> dict[str, Any]:
    found: dict[str, Any] = resolved(raw)["services"]
    return found


@pytest.fixture(scope="module")
def validator() -> jsonschema.Draft202012Validator:
    spec = importlib.util.find_spec("check_jsonschema")
    assert spec is not None
    assert spec.submodule_search_locations
    path = Path(spec.submodule_search_locations[0]) / "builtin_schemas" / "vendor" / "compose-spec.json"
    return jsonschema.Draft202012Validator(json.loads(path.read_text()))


def test_it_conforms_to_the_compose_specification(
    raw: dict[str, Any], validator: jsonschema.Draft202012Validator
) -> None:
    for document in (raw, resolved(raw)):
        assert [f"{error.json_path}: {error.message}" for error in validator.iter_errors(document)] == []


@pytest.mark.parametrize(
    "broken",
    [
        {"read_onyl": True},
        {"healthcheck": {"interval": 10}},
        {"depends_on": {"topics": {"condition": "done"}}},
    ],
)
def test_the_schema_refuses_mistakes(
    raw: dict[str, Any], validator: jsonschema.Draft202012Validator, broken: dict[str, Any]
) -> None:
    services = raw["services"]
    document = {**raw, "services": {**services, "spectral": {**services["spectral"], **broken}}}
    assert not validator.is_valid(document)


def test_the_services_are_these(services: dict[str, Any]) -> None:
    assert set(services) == {*BROKERS, *OURS}


@pytest.mark.parametrize("name", [*BROKERS, *OURS])
def test_every_service_has_no_capabilities_and_gains_none(services: dict[str, Any], name: str) -> None:
    service = services[name]
    assert service["cap_drop"] == ["ALL"]
    assert service["security_opt"] == ["no-new-privileges:true"]
    assert not service.keys() & {"privileged", "cap_add", "network_mode", "pid", "ipc", "devices"}
    assert service["init"] is True, "a signal must reach the process, and its dead children need a parent"


@pytest.mark.parametrize("name", OURS)
def test_our_services_have_a_read_only_root(services: dict[str, Any], name: str) -> None:
    service = services[name]
    assert service["read_only"] is True
    assert any(mount.startswith("/tmp:") and "size=" in mount for mount in service["tmpfs"])
    assert service["deploy"]["resources"]["limits"]["pids"] > 0
    assert "pids_limit" not in service, "compose refuses it beside deploy.resources.limits"
    assert service.get("user", "") not in {"0", "root", "0:0"}
    assert "ports" not in service, "a published port cannot be shared by several replicas"


@pytest.mark.parametrize("name", WORKERS)
def test_a_worker_waits_for_topics_and_reports_readiness(services: dict[str, Any], name: str) -> None:
    service = services[name]
    assert service["command"] == ["worker", name]
    assert service["depends_on"]["topics"] == {"condition": "service_completed_successfully"}
    assert service["restart"] == "unless-stopped"
    assert service["stop_grace_period"] == "60s"
    assert service["volumes"][0] == "store:/var/lib/mediasieve"
    test = service["healthcheck"]["test"]
    assert test[:3] == ["CMD", "python", "-c"]
    assert "http://localhost:8080/ready" in test[3]
    compile(test[3], "healthcheck", "exec")


@pytest.mark.parametrize("name", WORKERS)
def test_a_worker_can_be_scaled_and_has_a_memory_limit(raw: dict[str, Any], name: str) -> None:
    deploy = raw["services"][name]["deploy"]
    assert deploy["replicas"] == f"${{{name.upper()}_REPLICAS:-1}}"
    assert deploy["resources"]["limits"]["memory"] == f"${{{name.upper()}_MEMORY:-4g}}"


@pytest.mark.parametrize("name", OURS)
def test_our_services_know_the_brokers_and_the_store(services: dict[str, Any], name: str) -> None:
    environment = services[name]["environment"]
    assert all(key.startswith("MEDIASIEVE_") for key in environment)
    assert environment["MEDIASIEVE_KAFKA__BOOTSTRAP"] == ",".join(f"{broker}:9092" for broker in BROKERS)
    assert environment["MEDIASIEVE_STORE__URL"] == "file:///var/lib/mediasieve"
    assert environment["MEDIASIEVE_HEALTH__PORT"] == "8080"
    assert services[name]["build"]["target"] == "cpu"


def test_topics_are_applied_once_all_brokers_are_healthy(services: dict[str, Any]) -> None:
    topics = services["topics"]
    assert topics["command"] == ["topics", "apply", "--partitions", "12", "--replication-factor", "3"]
    assert topics["depends_on"] == {broker: {"condition": "service_healthy"} for broker in BROKERS}
    assert topics["restart"].startswith("on-failure")


def test_the_audit_worker_alone_has_the_log_and_its_keys(raw: dict[str, Any], services: dict[str, Any]) -> None:
    mount = "audit:/var/lib/mediasieve-audit"
    assert {name for name in OURS if mount in services[name].get("volumes", [])} == {"audit", "audit-keys"}
    assert "audit" in raw["volumes"]
    *_, folder = services["audit-keys"]["command"]
    private, public = key_files(Path(folder))
    environment = services["audit"]["environment"]
    assert environment["MEDIASIEVE_AUDIT__PRIVATE_KEY"] == str(private)
    assert environment["MEDIASIEVE_AUDIT__PUBLIC_KEYS"] == str(public)
    assert services["audit"]["depends_on"]["audit-keys"] == {"condition": "service_completed_successfully"}


def test_only_what_must_reach_outside_can(raw: dict[str, Any], services: dict[str, Any]) -> None:
    assert raw["networks"]["fleet"] == {"internal": True}
    reach = {name for name in OURS if "outside" in services[name]["networks"]}
    assert reach == {"classifier", "mllm"}
    assert all("fleet" in service["networks"] for service in services.values())


@pytest.mark.parametrize("name", BROKERS)
def test_a_broker_is_durable(services: dict[str, Any], name: str) -> None:
    broker = services[name]
    environment = broker["environment"]
    assert broker["image"] == f"apache/kafka:{KAFKA_VERSION}", "the release that the tests run on"
    assert environment["KAFKA_DEFAULT_REPLICATION_FACTOR"] == "3"
    assert environment["KAFKA_MIN_INSYNC_REPLICAS"] == "2"
    assert environment["KAFKA_OFFSETS_TOPIC_REPLICATION_FACTOR"] == "3"
    assert environment["KAFKA_TRANSACTION_STATE_LOG_REPLICATION_FACTOR"] == "3"
    assert environment["KAFKA_TRANSACTION_STATE_LOG_MIN_ISR"] == "2"
    assert environment["KAFKA_AUTO_CREATE_TOPICS_ENABLE"] == "false"
    assert broker["volumes"] == [f"{name}:{environment['KAFKA_LOG_DIRS']}"]
    assert "healthcheck" in broker


def test_the_brokers_form_one_quorum(raw: dict[str, Any], services: dict[str, Any]) -> None:
    environments = [services[name]["environment"] for name in BROKERS]
    assert len({environment["CLUSTER_ID"] for environment in environments}) == 1
    assert len(base64.urlsafe_b64decode(environments[0]["CLUSTER_ID"] + "==")) == 16
    for number, (name, environment) in enumerate(zip(BROKERS, environments, strict=True), start=1):
        assert environment["KAFKA_NODE_ID"] == str(number)
        assert f"{number}@{name}:9093" in environment["KAFKA_CONTROLLER_QUORUM_VOTERS"].split(",")
        host_port = environment["KAFKA_ADVERTISED_LISTENERS"].rpartition(":")[2]
        assert services[name]["ports"] == [f"127.0.0.1:{host_port}:19092"], "on the loopback address only"
        assert name in raw["volumes"]


def test_docker_compose_accepts_it() -> None:
    docker = shutil.which("docker")
    version = [docker or "", "compose", "version"]
    if docker is None or subprocess.run(version, check=False, capture_output=True).returncode:
        pytest.skip("`docker compose` is not installed: checked against the schema only")
    command = [docker, "compose", "--file", str(COMPOSE_FILE), "config", "--quiet"]
    done = subprocess.run(command, check=False, capture_output=True, text=True, cwd=ROOT, timeout=60)
    assert done.returncode == 0, done.stderr
