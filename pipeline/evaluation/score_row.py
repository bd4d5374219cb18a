"""One line of a scores file: a labelled image and what each stage said of it."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from enum import StrEnum
from pathlib import Path

from pydantic import BaseModel, ConfigDict, ValidationError

from schemas.types import Probability


class Status(StrEnum):
    """How far an image came. None of these leaves the denominator: a generated image not flagged is a miss."""

    SCORED = "scored"
    NOT_APPLICABLE = "not_applicable"
    FAILED = "failed"


class ScoresError(Exception):
    """A scores file that cannot be used; the text names file and line."""


class ScoreRow(BaseModel):
    """See the module. Scores are P(synthetic) at the bundle's prior; None where a stage had nothing to say.

    `stratum` is codec/size as the spectral stage names it. `not_applicable`: decoded, but its spectrum says
    nothing. `failed`: not decoded; `detail` says why. `delivery_sensitive`: the score moves when the image is
    saved once more. `fold` is the cross-fitting fold whose model scored it; -1 without cross-fitting.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    key: str
    synthetic: bool
    status: Status = Status.SCORED
    source: str
    group: str
    generator: str
    base: str
    adapter_type: str = ""
    rank: int | None = None
    paired_with: str = ""
    variant: str = "as delivered"
    fold: int = -1
    sha256: str = ""
    format: str = ""
    stratum: str = ""
    jpeg_quality: int | None = None
    width: int = 0
    height: int = 0
    size_bytes: int = 0
    classifier: Probability | None = None
    spectral: Probability | None = None
    fused: Probability | None = None
    p_value: Probability | None = None
    delivery_sensitive: bool = False
    detail: str = ""


def write_rows(path: Path, rows: Iterable[ScoreRow]) -> int:
    """Write one JSON object a line; how many."""
    count = 0
    with path.open("w", encoding="utf-8") as file:
        for row in rows:
            file.write(row.model_dump_json() + "\n")
            count += 1
    return count


def read_rows(path: Path) -> Iterator[ScoreRow]:
    """Read a scores file line by line.

    Raises:
        ScoresError: unreadable, or a line that is no score row, with its number and field.
    """
    try:
        with path.open(encoding="utf-8") as lines:
            for number, line in enumerate(lines, start=1):
                try:
                    yield ScoreRow.model_validate_json(line)
                except ValidationError as error:
                    first = error.errors()[0]
                    field = ".".join(map(str, first["loc"])) or "line"
                    raise ScoresError(f"{path} line {number}: {field}: {first['msg']}") from error
    except OSError as error:
        raise ScoresError(f"{path}: {error}; give a scores file written by `mediasieve evaluate`") from error
