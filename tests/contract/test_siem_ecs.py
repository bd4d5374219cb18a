"""OCSF -> ECS: the projection in Python, and the same inside Elasticsearch by the ingest pipeline that we ship."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from schemas import generate
from schemas.ocsf import decode_finding, encode_finding
from schemas.siem import ecs_document
from tests.support.findings import FINDINGS, golden
from tests.support.ingest_pipeline import ingest

GOLDEN = generate.ROOT / "examples/siem/ecs"
ELASTIC = generate.ROOT.parent / "deploy/siem/elastic"
OLD = sorted((generate.ROOT / "examples/previous/1.0/valid/detection_finding").glob("*.json"))

ECS_FIELDS = {
    **dict.fromkeys(
        [
            *("ecs.version", "tags", "rule.name", "rule.version", "rule.ruleset", "organization.id", "user.name"),
            *("event.id", "event.kind", "event.category", "event.type", "event.action", "event.code", "event.outcome"),
            *("event.reason", "event.module", "event.dataset", "event.provider"),
            *("observer.vendor", "observer.product", "observer.version"),
            *("file.name", "file.mime_type", "file.type", "file.hash.sha256", "related.hash", "related.user"),
        ],
        "keyword",
    ),
    **dict.fromkeys(["event.severity", "event.sequence", "file.size"], "long"),
    "@timestamp": "date",
    "message": "match_only_text",
    "event.risk_score": "float",
    "url.original": "wildcard",
}
"""Names and types of https://www.elastic.co/docs/reference/ecs, 8.17; also those of 9."""

ALLOWED = {
    "event.kind": {"alert", "event"},
    "event.category": {"file"},
    "event.type": {"info"},
    "event.outcome": {"success", "failure"},
    "file.type": {"file"},
}
"""Of the values that ECS allows, those that we use; `info` is one of the types expected for category `file`."""


def leaves(node: Any, path: str = "") -> Iterator[tuple[str, Any]]:
    if isinstance(node, dict):
        for key, value in node.items():
            yield from leaves(value, f"{path}.{key}" if path else key)
    elif isinstance(node, list):
        for value in node:
            yield from leaves(value, path)
    else:
        yield path, node


def mapped(node: dict[str, Any], path: str = "") -> Iterator[tuple[str, str]]:
    for name, field in node.get("properties", {}).items():
        here = f"{path}.{name}" if path else name
        if "type" in field:
            yield here, field["type"]
        yield from mapped(field, here)


def loaded(name: str) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((ELASTIC / f"{name}.json").read_bytes())
    return found


MAPPING = dict(mapped(loaded("index-template-decisions")["template"]["mappings"]))


@pytest.mark.parametrize("path", FINDINGS, ids=lambda path: path.stem)
def test_the_golden_documents(path: Path) -> None:
    assert json.loads((GOLDEN / f"{path.stem}.json").read_bytes()) == ecs_document(golden(path.stem))


@pytest.mark.parametrize("path", FINDINGS, ids=lambda path: path.stem)
def test_every_field_is_of_ecs_or_our_own(path: Path) -> None:
    for name, value in leaves(ecs_document(golden(path.stem))):
        assert name.startswith("mediasieve.") or name in ECS_FIELDS, name
        assert value in ALLOWED.get(name, {value})
        assert value not in (None, "")


def test_all_ecs_fields_are_used_by_some_golden_document() -> None:
    used = {name for path in FINDINGS for name, _ in leaves(ecs_document(golden(path.stem)))}
    assert used >= set(ECS_FIELDS)
    assert used == set(MAPPING), "the index template maps what we write and nothing else"
    assert {name: kind for name, kind in MAPPING.items() if name in ECS_FIELDS} == ECS_FIELDS


PYTHON_TYPES: dict[str, tuple[type, ...]] = {"long": (int,), "float": (int, float)}


@pytest.mark.parametrize("path", FINDINGS, ids=lambda path: path.stem)
def test_values_fit_their_mapping(path: Path) -> None:
    for name, value in leaves(ecs_document(golden(path.stem))):
        assert isinstance(value, PYTHON_TYPES.get(MAPPING[name], (str,))), name


def test_what_a_searcher_asks_for() -> None:
    document = ecs_document(golden("escalate_undecodable"))
    assert document["event"]["kind"] == "alert"
    assert (document["event"]["action"], document["event"]["outcome"]) == ("error", "failure")
    assert "file" not in document
    assert "related" not in document
    block = ecs_document(golden("block"))
    sha256 = "9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08"
    assert block["file"]["hash"]["sha256"] == sha256
    assert block["related"] == {"hash": [sha256]}
    assert block["@timestamp"] == "2026-01-31T12:00:03.123Z"
    assert block["event"]["id"] == str(golden("block").metadata.uid)
    review = ecs_document(golden("review_photograph"))
    assert (review["user"]["name"], review["mediasieve"]["verdict"]) == ("r.meyer", "False Positive")
    assert ecs_document(golden("pass_released"))["event"]["code"] == "pass.released"
    assert ecs_document(golden("pass_released"))["event"]["kind"] == "event"


@pytest.mark.parametrize("path", [*FINDINGS, *OLD], ids=lambda path: f"{path.parents[2].name}-{path.stem}")
def test_the_ingest_pipeline_writes_the_same_document(path: Path) -> None:
    finding = decode_finding(path.read_bytes())
    uid, document = ingest(loaded("ingest-pipeline"), json.loads(path.read_bytes()))
    assert uid == str(finding.metadata.uid)
    assert document == ecs_document(finding)


def test_what_transports_add_stays_out_of_the_document() -> None:
    added = {"@version": "1", "id": "x", "timestamp": "2026-01-31T12:00:03Z", "kafka": {"topic": "decisions.block"}}
    value = {**json.loads(encode_finding(golden("block"))), **added}
    assert ingest(loaded("ingest-pipeline"), value)[1] == ecs_document(golden("block"))


def test_the_pipeline_is_the_default_of_the_index() -> None:
    template = loaded("index-template-decisions")
    assert template["index_patterns"] == ["mediasieve-decisions-*"]
    assert template["template"]["settings"]["index.default_pipeline"] == "mediasieve-ocsf"


def test_the_template_of_dead_letters_maps_the_record() -> None:
    full = json.loads((generate.ROOT / "examples/valid/dead_letter/full.json").read_bytes())
    fields = dict(mapped(loaded("index-template-deadletters")["template"]["mappings"]))
    assert set(fields) == {*full, "@timestamp"}
