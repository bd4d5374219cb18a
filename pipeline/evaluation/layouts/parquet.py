"""Hub datasets in parquet: Community Forensics and OpenFake."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from pipeline.evaluation.layouts.base import (
    DatasetError,
    Layout,
    Options,
    generated,
    is_synthetic,
    prompt_group,
)
from pipeline.evaluation.layouts.parquet_rows import open_file
from pipeline.evaluation.layouts.scan import files_named, relative_key, subdirectories
from pipeline.evaluation.sample import UNKNOWN, Sample

_SHARD = re.compile(r"^(?P<split>.+?)-\d+(-of-\d+)?\.parquet$", re.IGNORECASE)
_LABEL_ROWS = 8192


@dataclass(frozen=True, slots=True)
class _Columns:
    """Where a parquet dataset keeps what a sample needs; `real_source` and `prompt` may be missing from a file."""

    image: str
    generator: str
    real_source: str = "real_source"
    label: str = "label"
    prompt: str = "prompt"

    @property
    def needed(self) -> frozenset[str]:
        return frozenset({self.image, self.generator, self.label})


_COMMUNITY_FORENSICS = _Columns(image="image_data", generator="model_name")
_OPENFAKE = _Columns(image="image", generator="model")


def _shards(root: Path) -> Iterator[Path]:
    if root.is_file():
        yield root
        return
    yield from files_named(root, ".parquet")
    for name in subdirectories(root):
        yield from _shards(root / name)


def _first_shard(root: Path) -> Path | None:
    """The first parquet file at the root or, as the hub keeps them, in `data/`."""
    if root.is_file():
        return root if root.suffix.lower() == ".parquet" else None
    for directory in (root, root / "data"):
        if directory.is_dir() and (found := files_named(directory, ".parquet")):
            return found[0]
    return None


def _has(root: Path, columns: _Columns) -> bool:
    shard = _first_shard(root)
    return shard is not None and columns.needed <= set(open_file(shard).schema_arrow.names)


def _matches_community_forensics(root: Path) -> bool:
    return _has(root, _COMMUNITY_FORENSICS)


def _matches_openfake(root: Path) -> bool:
    return _has(root, _OPENFAKE)


def _read_community_forensics(root: Path, options: Options) -> Iterator[Sample]:
    yield from _read(root, options, _COMMUNITY_FORENSICS)


def _read_openfake(root: Path, options: Options) -> Iterator[Sample]:
    yield from _read(root, options, _OPENFAKE)


def _read(root: Path, options: Options, columns: _Columns) -> Iterator[Sample]:
    base = root.parent if root.is_file() else root
    for shard in _shards(root):
        split = _SHARD.match(shard.name)
        if options.split is None or (split is not None and split["split"] == options.split):
            yield from _rows(shard, relative_key(shard, base), columns)


def _rows(shard: Path, key: str, columns: _Columns) -> Iterator[Sample]:
    """Samples of one file; the images themselves are not read here."""
    file = open_file(shard)
    present = set(file.schema_arrow.names)
    if missing := columns.needed - present:
        raise DatasetError(f"{shard}: no column {sorted(missing)}; remove the file or name another layout")
    wanted = [columns.label, columns.generator, columns.real_source, columns.prompt]
    wanted = [name for name in wanted if name in present]
    row = 0
    for batch in file.iter_batches(batch_size=_LABEL_ROWS, columns=wanted):
        for cells in batch.to_pylist():
            yield _sample(shard, key, row, cells, columns)
            row += 1


def _sample(shard: Path, key: str, row: int, cells: dict[str, object], columns: _Columns) -> Sample:
    synthetic = is_synthetic(cells[columns.label], f"{shard} row {row}")
    model = str(cells[columns.generator] or "")
    source = generated(model if synthetic else str(cells.get(columns.real_source) or model))
    return Sample(
        key=f"{key}#{row}",
        synthetic=synthetic,
        path=shard,
        source=source,
        group=prompt_group(str(cells.get(columns.prompt) or ""), source),
        generator=generated(model) if synthetic else UNKNOWN,
        row=row,
        column=columns.image,
    )


COMMUNITY_FORENSICS = Layout(
    "community_forensics",
    "[data/]SPLIT-NNNNN*.parquet with image_data, label, model_name",
    _matches_community_forensics,
    _read_community_forensics,
    takes_split=True,
)
OPENFAKE = Layout(
    "openfake",
    "[data/]SPLIT-NNNNN*.parquet with image, label, model",
    _matches_openfake,
    _read_openfake,
    takes_split=True,
)
