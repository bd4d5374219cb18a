"""What a layout is, and a dataset opened in one."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

from pipeline.evaluation.sample import UNKNOWN, Sample


class DatasetError(Exception):
    """A dataset that cannot be read as asked; the text names the path and the way out."""


@dataclass(frozen=True, slots=True)
class Options:
    """What a dataset's own files do not say.

    `reals`: a directory of photographs that are published apart from the generated images. `split`: only the
    images of this split (a directory, file-name prefix or column, by layout); None reads all.
    """

    reals: Path | None = None
    split: str | None = None


@dataclass(frozen=True, slots=True)
class Layout:
    """One way of arranging labelled images: `tree` in words, how to recognise it, how to stream it."""

    name: str
    tree: str
    matches: Callable[[Path], bool]
    read: Callable[[Path, Options], Iterator[Sample]]
    takes_reals: bool = False
    takes_split: bool = False


@dataclass(frozen=True, slots=True)
class Dataset:
    """A root read in a layout; picklable, and every call of `samples` gives the same images in the same order."""

    root: Path
    layout: str
    options: Options
    read: Callable[[Path, Options], Iterator[Sample]]

    def samples(self) -> Iterator[Sample]:
        """Stream the images.

        Raises:
            DatasetError: something in it cannot be read, or it holds no image.
        """
        empty = True
        for sample in self.read(self.root, self.options):
            empty = False
            yield sample
        if empty:
            split = f" of split {self.options.split!r}" if self.options.split else ""
            raise DatasetError(f"{self.root}: no image{split} in layout {self.layout}; check the path and the split")


def generated(name: str) -> str:
    """A generator's name, or `unknown` where the dataset leaves it out."""
    return name.strip() or UNKNOWN


def prompt_group(prompt: str, source: str) -> str:
    """The unit that intervals are clustered by: the prompt by its digest, else the source."""
    return f"prompt {hashlib.sha256(prompt.encode()).hexdigest()[:16]}" if prompt.strip() else source


def is_synthetic(value: object, where: str) -> bool:
    """Read a label: 0, real, nature or 1, fake, ai, synthetic, generated.

    Raises:
        DatasetError: none of these; `where` names file and line.
    """
    word = str(int(value)) if isinstance(value, bool | float) else str(value).strip().lower()
    if word in {"0", "real", "nature"}:
        return False
    if word in {"1", "fake", "ai", "synthetic", "generated"}:
        return True
    raise DatasetError(f"{where}: label {value!r}; expected 0 or real, 1 or fake")
