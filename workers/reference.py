"""Write what the documentation derives from code: `docs/settings.md` and `docs/metrics.md`.

`python -m workers.reference` writes, `--check` exits 1 and names every stale file.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeAlias

from pipeline.observability.metrics import METRICS, Kind, MetricSpec
from pipeline.observability.report_metrics import REPORT_METRICS
from pipeline.settings import CONFIG_VARIABLE, PREFIX
from workers.settings import Settings

ROOT = Path(__file__).parents[1]
Schema: TypeAlias = Mapping[str, Any]

_KINDS = {"array": "list", "object": "table"}
_DERIVED = "<!-- Derived: python -m workers.reference -->\n"
_SETTINGS_HEAD = f"""{_DERIVED}
# Settings

Every process of the fleet reads the same settings: the environment first, then the TOML file that
`{CONFIG_VARIABLE}` names, then the defaults below. A variable that is no setting and a value out of bounds
end the process with exit code 2 and one line for each fault. Lists and tables are JSON in a variable, for example
`{PREFIX}CLASSIFIER__FETCH__FILE_ROOTS='["/srv/media"]'`. In the file, `{PREFIX}KAFKA__BOOTSTRAP` is
`bootstrap` in the section `[kafka]`.

Secrets are never shown, here or in an error.

"""
_METRICS_HEAD = f"""{_DERIVED}
# Metrics

Each worker serves them at `/metrics` of its health port, in the Prometheus text format. All exist from the start.

| metric | kind | unit | labels | meaning | buckets |
|---|---|---|---|---|---|
"""
_REPORTS_HEAD = """
## Reports

Written into a file for node_exporter's textfile collector: [monitoring-detection.md](monitoring-detection.md).

