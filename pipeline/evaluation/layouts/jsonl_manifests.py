"""`manifest.jsonl`: one JSON object an image. The project's own form, and that of its adapter bench."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Literal, TypeVar

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from pipeline.evaluation.layouts.base import DatasetError, Layout, Options, generated
from pipeline.evaluation.sample import Sample

MANIFEST = "manifest.jsonl"
ADAPTER_FIELDS = frozenset({"adapter_id", "adapter_type"})


_Row = TypeVar("_Row", bound=BaseModel)


class ManifestRow(BaseModel):
    """A labelled image; `path` is relative to the manifest. Further fields may be there and are not read."""

    model_config = ConfigDict(frozen=True, extra="ignore")

    path: Annotated[str, Field(min_length=1)]
    label: Literal["real", "ai"]
    source: Annotated[str, Field(min_length=1)]
    generator: str | None = None
    lora: Literal["yes", "no", "unknown"] | None = None
    prompt_id: str | int | None = None
    sha256: Annotated[str, Field(pattern="^([0-9a-f]{64})?$")] = ""


class AdapterRow(BaseModel):
    """An image of the adapter bench: a photograph, a base-model image (no adapter) or an adapter's image."""

    model_config = ConfigDict(frozen=True, extra="ignore")

    path: Annotated[str, Field(min_length=1)]
    label: Literal["real", "ai"]
    base: str | None = None
    vae: str | None = None
    adapter_type: str | None = None
    adapter_id: str | None = None
    rank: Annotated[int, Field(ge=1)] | None = None
    prompt_id: str | int | None = None
    paired_with: str | None = None
    sha256: Annotated[str, Field(pattern="^([0-9a-f]{64})?$")] = ""


def _first_row(root: Path) -> dict[str, object] | None:
    path = root if root.is_file() and root.suffix == ".jsonl" else root / MANIFEST
    if not path.is_file():
        return None
    row: dict[str, object] | None = next((row for _, row in _objects(path)), None)
    return row


def _objects(path: Path) -> Iterator[tuple[str, dict[str, object]]]:
    try:
        with path.open(encoding="utf-8") as lines:
            for number, line in enumerate(lines, start=1):
                where = f"{path} line {number}"
                try:
                    row = json.loads(line)
                except json.JSONDecodeError as error:
                    raise DatasetError(f"{where}: {error}; one JSON object a line") from error
                if not isinstance(row, dict):
                    raise DatasetError(f"{where}: not a JSON object; one object a line")
                yield where, row
    except (OSError, UnicodeDecodeError) as error:
        raise DatasetError(f"{path}: {error}; save it as UTF-8") from error


def _matches_manifest(root: Path) -> bool:
    row = _first_row(root)
    return row is not None and not set(row) >= ADAPTER_FIELDS


def _matches_adapters(root: Path) -> bool:
    row = _first_row(root)
    return row is not None and set(row) >= ADAPTER_FIELDS


def _manifest(root: Path) -> Path:
    return root if root.is_file() else root / MANIFEST


def _parsed(root: Path, model: type[_Row]) -> Iterator[_Row]:
    for where, row in _objects(_manifest(root)):
        try:
            yield model.model_validate(row)
        except ValidationError as error:
            first = error.errors()[0]
            field = ".".join(map(str, first["loc"]))
            raise DatasetError(f"{where}: {field}: {first['msg']}; correct the manifest") from error


def _read_manifest(root: Path, _options: Options) -> Iterator[Sample]:
    directory = _manifest(root).parent
    for row in _parsed(root, ManifestRow):
        yield Sample(
            key=row.path,
            synthetic=row.label == "ai",
            path=directory / row.path,
            source=row.source,
            group=row.source if row.prompt_id is None else f"prompt {row.prompt_id}",
            generator=generated(row.generator or ""),
            adapter_type="lora" if row.lora == "yes" else "",
            sha256=row.sha256,
        )


def _read_adapters(root: Path, _options: Options) -> Iterator[Sample]:
    """Clustered by adapter; images without one by prompt. The source is the base model, or `photographs`."""
    directory = _manifest(root).parent
    for row in _parsed(root, AdapterRow):
        synthetic = row.label == "ai"
        base = generated(row.base or "")
        source = base if synthetic else "photographs"
        by_prompt = source if row.prompt_id is None else f"prompt {row.prompt_id}"
        yield Sample(
            key=row.path,
            synthetic=synthetic,
            path=directory / row.path,
            source=source,
            group=f"adapter {row.adapter_id}" if row.adapter_id else by_prompt,
            generator=base,
            base=base,
            adapter_type=row.adapter_type or "",
            rank=row.rank,
            paired_with=row.paired_with or "",
            sha256=row.sha256,
        )


MANIFEST_JSONL = Layout(
    "manifest", "manifest.jsonl with path, label (real or ai), source, sha256", _matches_manifest, _read_manifest
)
ADAPTER_BENCH = Layout(
    "adapter_bench",
    "BASE/ADAPTER_TYPE/rNN/ADAPTER_ID/*.png with one manifest.jsonl at the root",
    _matches_adapters,
    _read_adapters,
)
