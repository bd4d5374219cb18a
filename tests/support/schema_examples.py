"""Stored schemas and examples of every record, of this release and of earlier ones."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from jsonschema import Draft202012Validator, FormatChecker

from schemas import generate
from schemas.base import Part, Record
from schemas.envelope import schema_name
from schemas.ocsf import DetectionFinding, decision_from_finding
from schemas.wire import decode

EXAMPLES = generate.ROOT / "examples"
MODELS = {schema_name(model): model for model in generate.RECORDS}
VALID = sorted((EXAMPLES / "valid").glob("*/*.json"))


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
