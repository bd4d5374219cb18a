"""The models, the generated schemas, the examples and the AsyncAPI document say the same."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import yaml
from jsonschema import Draft202012Validator

from schemas import asyncapi, generate
from schemas.base import SCHEMA_VERSION, Part, Record
from schemas.deadletter import RejectCode
from schemas.envelope import schema_name, schema_uri
from schemas.media import MediaReference
from schemas.ocsf import DetectionFinding
from schemas.topics import DECISION_TOPICS, TOPICS
from schemas.wire import WireError, decode, encode
from tests.support.schema_examples import EXAMPLES, MODELS, VALID, name_of, read_value, stored_schema, validator

INVALID = sorted(p for p in (EXAMPLES / "invalid").glob("*/*.json"))

ONLY_THE_MODEL_SEES = {
    "media_reference/extensions_too_deep": "JSON Schema cannot count levels",
    "decision/decision_uid_not_the_admitted_one": "JSON Schema cannot compare two fields",
    "detection_finding/finding_of_another_decision": "JSON Schema cannot compare two fields",
}

WIRE_CODES = {
    "not_utf8": RejectCode.NOT_UTF8,
    "truncated": RejectCode.TRUNCATED_JSON,
    "truncated_in_a_character": RejectCode.TRUNCATED_JSON,
    "empty": RejectCode.TRUNCATED_JSON,
    "malformed": RejectCode.MALFORMED_JSON,
    "integer_beyond_64_bits": RejectCode.MALFORMED_JSON,
    "lone_surrogate": RejectCode.MALFORMED_JSON,
    "nan": RejectCode.NON_FINITE_NUMBER,
    "infinite": RejectCode.NON_FINITE_NUMBER,
    "duplicate_key": RejectCode.DUPLICATE_KEY,
    "too_deep": RejectCode.TOO_DEEP,
    "much_too_deep": RejectCode.TOO_DEEP,
    "an_array": RejectCode.SCHEMA_INVALID,
}


@pytest.mark.parametrize("path", VALID, ids=name_of)
def test_a_valid_example_satisfies_its_schema_and_its_model(path: Path) -> None:
    value, name = path.read_bytes(), path.parent.name
    validator(stored_schema(name)).validate(json.loads(value))
    record = read_value(MODELS[name], value)
    written = json.loads(encode(record))
    validator(stored_schema(schema_name(type(record)))).validate(written)
    assert decode(type(record), encode(record)) == record


@pytest.mark.parametrize("path", INVALID, ids=name_of)
def test_an_invalid_example_is_refused_by_its_schema_and_its_model(path: Path) -> None:
    value, name = path.read_bytes(), path.parent.name
    refused = not validator(stored_schema(name)).is_valid(json.loads(value))
    assert refused == (name_of(path) not in ONLY_THE_MODEL_SEES)
    with pytest.raises(WireError) as caught:
        read_value(MODELS[name], value)
    assert caught.value.code is RejectCode.SCHEMA_INVALID


def test_every_exception_to_the_schemas_is_an_example() -> None:
    assert set(ONLY_THE_MODEL_SEES) <= {name_of(path) for path in INVALID}


@pytest.mark.parametrize("name", sorted(MODELS))
def test_every_record_has_examples(name: str) -> None:
    assert sum(path.parent.name == name for path in VALID) >= 2
    assert sum(path.parent.name == name for path in INVALID) >= 3


def test_wire_examples_and_their_table_are_complete() -> None:
    assert {path.stem for path in (EXAMPLES / "invalid/wire").iterdir()} == set(WIRE_CODES)


@pytest.mark.parametrize(("stem", "code"), WIRE_CODES.items())
def test_bytes_that_are_no_record_get_their_code(stem: str, code: RejectCode) -> None:
    with pytest.raises(WireError) as caught:
        decode(MediaReference, (EXAMPLES / f"invalid/wire/{stem}.bin").read_bytes())
    assert caught.value.code is code


def test_unknown_fields_of_a_producer_are_kept() -> None:
    value = (EXAMPLES / "valid/media_reference/unknown_fields.json").read_bytes()
    reference = decode(MediaReference, value)
    assert reference.extensions == {"uploader": {"country": "FR", "verified": False}, "page": 3}


def test_every_record_class_has_a_schema() -> None:
    assert set(Record.__subclasses__()) | {DetectionFinding} == set(generate.RECORDS)
    types = [record.event_type for record in Record.__subclasses__()]
    assert len(set(types)) == len(types)


@pytest.mark.parametrize("name", sorted(MODELS))
def test_a_schema_is_valid_2020_12_and_names_itself(name: str) -> None:
    schema = stored_schema(name)
    Draft202012Validator.check_schema(schema)
    assert schema["$schema"] == generate.DIALECT
    assert schema["$id"] == schema_uri(MODELS[name])


# AsyncAPI


def document() -> dict[str, Any]:
    loaded: dict[str, Any] = yaml.safe_load((generate.ROOT / "asyncapi.yaml").read_text(encoding="utf-8"))
    return loaded


def references(node: Any) -> list[str]:
    if isinstance(node, list):
        return [ref for item in node for ref in references(item)]
    if not isinstance(node, dict):
        return []
    own = [node["$ref"]] if isinstance(node.get("$ref"), str) else []
    return own + [ref for value in node.values() for ref in references(value)]


def test_the_yaml_emitter_writes_what_a_yaml_reader_reads() -> None:
    assert document() == asyncapi.document()
    awkward = {"a: b": [], "c": {}, "d": [[1, {"e": None}], "- x # y\n'\"é"], "true": True, "n": -1.5}
    assert yaml.safe_load(asyncapi.to_yaml(awkward)) == awkward


def test_the_channels_are_the_topics() -> None:
    channels = document()["channels"]
    assert set(channels) == {spec.topic.value for spec in TOPICS}
    for spec in TOPICS:
        channel = channels[spec.topic.value]
        configuration = channel["bindings"]["kafka"]["topicConfiguration"]
        assert channel["address"] == spec.topic.value
        assert configuration["retention.ms"] == spec.retention_ms
        assert configuration["max.message.bytes"] == spec.max_bytes


def test_every_payload_is_the_record_of_its_topic() -> None:
    loaded = document()
    for spec in TOPICS:
        (reference,) = loaded["channels"][spec.topic.value]["messages"].values()
        message = loaded["components"]["messages"][reference["$ref"].rpartition("/")[2]]
        record: type[Part] | None = spec.record
        if spec.topic in DECISION_TOPICS.values():
            record = DetectionFinding
        expected = {} if record is None else {"$ref": f"json/{schema_name(record)}.json"}
        assert message["payload"] == expected


def test_the_fleet_receives_what_others_write_and_sends_the_rest() -> None:
    operations = [(o["action"], o["channel"]["$ref"].rpartition("/")[2]) for o in document()["operations"].values()]
    assert sorted(operations) == [
        ("receive", "media.ingest"),
        ("receive", "references.updates"),
        ("receive", "reviews.verdicts"),
        ("send", "audit.samples"),
        ("send", "decisions.block"),
        ("send", "decisions.escalate"),
        ("send", "decisions.pass"),
        ("send", "evidence.erasures"),
        ("send", "media.deadletter"),
        ("send", "quality.events"),
        ("send", "references"),
        ("send", "reviews.actions"),
        ("send", "shadow.results"),
    ]


@pytest.mark.parametrize("source", ["asyncapi.yaml", *(f"json/{name}.json" for name in sorted(MODELS))])
def test_every_reference_resolves(source: str) -> None:
    path = generate.ROOT / source
    loaded = yaml.safe_load(path.read_text(encoding="utf-8"))
    found = references(loaded)
    assert found or source != "asyncapi.yaml"
    for reference in found:
        file, _, pointer = reference.partition("#")
        target = yaml.safe_load((path.parent / file).read_text(encoding="utf-8")) if file else loaded
        for part in pointer.strip("/").split("/") if pointer else []:
            target = target[part.replace("~1", "/").replace("~0", "~")]
        assert isinstance(target, dict)


# Staleness


@pytest.fixture
def copied_root(tmp_path: Path) -> Path:
    root = tmp_path / "schemas"
    for part in ("json", "examples/valid", "examples/siem"):
        shutil.copytree(generate.ROOT / part, root / part)
    shutil.copy(generate.ROOT / "asyncapi.yaml", root)
    return root


def test_the_derived_files_in_the_tree_are_up_to_date(capsys: pytest.CaptureFixture[str]) -> None:
    status = generate.main(["--check"])
    assert (status, capsys.readouterr().err) == (0, "")


@pytest.mark.parametrize(
    "stale", ["json/decision.json", "asyncapi.yaml", "examples/valid/detection_finding/block.json"]
)
def test_check_names_a_changed_and_a_missing_file(
    copied_root: Path, stale: str, capsys: pytest.CaptureFixture[str]
) -> None:
    path = copied_root / stale
    path.write_text(path.read_text(encoding="utf-8").replace("block", "blocc"), encoding="utf-8")
    assert generate.main(["--check"], copied_root) == 1
    assert f"schemas/{stale} is stale" in capsys.readouterr().err
    path.unlink()
    assert generate.stale_files(copied_root) == [path]
    generate.write(copied_root)
    assert generate.stale_files(copied_root) == []


def test_what_nothing_derives_any_more_is_stale_and_goes(copied_root: Path) -> None:
    orphan = copied_root / "json/forgotten.json"
    orphan.write_text("{}", encoding="utf-8")
    assert generate.stale_files(copied_root) == [orphan]
    generate.main([], copied_root)
    assert not orphan.exists()


def test_a_snapshot_keeps_schemas_and_examples(copied_root: Path) -> None:
    assert generate.main(["--snapshot"], copied_root) == 0
    kept = copied_root / "examples/previous" / SCHEMA_VERSION
    assert stored_schema("decision", kept) == stored_schema("decision")
    assert (kept / "valid/decision/block.json").is_file()
