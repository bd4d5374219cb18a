"""The answer's schema and its validation in Python."""

from __future__ import annotations

import json
from typing import Any

import jsonschema
import pytest

from pipeline.detection.mllm.report import ReportError, answer_schema, parse_report
from schemas.forensics import ForensicReport, Hypothesis
from tests.support.mllm import report_data as answer

FORBIDDEN = {
    "$ref",
    "$defs",
    "pattern",
    "format",
    "minimum",
    "maximum",
    "exclusiveMinimum",
    "multipleOf",
    "default",
}


def nodes(schema: Any) -> list[dict[str, Any]]:
    """Every schema node; the names under `properties` are not keywords."""
    children = [*schema.get("properties", {}).values(), *schema.get("anyOf", [])]
    children += [schema["items"]] if "items" in schema else []
    return [schema, *(node for child in children for node in nodes(child))]


def test_schema_stays_in_the_enforced_subset() -> None:
    for node in nodes(answer_schema()):
        assert not FORBIDDEN & node.keys()
        if node.get("type") == "object":
            assert node["required"] == list(node["properties"])
            assert node["additionalProperties"] is False
        if node.get("type") == "array":
            assert "maxItems" in node
        if node.get("type") == "string":
            assert "enum" in node or "maxLength" in node


def test_schema_covers_the_report_and_keeps_its_order() -> None:
    fields = [name for name in ForensicReport.model_fields if name != "schema_version"]
    assert list(answer_schema()["properties"]) == fields
    assert answer_schema()["properties"]["hypothesis"]["enum"] == [h.value for h in Hypothesis]


def test_the_schema_holds_for_every_image_so_that_a_grammar_is_compiled_once() -> None:
    assert answer_schema() == answer_schema()
    observation = answer_schema()["properties"]["observations"]["items"]["properties"]
    region, null = observation["region"]["anyOf"]
    assert (region["type"], region["minItems"], region["maxItems"], null) == ("array", 4, 4, {"type": "null"})
    assert region["items"] == {"type": "integer"}


def longest(schema: Any) -> int:
    """Characters of the longest answer that the schema allows, without white space; a number counts as 24."""
    if "anyOf" in schema:
        return max(longest(option) for option in schema["anyOf"])
    if "enum" in schema:
        return max(len(json.dumps(value)) for value in schema["enum"])
    match schema["type"]:
        case "object":
            return 2 + sum(len(name) + 4 + longest(part) for name, part in schema["properties"].items())
        case "array":
            return 2 + int(schema["maxItems"]) * (1 + longest(schema["items"]))
        case "string":
            return 2 + int(schema["maxLength"])
        case kind:
            return {"number": 24, "integer": 24, "null": 4}[kind]


def test_no_model_that_is_held_to_the_schema_can_go_on_for_long() -> None:
    assert longest(answer_schema()) < 8000


def test_a_good_answer_satisfies_both_checks() -> None:
    jsonschema.Draft202012Validator.check_schema(answer_schema())
    jsonschema.validate(answer(), answer_schema())
    report = parse_report(json.dumps(answer()))
    assert report.hypothesis is Hypothesis.LORA_TUNED
    assert report.rank_guess == 16


def test_an_encoded_report_reads_back() -> None:
    report = parse_report(json.dumps(answer()))
    assert parse_report(report.model_dump_json()) == report


def test_a_json_fence_is_taken_off() -> None:
    assert parse_report(f"```json\n{json.dumps(answer(), indent=1)}\n```\n") == parse_report(json.dumps(answer()))


@pytest.mark.parametrize(
    "wrap", ["Here you are:\n```json\n{}\n```", "```\n{}\n```", "{} I hope this helps", "{}{}", "// note\n{}"]
)
def test_nothing_else_is_repaired(wrap: str) -> None:
    with pytest.raises(ReportError, match="report:"):
        parse_report(wrap.replace("{}", json.dumps(answer())))


@pytest.mark.parametrize(
    ("changes", "field"),
    [
        ({"confidence": 1.2}, "confidence"),
        ({"confidence": -0.1}, "confidence"),
        ({"confidence": "0.9"}, "confidence"),
        ({"confidence": None}, "confidence"),
        ({"rank_guess": 0}, "rank_guess"),
        ({"rank_guess": 4096}, "rank_guess"),
        ({"hypothesis": "real"}, "hypothesis"),
        ({"hypothesis": "gan"}, "rank_guess"),
        ({"observations": []}, "observations"),
        ({"observations": answer()["observations"][1:]}, "observations"),
        ({"observations": answer()["observations"] * 7}, "observations"),
        ({"spatial_correlation": "x" * 1025}, "spatial_correlation"),
        ({"alternative_explanations": ["x"] * 5}, "alternative_explanations"),
        ({"primary_evidence": " \n"}, "primary_evidence"),
        ({"hypothesis": "authentic", "rank_guess": None, "confidence": 0.2}, "confidence"),
        ({"hypothesis": "gan", "rank_guess": None, "confidence": 0.2}, "confidence"),
        ({"observations": [answer()["observations"][0] | {"region": [1, 2, 3]}]}, "observations.0.region"),
        ({"observations": [answer()["observations"][0] | {"region": [1, 2, 3, -4]}]}, "observations.0.region"),
        ({"observations": [answer()["observations"][0] | {"region": [1, 2, 3, 4.5]}]}, "observations.0.region"),
        ({"observations": [answer()["observations"][0] | {"feature": "x" * 129}]}, "observations.0.feature"),
        ({"primary_evidence": "the peak again, " * 20}, "primary_evidence: repeats itself"),
        ({"alternative_explanations": ["ok", "JPEG JPEG " * 30]}, "alternative_explanations[1]: repeats itself"),
        ({"schema_version": "1.9"}, "schema_version"),
        ({"verdict": "pass"}, "report: Extra inputs"),
        ({"observations": []}, "observations: hypothesis lora_tuned"),
        ({"observations": [answer()["observations"][0] | {"feature": None}]}, "observations: hypothesis lora_tuned"),
    ],
)
def test_a_fault_names_its_field(changes: dict[str, Any], field: str) -> None:
    with pytest.raises(ReportError) as caught:
        parse_report(json.dumps(answer(**changes)))
    assert caught.value.detail.startswith(field)


@pytest.mark.parametrize("field", [name for name in ForensicReport.model_fields if name != "schema_version"])
def test_no_field_may_be_missing(field: str) -> None:
    with pytest.raises(ReportError, match=field):
        parse_report(json.dumps({k: v for k, v in answer().items() if k != field}))


@pytest.mark.parametrize(
    "changes",
    [
        {"rank_guess": None},
        {"confidence": 1},
        {
            "primary_evidence": "A row of peaks at odd sixteenths that no codec explains. "
            + "The hair is smooth there. " * 3
        },
        {"hypothesis": "authentic", "rank_guess": None, "observations": []},
        {"hypothesis": "undetermined", "rank_guess": None, "confidence": 0.1, "primary_evidence": ""},
    ],
)
def test_what_is_consistent_is_accepted(changes: dict[str, Any]) -> None:
    assert parse_report(json.dumps(answer(**changes))).confidence == answer(**changes)["confidence"]


@pytest.mark.parametrize(
    "text",
    [
        "",
        "null",
        "[]",
        "true",
        "{",
        '{"a":1,"a":2}',
        '{"confidence": NaN}',
        "[" * 5000,
        "\ud800",
        '{"a":"\\ud800"}',
    ],
)
def test_what_is_no_report_is_a_report_error(text: str) -> None:
    with pytest.raises(ReportError):
        parse_report(text)
