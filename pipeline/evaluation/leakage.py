"""Whether an image, or a near duplicate of it, was among those that a bundle was trained on."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Annotated

import numpy as np
import numpy.typing as npt
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from pipeline.evaluation.perceptual_hash import BITS, NEAR_DUPLICATE_BITS, is_informative

_WORDS = BITS // 64
_UInt64 = npt.NDArray[np.uint64]


class LeakageError(Exception):
    """A list of training images that cannot be used; the text names file and line."""


class TrainingImage(BaseModel):
    """One image that a bundle was trained, calibrated or selected on."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    sha256: Annotated[str, Field(pattern="^[0-9a-f]{64}$", description="of the original file")]
    dhash: Annotated[str, Field(pattern="^[0-9a-f]{64}$", description="`dhash256` of its pixels")]
    source: Annotated[str, Field(min_length=1, description="the collection it came from")]
    synthetic: bool


class TrainingImages:
    """A set of training images, searched by digest and by perceptual hash.

    A search compares the query with every hash, 64 bits at a time, and drops what is already too far: a few
    milliseconds against a million images, microseconds against a thousand. Immutable, hence thread-safe.
    """

    def __init__(self, images: Iterable[TrainingImage]) -> None:
        self._by_sha256: dict[str, str] = {}
        sources: list[str] = []
        hashes: list[bytes] = []
        for image in images:
            self._by_sha256[image.sha256] = image.source
            if is_informative(int(image.dhash, 16)):
                hashes.append(bytes.fromhex(image.dhash))
                sources.append(image.source)
        words = np.frombuffer(b"".join(hashes), dtype=">u8").reshape(-1, _WORDS)
        # One contiguous column a word: most images are ruled out by the first.
        self._columns: tuple[_UInt64, ...] = tuple(np.ascontiguousarray(c, dtype=np.uint64) for c in words.T)
        self._sources = sources

    def __len__(self) -> int:
        return len(self._by_sha256)

    @classmethod
    def load(cls, path: Path) -> TrainingImages:
        """Read the list that `write` wrote: one JSON object a line.

        Raises:
            LeakageError: unreadable, empty, or a line that is no training image, with its number and field.
        """
        try:
            with path.open(encoding="utf-8") as lines:
                found = cls(_parse(path, number, line) for number, line in enumerate(lines, start=1))
        except OSError as error:
            raise LeakageError(f"{path}: {error.strerror}; a bundle ships the list of its training images") from error
        if not len(found):
            raise LeakageError(f"{path}: no training image; write the list anew when the bundle is trained")
        return found

    def overlap(self, sha256: str, dhash: int) -> str | None:
        """Why this image counts as trained on, or None.

        Equal bytes, or a perceptual hash at most `NEAR_DUPLICATE_BITS` away. A flat picture's hash says nothing, so
        that one is compared by its bytes alone.
        """
        source = self._by_sha256.get(sha256)
        if source is not None:
            return f"same file as a training image of {source}"
        if not self._sources or not is_informative(dhash):
            return None
        bits, place = self._nearest(dhash)
        if bits > NEAR_DUPLICATE_BITS:
            return None
        return f"{bits} of {BITS} hash bits from a training image of {self._sources[place]}"

    def _nearest(self, dhash: int) -> tuple[int, int]:
        """(bits, place) of the nearest hash; `BITS + 1` where none is within reach. Ties: the first."""
        query = np.frombuffer(dhash.to_bytes(BITS // 8, "big"), dtype=">u8").astype(np.uint64)
        bits = np.bitwise_count(self._columns[0] ^ query[0]).astype(np.uint16)
        places = np.flatnonzero(bits <= NEAR_DUPLICATE_BITS)
        bits = bits[places]
        for word, column in zip(query[1:], self._columns[1:], strict=True):
            bits = bits + np.bitwise_count(column[places] ^ word)
            kept = bits <= NEAR_DUPLICATE_BITS
            bits, places = bits[kept], places[kept]
        if not places.size:
            return BITS + 1, -1
        best = int(bits.argmin())
        return int(bits[best]), int(places[best])


def write(path: Path, images: Iterable[TrainingImage]) -> int:
    """Write the list, sorted by sha256 and without repeats, so that equal sets give equal files; how many."""
    distinct = {image.sha256: image for image in images}
    with path.open("w", encoding="utf-8") as file:
        for sha256 in sorted(distinct):
            file.write(distinct[sha256].model_dump_json() + "\n")
    return len(distinct)


def _parse(path: Path, number: int, line: str) -> TrainingImage:
    try:
        return TrainingImage.model_validate_json(line)
    except ValidationError as error:
        first = error.errors()[0]
        field = ".".join(map(str, first["loc"])) or "line"
        raise LeakageError(f"{path} line {number}: {field}: {first['msg']}; write the list anew") from error
