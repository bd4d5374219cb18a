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

from pipeline.observability.metrics import METRICS, Kind
from pipeline.settings import CONFIG_VARIABLE, PREFIX
from workers.settings import Settings

ROOT = Path(__file__).parents[1]
Schema: TypeAlias = Mapping[str, Any]

_DERIVED = "<!-- Derived: python -m workers.reference -->\n"
_SETTINGS_HEAD = f"""{_DERIVED}
# Settings

Every process of the fleet reads the same settings: the environment first, then the TOML file that `{CONFIG_VARIABLE}`
names, then the defaults below. A variable that is no setting, and a value that is out of bounds, end the process
with exit code 2 and one line for each fault. Lists and tables are JSON in a variable, for example
`{PREFIX}CLASSIFIER__FETCH__FILE_ROOTS='["/srv/media"]'`. In the file, `{PREFIX}KAFKA__BOOTSTRAP` is `bootstrap` in
the section `[kafka]`.

Secrets are never shown, here or in an error.

"""
_METRICS_HEAD = f"""{_DERIVED}
# Metrics

Each worker serves them at `/metrics` of its health port, in the Prometheus text format. All exist from the start.

| metric | kind | labels | meaning | buckets |
|---|---|---|---|---|
"""


@dataclass(frozen=True, slots=True)
class Row:
    """One setting. `path` is its place in the file; `within` is its variable's path where that holds JSON."""

    path: tuple[str, ...]
    within: tuple[str, ...]
    default: str
    allowed: str
    meaning: str

    @property
    def variable(self) -> str:
        """The environment variable that sets it, alone or as a part of its JSON."""
        return variable(self.within)


@dataclass(frozen=True, slots=True)
class Section:
    """The settings of one model, at one place."""

    title: str
    meaning: str
    rows: tuple[Row, ...]


def variable(path: Sequence[str]) -> str:
    """`("kafka", "bootstrap")` -> `MEDIASIEVE_KAFKA__BOOTSTRAP`."""
    return PREFIX + "__".join(path).upper()


def sections() -> list[Section]:
    """Every settings model in order of its place; the fields that lie outside a model come first."""
    return list(_Walk(Settings.model_json_schema()).sections((), (), {}))


def settings_page() -> str:
    """The text of `docs/settings.md`."""
    parts = [_SETTINGS_HEAD]
    for section in sections():
        parts += [f"## {section.title}\n\n{section.meaning}\n\n"]
        parts += ["| setting | variable | default | allowed | meaning |\n|---|---|---|---|---|\n"]
        parts += [_line(_name(row), f"`{row.variable}`", row.default, row.allowed, row.meaning) for row in section.rows]
        parts += ["\n"]
    return "".join(parts).rstrip("\n") + "\n"


def metrics_page() -> str:
    """The text of `docs/metrics.md`."""
    lines = []
    for metric in METRICS:
        labels = ", ".join(f"`{label}`" for label in metric.labels)
        buckets = ", ".join(f"{b:g}" for b in metric.buckets) if metric.kind is Kind.HISTOGRAM else ""
        lines.append(_line(f"`{metric.name}`", metric.kind.value, labels, metric.meaning, buckets))
    return _METRICS_HEAD + "".join(lines)


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

    def sections(self, path: tuple[str, ...], within: tuple[str, ...], given: Schema) -> Iterator[Section]:
        yield from self._section(self._root, "fleet", path, within, given)

    def _section(
        self, model: Schema, title: str, path: tuple[str, ...], within: tuple[str, ...], given: Schema
    ) -> Iterator[Section]:
        """`given`: what the place that holds the model sets in it; it wins over the model's own defaults."""
        in_json = path != within
        rows: list[Row] = []
        nested: list[Iterator[Section]] = []
        for name, field in model["properties"].items():
            below, below_within = (*path, name), within if in_json else (*within, name)
            default = given.get(name, field.get("default"))
            known = name in given or "default" in field
            inner = list(self._models(field))
            for definition, each in inner:
                # One model of a choice, or one value of a table: its own name tells it apart.
                label = f" ({definition['title']})" if len(inner) > 1 else ""
                inner_path = (*below, "NAME") if each else below
                inner_given = default if isinstance(default, Mapping) and len(inner) == 1 and not each else {}
                heading = f"{'.'.join(inner_path)}{label}"
                nested.append(self._section(definition, heading, inner_path, below_within, inner_given))
            if not inner or inner[0][1]:
                required = name in model.get("required", ())
                rows.append(Row(below, below_within, _default(default, known, required, field), *_about(field)))
        if rows:
            yield Section(title, " ".join(model.get("description", "").split()), tuple(rows))
        for inside in nested:
            yield from inside

    def _models(self, field: Schema) -> Iterator[tuple[Schema, bool]]:
        """Settings models that a field holds: itself, one of a choice, or (True) as each value of a table."""
        for choice in (field, *field.get("anyOf", ()), *field.get("oneOf", ()), *field.get("allOf", ())):
            if "$ref" in choice:
                definition = self._definitions[choice["$ref"].rpartition("/")[2]]
                if "properties" in definition:
                    yield definition, False
        values = field.get("additionalProperties")
        if isinstance(values, Mapping) and "$ref" in values:
            yield self._definitions[values["$ref"].rpartition("/")[2]], True


def _default(value: Any, known: bool, required: bool, field: Schema) -> str:
    if required:
        return "required"
    if not known:
        return "`{}`" if field.get("type") == "object" else "computed at start"
    if value is None:
        return "none"
    if _is_secret(field):
        return "`***`"
    if field.get("uniqueItems"):
        value = sorted(value)
    return f"`{json.dumps(value)}`"


def _is_secret(field: Schema) -> bool:
    return any(choice.get("writeOnly") for choice in (field, *field.get("anyOf", ())))


def _about(field: Schema) -> tuple[str, str]:
    """What is allowed, and the meaning."""
    choices = [choice for choice in field.get("anyOf", [field]) if choice.get("type") != "null"]
    allowed = " or ".join(dict.fromkeys(filter(None, map(_allowed, choices))))
    return ("secret" if _is_secret(field) else allowed), field.get("description", "")


def _allowed(choice: Schema) -> str:
    """Bounds, the listed values, or the bare type."""
    if "const" in choice:
        return f"`{choice['const']}`"
    if "enum" in choice:
        return ", ".join(f"`{value}`" for value in choice["enum"])
    signs = (("minimum", ">="), ("exclusiveMinimum", ">"), ("maximum", "<="), ("exclusiveMaximum", "<"))
    bounds = [f"{sign} {choice[key]}" for key, sign in signs if key in choice]
    if "pattern" in choice:
        bounds.append(f"`{choice['pattern']}`")
    kind: str = choice.get("format") or choice.get("type", "")
    return ", ".join((kind, *bounds)) if bounds else kind


def _name(row: Row) -> str:
    return f"`{row.path[-1]}`"


def _line(*cells: str) -> str:
    return "| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |\n"


if __name__ == "__main__":
    sys.exit(main())
