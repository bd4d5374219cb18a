"""What the weekly evaluation runs on: the file that lists its sets."""

from __future__ import annotations

import tomllib
from pathlib import Path
from typing import Annotated, Self

from pydantic import BaseModel, ConfigDict, Field, StringConstraints, ValidationError, model_validator

from pipeline.evaluation.layouts import Dataset, open_dataset

CONFIRMED = "confirmed"

SetName = Annotated[str, StringConstraints(pattern=r"^[a-z0-9][a-z0-9_-]{0,63}$")]
"""Also the name of its folder in a run."""


class WeeklyInvalid(Exception):
    """The list of sets, or a run's folder, cannot be used; the text names file and field."""


class SetSpec(BaseModel):
    """One labelled dataset, as `mediasieve evaluate` takes it."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    name: SetName
    path: Path
    layout: str | None = None
    split: str | None = None
    reals: Path | None = None

    def open(self) -> Dataset:
        """Raises DatasetError: it cannot be read as told."""
        return open_dataset(self.path, self.layout, reals=self.reals, split=self.split)


class WeeklySets(BaseModel):
    """`sets`: frozen ones and registered adapter sets, compared with the last run image by image.

    `confirmed_days`: reviews of so many days are a set too, `confirmed`; 0: they are not. `least_drop`: a smaller
    change is no regression, however certain it is.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    sets: Annotated[tuple[SetSpec, ...], Field(max_length=100)] = ()
    confirmed_days: Annotated[int, Field(ge=0, le=30)] = 7
    least_drop: Annotated[float, Field(ge=0, le=1)] = 0.005

    @model_validator(mode="after")
    def _something_with_names_of_their_own(self) -> Self:
        names = [each.name for each in self.sets]
        if len(set(names)) != len(names) or CONFIRMED in names:
            raise ValueError(f"sets: give each a name of its own, and none {CONFIRMED!r}")
        if not names and not self.confirmed_days:
            raise ValueError("sets: name at least one, or give confirmed_days")
        return self

    @classmethod
    def load(cls, path: Path) -> Self:
        """Read the TOML file; paths are relative to it.

        Raises:
            WeeklyInvalid: with file and field.
        """
        try:
            found = cls.model_validate(tomllib.loads(path.read_text(encoding="utf-8")))
        except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
            raise WeeklyInvalid(f"{path}: {error}") from error
        except ValidationError as error:
            first = error.errors()[0]
            raise WeeklyInvalid(f"{path}: {'.'.join(map(str, first['loc']))}: {first['msg']}") from error
        home = path.resolve().parent
        sets = tuple(
            each.model_copy(update={"path": home / each.path, "reals": each.reals and home / each.reals})
            for each in found.sets
        )
        return found.model_copy(update={"sets": sets})
