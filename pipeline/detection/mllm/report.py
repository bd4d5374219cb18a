"""The model's answer: the JSON Schema it is held to, and the validation that follows in Python.

Grammar back ends do not enforce numeric ranges, `pattern` or `format` (xgrammar ignores ranges), so the
schema leaves them out and `parse_report` checks them, together with what no schema says: that the fields
agree with each other. Whether a report agrees with what the model was shown is `grounding`'s affair.
"""

from __future__ import annotations

import re
import zlib
from collections.abc import Iterator
from typing import Any

from pydantic import ValidationError

from schemas.base import SCHEMA_VERSION
from schemas.forensics import EvidenceSource, ForensicReport, Hypothesis
from schemas.wire import WireError, parse_json

SCHEMA_NAME = "forensic_report"
MIN_CONFIDENCE = 0.5
"""`confidence` is P(the choice of authentic or synthetic is right): below one half it is wrong."""

MAX_TEXT_CHARS = 300
MAX_OBSERVATIONS = 8
"""Tighter than the record: what a grammar lets through, however long a model goes on, is some 7,000 characters."""

_KEPT_KEYWORDS = frozenset(
    {"type", "enum", "properties", "items", "anyOf", "minItems", "maxItems", "minLength", "maxLength"}
)
_LONG_TEXT_CHARS = 200
_ENDLESS_RATIO = 0.2
"""Compressed size over size of a text that says one thing again and again.

Measured: 570 pieces of 300 characters of this project's documentation have 0.50 or more, a list of peaks by their
places 0.26; 300 characters of one phrase of 30 again and again 0.14.
"""

_MAX_FAULTS = 4
_FENCE = re.compile(r"\A\s*```json[ \t]*\r?\n(?P<body>.*?)\r?\n?```\s*\Z", re.DOTALL)


class ReportError(Exception):
    """The answer is not a forensic report; `detail` names the field and the fault."""

    def __init__(self, detail: str) -> None:
        super().__init__(detail)
        self.detail = detail


def answer_schema() -> dict[str, Any]:
    """JSON Schema of `ForensicReport` in the subset that grammar back ends enforce.

    No `$ref`, no ranges, patterns or formats; every property required, none other allowed; `schema_version`
    left out, because it is ours to write. Properties keep their order: evidence first, verdict last. It is the same
    for every image, so that a grammar is compiled once.
    """
    full = ForensicReport.model_json_schema()
    reduced = _reduced(full, full.get("$defs", {}))
    del reduced["properties"]["schema_version"]
    reduced["properties"]["observations"]["maxItems"] = MAX_OBSERVATIONS
    reduced["required"] = list(reduced["properties"])
    return reduced


def parse_report(text: str) -> ForensicReport:
    """Read one answer; a surrounding ```json fence is taken off, nothing else is repaired.

    Raises:
        ReportError: not JSON, not the schema, or fields that contradict each other.
    """
    fenced = _FENCE.match(text)
    body = (fenced["body"] if fenced else text).encode("utf-8", "surrogatepass")
    try:
        data = parse_json(body)
        if not isinstance(data, dict):
            raise ReportError(f"report: expected a JSON object, got {type(data).__name__}")
        report = ForensicReport.model_validate_json(body, strict=True)
    except WireError as error:
        raise ReportError(f"report: {error.detail}") from error
    except ValidationError as error:
        raise ReportError(_faults(error)) from error
    faults = "; ".join(_contradictions(report))
    if faults:
        raise ReportError(faults)
    return report


def _faults(error: ValidationError) -> str:
    """As `describe`, without names that the model made up: the retry puts this into a turn of the user."""
    faults = [(".".join(map(str, e["loc"])), e["type"], e["msg"]) for e in error.errors()[:_MAX_FAULTS]]
    named = [(at.rpartition(".")[0] if kind == "extra_forbidden" else at, message) for at, kind, message in faults]
    return "; ".join(f"{at or 'report'}: {message}" for at, message in named)


def _contradictions(report: ForensicReport) -> Iterator[str]:
    lora_tuned = report.hypothesis is Hypothesis.LORA_TUNED
    if report.schema_version != SCHEMA_VERSION:
        yield f"schema_version: must be {SCHEMA_VERSION} or left out"
    if lora_tuned and not any(
        o.source is EvidenceSource.SPECTRUM and o.feature is not None for o in report.observations
    ):
        yield "observations: hypothesis lora_tuned needs at least one with source spectrum that names a feature"
    if report.rank_guess is not None and not lora_tuned:
        yield f"rank_guess: must be null for hypothesis {report.hypothesis.value}"
    yield from (f"{name}: repeats itself without end" for name, text in _texts(report) if _is_endless(text))
    if report.hypothesis is Hypothesis.UNDETERMINED:
        return
    if report.confidence < MIN_CONFIDENCE:
        yield (
            f"confidence: {report.confidence:g} is below {MIN_CONFIDENCE}, which contradicts "
            f"hypothesis {report.hypothesis.value}; undetermined would be the answer"
        )
    if not report.primary_evidence.strip():
        yield f"primary_evidence: must not be empty for hypothesis {report.hypothesis.value}"


def _texts(report: ForensicReport) -> Iterator[tuple[str, str]]:
    yield "spatial_correlation", report.spatial_correlation
    yield "primary_evidence", report.primary_evidence
    yield from ((f"alternative_explanations[{i}]", text) for i, text in enumerate(report.alternative_explanations))
    yield from ((f"observations[{i}].observation", o.observation) for i, o in enumerate(report.observations))


def _is_endless(text: str) -> bool:
    """Gibberish fits any grammar that bounds a string: a loop of the model then ends at the string's limit."""
    data = text.encode("utf-8", "replace")
    return len(data) >= _LONG_TEXT_CHARS and len(zlib.compress(data)) < _ENDLESS_RATIO * len(data)


def _reduced(node: dict[str, Any], definitions: dict[str, Any]) -> dict[str, Any]:
    """`node` with references inlined and only the kept keywords, recursively."""
    if "$ref" in node:
        return _reduced(definitions[node["$ref"].rpartition("/")[2]], definitions)
    kept = {keyword: value for keyword, value in node.items() if keyword in _KEPT_KEYWORDS}
    if "maxLength" in kept:
        kept["maxLength"] = min(kept["maxLength"], MAX_TEXT_CHARS)
    if "items" in kept:
        kept["items"] = _reduced(kept["items"], definitions)
    if "anyOf" in kept:
        kept["anyOf"] = [_reduced(option, definitions) for option in kept["anyOf"]]
    if "properties" in kept:
        kept["properties"] = {name: _reduced(value, definitions) for name, value in kept["properties"].items()}
        kept["required"] = list(kept["properties"])
        kept["additionalProperties"] = False
    return kept
