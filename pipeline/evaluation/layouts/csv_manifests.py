"""CSV files that list images: those of GRIP, RealStats and SPAI. Paths are relative to the CSV's directory."""

from __future__ import annotations

import csv
from collections.abc import Callable, Iterator
from pathlib import Path

from pipeline.evaluation.layouts.base import DatasetError, Layout, Options, generated, is_synthetic
from pipeline.evaluation.layouts.scan import files_named
from pipeline.evaluation.sample import UNKNOWN, Sample

GRIP_COLUMNS = frozenset({"filename", "typ"})
REALSTATS_COLUMNS = frozenset({"dataset_name", "path"})
SPAI_COLUMNS = frozenset({"image", "class"})

_Row = dict[str, str]


def _files(root: Path, columns: frozenset[str]) -> list[Path]:
    """The root itself, or the CSV files directly in it, that have these columns."""
    if root.is_file():
        candidates = [root] if root.suffix.lower() == ".csv" else []
    else:
        candidates = files_named(root, ".csv") if root.is_dir() else []
    return [path for path in candidates if columns <= _header(path)]


def _header(path: Path) -> set[str]:
    try:
        with path.open(encoding="utf-8-sig", newline="") as lines:
            return {name.strip() for name in next(csv.reader(lines), [])}
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise DatasetError(f"{path}: {error}; save it as a UTF-8 CSV with a header line") from error


def _rows(path: Path, columns: frozenset[str]) -> Iterator[tuple[str, _Row]]:
    """(file and line, row) with every cell of `columns` filled; other columns may be empty."""
    try:
        with path.open(encoding="utf-8-sig", newline="") as lines:
            reader = csv.DictReader(lines, skipinitialspace=True)
            for row in reader:
                where = f"{path} line {reader.line_num}"
                if missing := sorted(name for name in columns if not (row.get(name) or "").strip()):
                    raise DatasetError(f"{where}: no value for {', '.join(missing)}; fill it in or remove the line")
                yield where, {name: value or "" for name, value in row.items() if name is not None}
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise DatasetError(f"{path}: {error}; save it as a UTF-8 CSV with a header line") from error


def _matching(columns: frozenset[str]) -> Callable[[Path], bool]:
    def matches(root: Path) -> bool:
        return bool(_files(root, columns))

    return matches


def _read_grip(root: Path, _options: Options) -> Iterator[Sample]:
    """`typ` is `real` or the generator."""
    for path in _files(root, GRIP_COLUMNS):
        for _, row in _rows(path, GRIP_COLUMNS):
            synthetic = row["typ"].strip().lower() != "real"
            name = row["typ"].strip()
            image = path.parent / row["filename"]
            yield Sample(f"{path.stem}:{row['filename']}", synthetic, image, name, name, name if synthetic else UNKNOWN)


def _read_spai(root: Path, options: Options) -> Iterator[Sample]:
    """`class` is 0 or 1; one CSV a source."""
    for path in _files(root, SPAI_COLUMNS):
        for where, row in _rows(path, SPAI_COLUMNS):
            if options.split is not None and row.get("split", "").strip() != options.split:
                continue
            synthetic = is_synthetic(row["class"], where)
            key = f"{path.stem}:{row['image']}"
            yield Sample(
                key, synthetic, path.parent / row["image"], path.stem, path.stem, path.stem if synthetic else UNKNOWN
            )


def _read_realstats(root: Path, options: Options) -> Iterator[Sample]:
    """The class is in the CSV's name: `*real*.csv` or `*fake*.csv`; `split` is its first word."""
    for path in _files(root, REALSTATS_COLUMNS):
        words = path.stem.lower().split("_")
        if ("real" in words) is ("fake" in words):
            raise DatasetError(f"{path}: the name must say real or fake, such as test_real_paths.csv; rename it")
        if options.split not in (None, words[0]):
            continue
        synthetic = "fake" in words
        prefixes: dict[str, Path] = {}
        for _, row in _rows(path, REALSTATS_COLUMNS):
            name = row["dataset_name"].strip()
            prefix = prefixes.setdefault(name, _prefix(path.parent, name, row["path"]))
            image = prefix / row["path"]
            generator = generated(name) if synthetic else UNKNOWN
            yield Sample(f"{name}:{row['path']}", synthetic, image, name, name, generator)


def _prefix(directory: Path, dataset: str, path: str) -> Path:
    """Paths are relative to the CSV's directory or to the data set's own directory in it; its first row tells."""
    inner = directory / dataset
    return inner if not (directory / path).exists() and (inner / path).exists() else directory


GRIP_CSV = Layout("grip_csv", "*.csv with filename,typ", _matching(GRIP_COLUMNS), _read_grip)
SPAI_CSV = Layout("spai_csv", "*.csv with image,class[,split]", _matching(SPAI_COLUMNS), _read_spai, takes_split=True)
REALSTATS_CSV = Layout(
    "realstats_csv",
    "SPLIT_real_*.csv, SPLIT_fake_*.csv with dataset_name,path",
    _matching(REALSTATS_COLUMNS),
    _read_realstats,
    takes_split=True,
)
