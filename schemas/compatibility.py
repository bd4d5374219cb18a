"""What a change of a JSON Schema breaks within one major version.

Readers ignore unknown fields, and releases are mixed while a fleet is upgraded: today's readers meet older
records and older readers meet today's. So a minor version may add optional fields and nothing else.
"""

from __future__ import annotations

from typing import Any, TypeAlias

Schema: TypeAlias = dict[str, Any]
_ANNOTATIONS = frozenset({"$defs", "$id", "$schema", "default", "description", "title"})


def tolerant(schema: Any) -> Any:
    """The schema as our readers apply it: unknown fields are ignored, not refused."""
    if isinstance(schema, list):
        return [tolerant(part) for part in schema]
    if not isinstance(schema, dict):
        return schema
    return {k: tolerant(v) for k, v in schema.items() if (k, v) != ("additionalProperties", False)}


def breaking_changes(old: Schema, new: Schema) -> list[str]:
    """Every change that is more than an added optional field, one line each; empty when there is none."""
    return _Comparison(old, new).differences(old, new, "record")


class _Comparison:
    """Two documents side by side; each resolves the references of its own."""

    def __init__(self, old: Schema, new: Schema) -> None:
        self._old, self._new = old, new

    def differences(self, old: Any, new: Any, path: str) -> list[str]:
        old, new = _resolve(self._old, old), _resolve(self._new, new)
        if not isinstance(old, dict) or not isinstance(new, dict):
            return [] if old == new else [f"{path}: {old!r} became {new!r}"]
        found = []
        for keyword in sorted((old.keys() | new.keys()) - _ANNOTATIONS):
            found += self._keyword(keyword, old.get(keyword), new.get(keyword), path)
        return found

    def _keyword(self, keyword: str, old: Any, new: Any, path: str) -> list[str]:
        match keyword:
            case "properties":
                return self._properties(old or {}, new or {}, path)
            case "required" | "enum":
                return _set_difference(keyword, old, new, path)
            case "anyOf" if isinstance(old, list) and isinstance(new, list) and len(old) == len(new):
                pairs = enumerate(zip(old, new, strict=True))
                return [line for i, (a, b) in pairs for line in self.differences(a, b, f"{path}.anyOf[{i}]")]
            case "items" | "additionalProperties":
                return self.differences(old, new, f"{path}.{keyword}")
            case _:
                return [] if old == new else [f"{path}.{keyword}: {old!r} became {new!r}"]

    def _properties(self, old: Schema, new: Schema, path: str) -> list[str]:
        found = [f"{path}.{name}: removed" for name in sorted(old.keys() - new.keys())]
        for name in sorted(old.keys() & new.keys()):
            found += self.differences(old[name], new[name], f"{path}.{name}")
        return found


def _resolve(document: Schema, node: Any) -> Any:
    if isinstance(node, dict) and "$ref" in node:
        return document["$defs"][node["$ref"].removeprefix("#/$defs/")]
    return node


def _set_difference(keyword: str, old: Any, new: Any, path: str) -> list[str]:
    before, after = set(old or ()), set(new or ())
    lost = [f"{path}.{keyword}: {value!r} taken away" for value in sorted(before - after, key=str)]
    gained = [f"{path}.{keyword}: {value!r} added" for value in sorted(after - before, key=str)]
    return lost + gained
