"""The few processors of an Elasticsearch ingest pipeline that ours uses, written from their reference pages.

https://www.elastic.co/docs/reference/enrich-processor
"""

from __future__ import annotations

import copy
import re
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Any

CONDITIONS: dict[str, Callable[[dict[str, Any]], bool]] = {
    "ctx.is_alert == true": lambda ctx: ctx.get("is_alert") is True,
    "ctx.is_alert != true": lambda ctx: ctx.get("is_alert") is not True,
    "ctx.disposition_id == 27": lambda ctx: ctx.get("disposition_id") == 27,
    "ctx.disposition_id != 27": lambda ctx: ctx.get("disposition_id") != 27,
    "ctx.assignee != null": lambda ctx: ctx.get("assignee") is not None,
    "ctx.evidences != null && ctx.evidences[0].file != null": lambda ctx: ctx["evidences"][0].get("file") is not None,
}
"""Painless, by hand: a condition that is not here fails the test that meets it."""

_SNIPPET = re.compile(r"\{\{\{([\w.]+)\}\}\}")


def ingest(pipeline: dict[str, Any], document: dict[str, Any]) -> tuple[str, dict[str, Any]]:
    """The id and the document that an index would get."""
    ctx = copy.deepcopy(document)
    for processor in pipeline["processors"]:
        ((kind, options),) = processor.items()
        condition = options.get("if")
        if condition is None or CONDITIONS[condition](ctx):
            _PROCESSORS[kind](ctx, options)
    return ctx.pop("_id"), ctx


def value_at(document: Any, path: str) -> Any:
    """A path with dots, where a number is a place in a list; None when something on it is missing."""
    for part in path.split("."):
        if isinstance(document, list):
            document = document[int(part)] if int(part) < len(document) else None
        else:
            document = document.get(part) if isinstance(document, dict) else None
    return document


def _put(ctx: dict[str, Any], path: str, value: Any) -> None:
    *parents, name = path.split(".")
    for part in parents:
        ctx = ctx.setdefault(part, {})
    ctx[name] = copy.deepcopy(value)


def _filled(ctx: dict[str, Any], template: Any) -> Any:
    if not isinstance(template, str):
        return template
    return _SNIPPET.sub(lambda snippet: str(value_at(ctx, snippet.group(1))), template)


def _set(ctx: dict[str, Any], options: dict[str, Any]) -> None:
    assert set(options) <= {"field", "value", "copy_from", "ignore_empty_value", "if"}
    if "copy_from" not in options:
        _put(ctx, options["field"], _filled(ctx, options["value"]))
        return
    value = value_at(ctx, options["copy_from"])
    if value is None or value == "":
        assert options.get("ignore_empty_value"), f"{options['copy_from']} is missing: the document would be refused"
        return
    _put(ctx, options["field"], value)


def _append(ctx: dict[str, Any], options: dict[str, Any]) -> None:
    _put(ctx, options["field"], [*(value_at(ctx, options["field"]) or []), _filled(ctx, options["value"])])


def _lowercase(ctx: dict[str, Any], options: dict[str, Any]) -> None:
    _put(ctx, options["target_field"], value_at(ctx, options["field"]).lower())


def _date(ctx: dict[str, Any], options: dict[str, Any]) -> None:
    assert options["formats"] == ["UNIX_MS"]
    time = datetime(1970, 1, 1, tzinfo=UTC) + timedelta(milliseconds=value_at(ctx, options["field"]))
    _put(ctx, options["target_field"], f"{time.year:04d}-{time:%m-%dT%H:%M:%S}.{time.microsecond // 1000:03d}Z")


def _remove(ctx: dict[str, Any], options: dict[str, Any]) -> None:
    for name in set(ctx) - set(options["keep"]) - {"_id"}:
        del ctx[name]


_PROCESSORS: dict[str, Callable[[dict[str, Any], dict[str, Any]], None]] = {
    "set": _set,
    "append": _append,
    "lowercase": _lowercase,
    "date": _date,
    "remove": _remove,
}
