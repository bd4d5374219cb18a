"""Within a major version each release reads what the others write."""

from __future__ import annotations

import copy
import json
from pathlib import Path
from typing import Any

import pytest

from schemas import generate
from schemas.compatibility import breaking_changes, tolerant
from schemas.decision import Decision
from schemas.envelope import schema_name
from schemas.media import MediaReference
from schemas.ocsf import DetectionFinding
from schemas.wire import UnknownMajorVersion
from tests.support.schema_examples import EXAMPLES, MODELS, VALID, name_of, read_value, stored_schema, validator

PREVIOUS = sorted(p for p in (EXAMPLES / "previous").iterdir() if p.is_dir())
PREVIOUS_EXAMPLES = [path for release in PREVIOUS for path in sorted(release.glob("valid/*/*.json"))]
CAME_WITH = {"1.1": {"erasure", "reference_pointer", "audit_sample", "shadow_result", "quality_event", "review_action"}}
"""Records that earlier releases do not know."""
KNOWN_THEN = [
    (release, name)
    for release in PREVIOUS
    for name in sorted(MODELS)
    if all(name not in new for version, new in CAME_WITH.items() if version > release.name)
]


def as_readers_apply(name: str, schema: dict[str, Any]) -> dict[str, Any]:
    """Of a finding our readers look at these attributes alone; the rest is for SIEMs, which know OCSF's numbers."""
    if name != schema_name(DetectionFinding):
        return schema
    read = {key: schema["properties"][key] for key in ("class_uid", "unmapped")}
    uid = schema["$defs"]["FindingInfo"]["properties"]["uid"]
    read["finding_info"] = {"type": "object", "properties": {"uid": uid}, "required": ["uid"]}
    return {**schema, "properties": read, "required": sorted(read)}


def test_there_is_a_previous_release() -> None:
    assert PREVIOUS
    for release in PREVIOUS:
        kept = {path.parent.name for path in release.glob("valid/*/*.json")}
        assert kept >= {name for known, name in KNOWN_THEN if known == release}


@pytest.mark.parametrize("path", PREVIOUS_EXAMPLES, ids=name_of)
def test_today_reads_what_an_earlier_release_wrote(path: Path) -> None:
    read_value(MODELS[path.parent.name], path.read_bytes())


@pytest.mark.parametrize(("release", "name"), KNOWN_THEN, ids=lambda part: str(getattr(part, "name", part)))
def test_an_earlier_release_reads_what_today_writes(release: Path, name: str) -> None:
    schema = tolerant(as_readers_apply(name, stored_schema(name, release)))
    found = [path for path in VALID if path.parent.name == name]
    assert found
    for path in found:
        validator(schema).validate(json.loads(path.read_bytes()))


CAME_WITH_1_1 = {
    f"record.{place}reasons.items.code.enum: {code!r} added"
    for place in ("", "unmapped.mediasieve.")
    for code in ("mllm_overloaded", "not_blocked", "not_cleared")
}
"""A reader of 1.0 refuses a decision with one of these. No worker reads decisions, and no release came before 1.1."""


WIDENED_FOR_SIEMS = {
    "record.activity_id.enum: 3 added",
    "record.disposition_id.enum: 27 added",
    "record.severity_id.enum: 2 added",
    "record.status.anyOf[0].const: 'New' became None",
    "record.status_id.anyOf[0].const: 1 became None",
    *(f"record.status_id.anyOf[0].enum: {number} added" for number in range(1, 6)),
    "record.type_uid.enum: 200403 added",
    *(
        f"record.evidences.items.file.anyOf[0].{change}"
        for key, kind in (("mime_type", "string"), ("size", "integer"))
        for change in (
            f"required: {key!r} taken away",
            f"{key}.type: {kind!r} became None",
            f"{key}.anyOf: None became [{{'type': {kind!r}}}, {{'type': 'null'}}]",
        )
    ),
}
"""More of OCSF's own numbers, and files of which only the digest is known, outside of what our readers look at."""


@pytest.mark.parametrize(("release", "name"), KNOWN_THEN, ids=lambda part: str(getattr(part, "name", part)))
def test_nothing_but_optional_fields_came_since_an_earlier_release(release: Path, name: str) -> None:
    old, new = stored_schema(name, release), generate.json_schema(MODELS[name])
    as_read = breaking_changes(as_readers_apply(name, old), as_readers_apply(name, new))
    assert set(as_read) <= CAME_WITH_1_1
    assert set(breaking_changes(old, new)) <= CAME_WITH_1_1 | WIDENED_FOR_SIEMS


def test_each_exception_is_one() -> None:
    models = (Decision, DetectionFinding)
    found = [breaking_changes(stored_schema(schema_name(m), PREVIOUS[0]), generate.json_schema(m)) for m in models]
    assert {line for lines in found for line in lines} == CAME_WITH_1_1 | WIDENED_FOR_SIEMS


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
