"""The models, the generated schemas, the examples and the AsyncAPI document say the same."""

from __future__ import annotations

import copy
import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import yaml
from jsonschema import Draft202012Validator, FormatChecker

from schemas import asyncapi, generate
from schemas.base import SCHEMA_VERSION, Part, Record
from schemas.compatibility import breaking_changes, tolerant
from schemas.deadletter import RejectCode
from schemas.decision import Decision
from schemas.envelope import schema_name, schema_uri
from schemas.media import MediaReference
from schemas.ocsf import DetectionFinding, decision_from_finding
from schemas.topics import DECISION_TOPICS, TOPICS
from schemas.wire import UnknownMajorVersion, WireError, decode, encode

EXAMPLES = generate.ROOT / "examples"
MODELS = {schema_name(model): model for model in generate.RECORDS}
VALID = sorted((EXAMPLES / "valid").glob("*/*.json"))
INVALID = sorted(p for p in (EXAMPLES / "invalid").glob("*/*.json"))
PREVIOUS = sorted(p for p in (EXAMPLES / "previous").iterdir() if p.is_dir())
PREVIOUS_EXAMPLES = [path for release in PREVIOUS for path in sorted(release.glob("valid/*/*.json"))]

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


def name_of(path: Path) -> str:
    return f"{path.parent.name}/{path.stem}"


def read_value(model: type[Part], value: bytes) -> Record:
    if model is DetectionFinding:
        return decision_from_finding(value)
    assert issubclass(model, Record)
    return decode(model, value)


def validator(schema: dict[str, Any]) -> Draft202012Validator:
    return Draft202012Validator(schema, format_checker=FormatChecker())


def stored_schema(name: str, folder: Path = generate.ROOT) -> dict[str, Any]:
    schema: dict[str, Any] = json.loads((folder / "json" / f"{name}.json").read_bytes())
    return schema


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
    for part in ("json", "examples/valid"):
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


# Versions: within a major one, each release reads what the others write


def test_there_is_a_previous_release() -> None:
    assert PREVIOUS
    assert {path.parent.name for path in PREVIOUS_EXAMPLES} >= set(MODELS)


@pytest.mark.parametrize("path", PREVIOUS_EXAMPLES, ids=name_of)
def test_today_reads_what_an_earlier_release_wrote(path: Path) -> None:
    read_value(MODELS[path.parent.name], path.read_bytes())


@pytest.mark.parametrize("release", PREVIOUS, ids=lambda path: path.name)
@pytest.mark.parametrize("path", VALID, ids=name_of)
def test_an_earlier_release_reads_what_today_writes(path: Path, release: Path) -> None:
    schema = tolerant(stored_schema(path.parent.name, release))
    validator(schema).validate(json.loads(path.read_bytes()))


CAME_WITH_1_1 = {
    f"record.{place}reasons.items.code.enum: {code!r} added"
    for place in ("", "unmapped.mediasieve.")
    for code in ("mllm_overloaded", "not_blocked", "not_cleared")
}
"""A reader of 1.0 refuses a decision with one of these. No worker reads decisions, and no release came before 1.1."""


@pytest.mark.parametrize("release", PREVIOUS, ids=lambda path: path.name)
@pytest.mark.parametrize("name", sorted(MODELS))
def test_nothing_but_optional_fields_came_since_an_earlier_release(name: str, release: Path) -> None:
    found = breaking_changes(stored_schema(name, release), generate.json_schema(MODELS[name]))
    assert set(found) <= CAME_WITH_1_1


def test_each_exception_is_one() -> None:
    models = (Decision, DetectionFinding)
    found = [breaking_changes(stored_schema(schema_name(m), PREVIOUS[0]), generate.json_schema(m)) for m in models]
    assert {line for lines in found for line in lines} == CAME_WITH_1_1


NEW = {"x_new": {"a": 1}}


def with_new_fields(node: Any) -> Any:
    """A new field in every object but `labels`, whose keys are the producer's."""
    if isinstance(node, list):
        return [with_new_fields(item) for item in node]
    if not isinstance(node, dict):
        return node
    return {**{k: v if k == "labels" else with_new_fields(v) for k, v in node.items()}, **NEW}


@pytest.mark.parametrize("path", VALID, ids=name_of)
def test_a_later_minor_version_is_read_as_far_as_it_is_known(path: Path) -> None:
    model, value = MODELS[path.parent.name], path.read_bytes()
    today, later = read_value(model, value), json.loads(value)
    if isinstance(today, MediaReference):
        later.update(NEW)
        today = today.model_copy(update={"extensions": {**today.extensions, **NEW}})
    else:
        later = with_new_fields(later)
    body = later["unmapped"]["mediasieve"] if model is DetectionFinding else later
    body["schema_version"] = "1.9"
    assert read_value(model, json.dumps(later).encode()) == today.model_copy(update={"schema_version": "1.9"})


@pytest.mark.parametrize("version", ["2.0", "0.9", "9999.1", "2"])
@pytest.mark.parametrize("name", sorted(MODELS))
def test_another_major_version_stops_the_reader(name: str, version: str) -> None:
    path = next(path for path in VALID if path.parent.name == name)
    later = json.loads(path.read_bytes())
    body = later["unmapped"]["mediasieve"] if MODELS[name] is DetectionFinding else later
    body["schema_version"] = version
    with pytest.raises(UnknownMajorVersion, match="upgrade this worker"):
        read_value(MODELS[name], json.dumps(later).encode())


def mutated(*keys: str, value: Any = None) -> list[str]:
    """What is reported after the decision's schema lost the node at `keys`, or got `value` there."""
    old = generate.json_schema(Decision)
    new = copy.deepcopy(old)
    node: Any = new
    for key in keys[:-1]:
        node = node[key]
    if value is None:
        del node[keys[-1]]
    else:
        node[keys[-1]] = value
    return breaking_changes(old, new)


def test_removing_a_field_is_reported() -> None:
    assert mutated("properties", "thresholds") == ["record.thresholds: removed"]


def test_removing_a_nested_field_is_reported_where_it_is_used() -> None:
    assert mutated("$defs", "Admission", "properties", "uri") == ["record.admission.uri: removed"]


def test_narrowing_and_widening_an_enum_are_reported() -> None:
    narrowed = mutated("$defs", "Outcome", "enum", value=["block", "pass"])
    assert narrowed == ["record.outcome.enum: 'escalate' taken away"]
    widened = mutated("$defs", "Outcome", "enum", value=["block", "escalate", "pass", "hold"])
    assert widened == ["record.outcome.enum: 'hold' added"]


def test_changing_what_is_required_is_reported() -> None:
    old = generate.json_schema(Decision)["required"]
    assert mutated("required", value=[*old, "facts"]) == ["record.required: 'facts' added"]
    assert mutated("required", value=[k for k in old if k != "outcome"]) == ["record.required: 'outcome' taken away"]


def test_changing_a_bound_a_type_or_an_optional_part_is_reported() -> None:
    assert mutated("properties", "sequence", "minimum", value=1) == ["record.sequence.minimum: 0 became 1"]
    assert mutated("properties", "sequence", "type", value="string") != []
    assert mutated("$defs", "MediaFacts", "properties", "format", "enum", value=["jpeg"]) != []
    assert mutated("properties", "reasons", "items", value={"type": "string"}) != []


def test_adding_an_optional_field_or_a_description_is_no_change() -> None:
    assert mutated("properties", "hint", value={"type": "string"}) == []
    assert mutated("$defs", "MediaFacts", "properties", "colour_space", value={"type": "string"}) == []
    assert mutated("description", value="another text") == []
