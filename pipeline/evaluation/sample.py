"""One labelled image of a dataset, wherever its bytes lie."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

UNKNOWN = "unknown"
"""Stands for a generator, base or adapter type that the dataset does not name."""


@dataclass(frozen=True, slots=True)
class Sample:
    """A labelled image; small and picklable, so that a million of them stream between processes.

    `key` is unique within the dataset. `source` is the collection that splits never cut through; `group` is the
    unit that intervals are clustered by: adapter or prompt, else the source. `path` is the image file, or a
    parquet file whose row `row` holds the bytes in column `column`. `sha256` is what the bytes must have, if the
    dataset says so.
    """

    key: str
    synthetic: bool
    path: Path
    source: str
    group: str
    generator: str = UNKNOWN
    base: str = UNKNOWN
    adapter_type: str = ""
    rank: int | None = None
    paired_with: str = ""
    sha256: str = ""
    row: int | None = None
    column: str = ""