| metric | kind | unit | labels | meaning | buckets |
|---|---|---|---|---|---|
"""


@dataclass(frozen=True, slots=True)
class Row:
    """One setting and the environment variable that sets it, alone or as a part of its JSON."""

    name: str
    variable: str
    default: str
    allowed: str
    meaning: str


@dataclass(frozen=True, slots=True)
class Section:
    """The settings of one model, at one place."""

    title: str
    meaning: str
    rows: tuple[Row, ...]


@dataclass(frozen=True, slots=True)
class _Place:
    """Where a model lies in the file; `in_json`: all below it is JSON in the one `variable`."""

    path: tuple[str, ...]
    variable: tuple[str, ...]
    in_json: bool = False

    def below(self, name: str) -> _Place:
        return _Place((*self.path, name), self.variable if self.in_json else (*self.variable, name), self.in_json)


def variable(path: Sequence[str]) -> str:
    """`("kafka", "bootstrap")` -> `MEDIASIEVE_KAFKA__BOOTSTRAP`."""
    return PREFIX + "__".join(path).upper()


def sections() -> list[Section]:
    """Every settings model in order of its place; the fields that lie outside a model come first."""
    return list(_Walk(Settings.model_json_schema()).sections())


def settings_page() -> str:
    """The text of `docs/settings.md`."""
    parts = [_SETTINGS_HEAD]
    for section in sections():
        parts += [f"## {section.title}\n\n{section.meaning}\n\n"]
        parts += ["| setting | variable | default | allowed | meaning |\n|---|---|---|---|---|\n"]
        for row in section.rows:
            parts += [_line(f"`{row.name}`", f"`{row.variable}`", row.default, row.allowed, row.meaning)]
        parts += ["\n"]
    return "".join(parts).rstrip("\n") + "\n"


def metrics_page() -> str:
    """The text of `docs/metrics.md`."""
    return _METRICS_HEAD + "".join(map(_metric, METRICS)) + _REPORTS_HEAD + "".join(map(_metric, REPORT_METRICS))


def derived_files(root: Path = ROOT) -> dict[Path, str]:
    """Every derived file and its text."""
    return {root / "docs/settings.md": settings_page(), root / "docs/metrics.md": metrics_page()}


def stale_files(root: Path = ROOT) -> list[Path]:
    """Derived files that are missing or differ."""
    files = derived_files(root)
    return [path for path, text in files.items() if not path.is_file() or path.read_text(encoding="utf-8") != text]


def main(arguments: Sequence[str] | None = None, root: Path = ROOT) -> int:
    """Run the command line; returns the exit status."""
    parser = argparse.ArgumentParser(prog="python -m workers.reference", description=__doc__)
    parser.add_argument("--check", action="store_true", help="write nothing; exit 1 when a file is stale")
    if parser.parse_args(arguments).check:
        stale = stale_files(root)
        for path in stale:
            sys.stderr.write(f"{path.relative_to(root)} is stale: run python -m workers.reference\n")
        return 1 if stale else 0
    for path, text in derived_files(root).items():
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8")
    return 0


class _Walk:
    """The JSON Schema of the settings, section by section."""

    def __init__(self, schema: Schema) -> None:
        self._root = schema
        self._definitions: Schema = schema["$defs"]

    def sections(self) -> Iterator[Section]:
        return self._section(self._root, "fleet", "", _Place((), ()))

    def _section(self, model: Schema, title: str, purpose: str, place: _Place) -> Iterator[Section]:
        rows: list[Row] = []
        nested: list[Iterator[Section]] = []
        for name, field in model["properties"].items():
            below = place.below(name)
            purpose_below = _sentence(field.get("description", ""))
            values = self._model_of_values(field)
            models = [m for choice in _choices(field) if (m := self._model(choice))]
            for each in models:
                heading = ".".join(below.path) + (f" ({each['title']})" if len(models) > 1 else "")
                nested.append(self._section(each, heading, purpose_below, below))
            if values is not None:
                entry = _Place((*below.path, "NAME"), below.variable, in_json=True)
                nested.append(self._section(values, ".".join(entry.path), purpose_below, entry))
            if not models:
                required = name in model.get("required", ())
                rows.append(Row(name, variable(below.variable), _default(field, required), *self._about(field)))
        if rows:
            yield Section(title, f"{purpose} {' '.join(model.get('description', '').split())}".strip(), tuple(rows))
        for inside in nested:
            yield from inside

    def _resolved(self, choice: Schema) -> Schema:
        found: Schema = self._definitions[choice["$ref"].rpartition("/")[2]] if "$ref" in choice else choice
        return found

    def _model(self, choice: Schema) -> Schema | None:
        """The settings model that a field, or one of its choices, is."""
        found = self._resolved(choice)
        return found if "properties" in found else None

    def _model_of_values(self, field: Schema) -> Schema | None:
        """The settings model that each value of a table is."""
        by_pattern = field.get("patternProperties", {}).values()
        found = [m for value in (field.get("additionalProperties"), *by_pattern) if value and (m := self._model(value))]
        return found[0] if found else None

    def _about(self, field: Schema) -> tuple[str, str]:
        """What is allowed, and the meaning."""
        if _is_secret(field):
            return "secret", field["description"]
        allowed = (_allowed(self._resolved(c)) for c in _choices(field) if c.get("type") != "null")
        return " or ".join(allowed), field.get("description", "picks this choice" if "const" in field else "")


def _choices(field: Schema) -> Sequence[Schema]:
    choices: Sequence[Schema] = field.get("anyOf") or field.get("oneOf") or field.get("allOf") or [field]
    return choices


def _default(field: Schema, required: bool) -> str:
    """The model's own default. One that is computed depends on the machine, so it is not shown."""
    if required:
        return "required"
    if "default" not in field:
        return "`{}`" if field.get("type") == "object" else "computed at start"
    value = field["default"]
    if value is None:
        return "none"
    if _is_secret(field):
        return "`***`"
    return f"`{json.dumps(sorted(value) if field.get('uniqueItems') else value)}`"


def _is_secret(field: Schema) -> bool:
    return any(choice.get("writeOnly") for choice in _choices(field))


def _allowed(choice: Schema) -> str:
    """Bounds, the listed values, or the bare type."""
    if "const" in choice:
        return f"`{choice['const']}`"
    if "enum" in choice:
        return ", ".join(f"`{value}`" for value in choice["enum"])
    kind: str = choice.get("format") or choice["type"]
    signs = (("minimum", ">="), ("exclusiveMinimum", ">"), ("maximum", "<="), ("exclusiveMaximum", "<"))
    bounds = [f"{sign} {choice[key]}" for key, sign in signs if key in choice]
    pattern = [f"`{choice['pattern']}`"] if "pattern" in choice else []
    return ", ".join((_KINDS.get(kind, kind), *bounds, *pattern))


def _sentence(text: str) -> str:
    return f"{text[:1].upper()}{text[1:].removesuffix('.')}." if text else ""


def _metric(metric: MetricSpec) -> str:
    labels = ", ".join(f"`{label}`" for label in metric.labels)
    buckets = ", ".join(f"{b:g}" for b in metric.buckets) if metric.kind is Kind.HISTOGRAM else ""
    return _line(f"`{metric.name}`", metric.kind.value, metric.unit, labels, metric.meaning, buckets)


def _line(*cells: str) -> str:
    return "| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |\n"


if __name__ == "__main__":
    sys.exit(main())
