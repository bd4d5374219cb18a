"""Bytes <-> records. One strict decoder for every topic; its errors are values with a RejectCode."""

from __future__ import annotations

import json
import math
import re
from collections import Counter
from typing import Any, NoReturn, TypeVar

import orjson
from pydantic import ValidationError

from schemas.base import SCHEMA_MAJOR, Record
from schemas.deadletter import RejectCode

MAX_DEPTH = 32
_INT_MIN, _INT_MAX = -(2**63), 2**64 - 1
"""What `encode` can write again."""

_CUT_SHORT = re.compile(r"t(ru?)?|f(a(ls?)?)?|n(ul?)?|-|[.]|[eE][+-]?")
_CUT_ESCAPE = re.compile(r"u[0-9a-fA-F]{0,4}")
"""What follows the place of the error when a literal, a number or an escape was cut off."""

R = TypeVar("R", bound=Record)


class WireError(Exception):
    """A value that is not a record. `code` and `detail` go into its dead letter."""

    def __init__(self, code: RejectCode, detail: str) -> None:
        """Keep the detail short: it travels in a header."""
        super().__init__(code, detail)
        self.code = code
        self.detail = detail[:1024]

    def __str__(self) -> str:
        return f"{self.code}: {self.detail}"


class UnknownMajorVersion(Exception):
    """An internal record of a newer major version: the worker must stop, uncommitted, and be upgraded."""


def encode(record: Record) -> bytes:
    """UTF-8 JSON; times as UTC with a trailing Z."""
    return orjson.dumps(record.model_dump(), option=orjson.OPT_UTC_Z)


def decode(model: type[R], value: bytes) -> R:
    """Read one record, ignoring unknown fields.

    Raises:
        WireError: not UTF-8, truncated, malformed or too deep JSON, duplicate keys, a non-finite
            number, or against the schema.
        UnknownMajorVersion: `schema_version` has another major.
    """
    return read(model, parse_json(value))


def read(model: type[R], data: Any) -> R:
    """The second half of `decode`, for a record that lies inside other JSON. Raises as `decode` does."""
    if not isinstance(data, dict):
        raise WireError(RejectCode.SCHEMA_INVALID, f"expected a JSON object, got {type(data).__name__}")
    _check_major(model, data)
    try:
        return model.model_validate(data, extra="ignore")
    except ValidationError as error:
        raise WireError(RejectCode.SCHEMA_INVALID, describe(error)) from error


def parse_json(value: bytes) -> Any:
    """JSON of finite numbers, integers of 64 bits, unique keys and at most `MAX_DEPTH` levels.

    Raises:
        WireError: naming what is wrong and where.
    """
    try:
        text = value.decode("utf-8")
    except UnicodeDecodeError as error:
        if error.reason == "unexpected end of data":
            cut = f"the last character, at byte {error.start}, is cut"
            raise WireError(RejectCode.TRUNCATED_JSON, cut) from error
        bad = f"byte {error.start} is not UTF-8; send JSON as UTF-8"
        raise WireError(RejectCode.NOT_UTF8, bad) from error
    try:
        data = _DECODER.decode(text)
    except RecursionError as error:
        raise WireError(RejectCode.TOO_DEEP, f"more than {MAX_DEPTH} levels; flatten the record") from error
    except json.JSONDecodeError as error:
        raise _json_error(text, error) from error
    _check_depth(data)
    if "\\u" in text:
        _refuse_lone_surrogates(data)
    return data


def describe(error: ValidationError) -> str:
    """The first few faults, each with the path of its field."""
    faults = [f"{'.'.join(map(str, e['loc'])) or 'record'}: {e['msg']}" for e in error.errors()[:4]]
    return "; ".join(faults)


def _json_error(text: str, error: json.JSONDecodeError) -> WireError:
    rest = text[error.pos :].rstrip()
    in_string = error.msg.startswith("Unterminated string")
    in_escape = error.msg.startswith("Invalid \\uXXXX escape") and _CUT_ESCAPE.fullmatch(rest)
    truncated = not rest or in_string or in_escape or _CUT_SHORT.fullmatch(rest)
    code = RejectCode.TRUNCATED_JSON if truncated else RejectCode.MALFORMED_JSON
    return WireError(code, f"{error.msg} at character {error.pos} of {len(text)}")


def _check_major(model: type[Record], data: dict[str, Any]) -> None:
    version = data.get("schema_version")
    major = version.partition(".")[0] if isinstance(version, str) else ""
    if major.isascii() and major.isdigit() and int(major[:9]) != SCHEMA_MAJOR:
        raise UnknownMajorVersion(
            f"{model.__name__}.schema_version is {str(version)[:32]!r}, this release reads {SCHEMA_MAJOR}.x: "
            "upgrade this worker"
        )


def _check_depth(data: Any) -> None:
    level = [data]
    for _ in range(MAX_DEPTH):
        level = [child for node in level for child in _children(node)]
        if not level:
            return
    raise WireError(RejectCode.TOO_DEEP, f"more than {MAX_DEPTH} levels; flatten the record")


def _children(node: Any) -> list[Any]:
    values = node.values() if isinstance(node, dict) else node if isinstance(node, list) else ()
    return [v for v in values if isinstance(v, dict | list)]


def _refuse_lone_surrogates(data: Any) -> None:
    try:
        orjson.dumps(data)
    except orjson.JSONEncodeError as error:
        detail = "an escape names half a surrogate pair, which no UTF-8 can hold; send the character itself"
        raise WireError(RejectCode.MALFORMED_JSON, detail) from error


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) != len(pairs):
        twice = Counter(key for key, _ in pairs).most_common(1)[0][0]
        raise WireError(RejectCode.DUPLICATE_KEY, f"key {twice[:64]!r} occurs twice; send it once")
    return found


def _refuse_constant(name: str) -> NoReturn:
    raise WireError(RejectCode.NON_FINITE_NUMBER, f"{name} is not a JSON number; leave the field out")


def _finite(text: str) -> float:
    number = float(text)
    if not math.isfinite(number):
        raise WireError(RejectCode.NON_FINITE_NUMBER, f"{text[:32]} overflows a double; send a smaller number")
    return number


def _bounded_int(text: str) -> int:
    if len(text) > 20 or not _INT_MIN <= (number := int(text)) <= _INT_MAX:
        raise WireError(RejectCode.MALFORMED_JSON, f"{text[:24]} exceeds 64 bits; send it as a string")
    return number


_DECODER = json.JSONDecoder(
    object_pairs_hook=_unique, parse_constant=_refuse_constant, parse_float=_finite, parse_int=_bounded_int
)
