"""A scores file as arrays, one set for every variant: a million images fit in some hundred megabytes."""

from __future__ import annotations

import hashlib
from array import array
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from pipeline.detection.calibration import Bools, Floats
from pipeline.evaluation.metrics import NO_SCORE, Ints
from pipeline.evaluation.score_row import ScoreRow, ScoresError, Status, read_rows

NO_RANK = -1
NO_IMAGE = 0

_SCORES = ("classifier", "spectral", "fused")
_CATEGORIES = ("source", "group", "generator", "base", "adapter_type", "stratum", "status")


@dataclass(frozen=True, slots=True)
class Category:
    """A text column: `names[codes[i]]` is that of image i."""

    names: tuple[str, ...]
    codes: npt.NDArray[np.int32]

    def where(self, name: str) -> Bools:
        """Which images have it, bool (N,)."""
        if name not in self.names:
            return np.zeros(self.codes.size, bool)
        found: Bools = self.codes == self.names.index(name)
        return found

    def present(self, chosen: Bools) -> list[str]:
        """Names among the chosen images, sorted."""
        return sorted(self.names[code] for code in np.unique(self.codes[chosen]))


@dataclass(frozen=True, slots=True)
class Columns:
    """One variant of a scores file, N images in the dataset's order.

    `scores` are P(synthetic) by stage, `NO_SCORE` where a stage had nothing to say. `rank` is `NO_RANK` and `fold`
    -1 where there is none. `key` and `paired_with` are 64-bit digests of keys, `NO_IMAGE` for no pair.
    """

    synthetic: Bools
    scores: dict[str, Floats]
    rank: Ints
    fold: Ints
    delivery_sensitive: Bools
    key: npt.NDArray[np.uint64]
    paired_with: npt.NDArray[np.uint64]
    source: Category
    group: Category
    generator: Category
    base: Category
    adapter_type: Category
    stratum: Category
    status: Category

    @property
    def size(self) -> int:
        """How many images."""
        return self.synthetic.size

    def failed(self) -> Bools:
        """Which images could not be analysed."""
        return self.status.where(Status.FAILED.value)


def read_columns(path: Path) -> dict[str, Columns]:
    """Read a scores file; variant -> its columns, in the order of appearance.

    A variant holds the images of the first one, or all of them that are of one class.

    Raises:
        ScoresError: unreadable, empty, or variants with different images.
    """
    found = columns_of(read_rows(path))
    if not found:
        raise ScoresError(f"{path}: no score row; run `mediasieve evaluate` again with an empty --out")
    (name, first), *others = found.items()
    for other, columns in others:
        made = first.synthetic
        if not any(np.array_equal(columns.key, keys) for keys in (first.key, first.key[made], first.key[~made])):
            raise ScoresError(f"{path}: variant {other!r} has other images than {name!r}; run it anew")
    return found


def columns_of(rows: Iterable[ScoreRow]) -> dict[str, Columns]:
    """The same from rows."""
    builders: dict[str, _Builder] = {}
    for row in rows:
        builders.setdefault(row.variant, _Builder()).add(row)
    return {variant: builder.built() for variant, builder in builders.items()}


def digest(key: str) -> int:
    """64 bits that stand for a key; 0 stands for none."""
    return int.from_bytes(hashlib.blake2b(key.encode(), digest_size=8).digest(), "big") if key else NO_IMAGE


class _Builder:
    """Grows typed arrays, so that no row object is kept."""

    def __init__(self) -> None:
        self._flags = {name: array("b") for name in ("synthetic", "delivery_sensitive")}
        self._numbers = {name: array("q") for name in ("rank", "fold")}
        self._keys = {name: array("Q") for name in ("key", "paired_with")}
        self._scores = {name: array("d") for name in _SCORES}
        self._codes = {name: array("i") for name in _CATEGORIES}
        self._names: dict[str, dict[str, int]] = {name: {} for name in _CATEGORIES}

    def add(self, row: ScoreRow) -> None:
        for name, flags in self._flags.items():
            flags.append(getattr(row, name))
        self._numbers["rank"].append(NO_RANK if row.rank is None else row.rank)
        self._numbers["fold"].append(row.fold)
        for name, keys in self._keys.items():
            keys.append(digest(getattr(row, name)))
        for name, scores in self._scores.items():
            score = getattr(row, name)
            scores.append(NO_SCORE if score is None else score)
        for name, codes in self._codes.items():
            names = self._names[name]
            codes.append(names.setdefault(str(getattr(row, name)), len(names)))

    def built(self) -> Columns:
        return Columns(
            synthetic=np.array(self._flags["synthetic"], bool),
            scores={name: np.array(scores, np.float64) for name, scores in self._scores.items()},
            rank=np.array(self._numbers["rank"], np.int64),
            fold=np.array(self._numbers["fold"], np.int64),
            delivery_sensitive=np.array(self._flags["delivery_sensitive"], bool),
            key=np.array(self._keys["key"], np.uint64),
            paired_with=np.array(self._keys["paired_with"], np.uint64),
            source=self._category("source"),
            group=self._category("group"),
            generator=self._category("generator"),
            base=self._category("base"),
            adapter_type=self._category("adapter_type"),
            stratum=self._category("stratum"),
            status=self._category("status"),
        )

    def _category(self, name: str) -> Category:
        return Category(tuple(self._names[name]), np.array(self._codes[name], np.int32))
