"""Image bytes out of parquet files, a few rows at a time."""

from __future__ import annotations

import importlib
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from pipeline.evaluation.layouts.base import DatasetError

_BUFFER_BYTES = 1 << 20

BATCH_ROWS = 16
"""Rows taken out together. Memory is bounded by one page of the column, which its writer chose (up to 1,024 rows)."""

_open = threading.local()


def open_file(path: Path) -> Any:
    """A `pyarrow.parquet.ParquetFile`.

    Raises:
        DatasetError: pyarrow is not installed, or the file is not parquet.
    """
    try:
        parquet = importlib.import_module("pyarrow.parquet")
        invalid = importlib.import_module("pyarrow").ArrowInvalid
    except ModuleNotFoundError as error:
        raise DatasetError(f"{path}: parquet needs pyarrow: pip install 'mediasieve[evaluate]'") from error
    try:
        # Buffered: a row group is then read page by page, not as a whole.
        return parquet.ParquetFile(path, buffer_size=_BUFFER_BYTES, pre_buffer=False)
    except (OSError, invalid) as error:
        raise DatasetError(f"{path}: {error}; fetch the file again") from error


def read_image(path: Path, row: int, column: str) -> bytes:
    """Bytes in `column` at `row`: a binary cell, or the `bytes` of an image struct.

    Each thread keeps its last file open, so that rising rows are read in one pass.

    Raises:
        DatasetError: no such row, or an empty cell.
    """
    reader: _Reader | None = getattr(_open, "reader", None)
    if reader is None or (reader.path, reader.column) != (path, column):
        reader = _open.reader = _Reader(path, column, open_file(path))
    cell = reader.cell(row)
    data = cell.get("bytes") if isinstance(cell, dict) else cell
    if not isinstance(data, bytes) or not data:
        raise DatasetError(f"{path} row {row}: column {column} holds no image bytes; fetch the file again")
    return data


@dataclass(slots=True)
class _Reader:
    """One column of one file, and the batch that was read last."""

    path: Path
    column: str
    file: Any
    first: int = 0
    cells: Any = ()
    batches: Iterator[Any] = field(default_factory=lambda: iter(()))

    def cell(self, row: int) -> object:
        if not 0 <= row < self.file.metadata.num_rows:
            raise DatasetError(f"{self.path}: no row {row} among {self.file.metadata.num_rows}; list the dataset again")
        end = self.first + len(self.cells)
        if not self.first <= row < end + 8 * BATCH_ROWS or self.first == end:
            self._seek(row)
        while row >= self.first + len(self.cells):
            self.first += len(self.cells)
            self.cells = next(self.batches).column(0)
        value: object = self.cells[row - self.first].as_py()
        return value

    def _seek(self, row: int) -> None:
        """To the row group that holds the row; what lies between is decoded batch by batch and dropped."""
        start, group = 0, 0
        while row >= start + (rows := self.file.metadata.row_group(group).num_rows):
            start, group = start + rows, group + 1
        groups = list(range(group, self.file.num_row_groups))
        self.first, self.cells = start, ()
        self.batches = self.file.iter_batches(
            batch_size=BATCH_ROWS, row_groups=groups, columns=[self.column], use_threads=False
        )
