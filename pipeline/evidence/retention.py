"""How long evidence is kept: a policy file, by outcome and tenant.

    version = "2026-11"

    [default]
    low_risk = "30d"
    cleared = "30d"
    escalate = "1y"
    block = "6y"

    [tenant.acme]
    block = "10y"

Passes with risk `released` leave no evidence object, and dead letters are kept by Kafka alone: neither has a period.
"""

from __future__ import annotations

import re
import tomllib
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from pathlib import Path
from typing import Annotated, Any, Self

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, PlainSerializer, ValidationError

from pipeline.evidence.archive import ArchivedDecision
from schemas.types import Identifier, Version
from schemas.wire import describe

_PERIOD = re.compile(r"([1-9][0-9]{0,4})([dwy])")
_FROZEN = ConfigDict(frozen=True, extra="forbid")
_LAST_YEAR = 9999


class RetentionPolicyError(Exception):
    """A policy file that cannot be used; the text names file and field."""


@dataclass(frozen=True, slots=True)
class Period:
    """Calendar years and days, so that "6y" is never a day short of six years."""

    years: int = 0
    days: int = 0

    @staticmethod
    def parse(text: str) -> Period:
        """`30d`, `12w` or `6y`. Raises ValueError."""
        match = _PERIOD.fullmatch(text)
        if match is None:
            raise ValueError(f"{text!r}: expected days, weeks or years, such as 30d, 12w or 6y")
        number = int(match[1])
        return Period(years=number) if match[2] == "y" else Period(days=number * (7 if match[2] == "w" else 1))

    def after(self, moment: datetime) -> datetime:
        """The end of the period that begins at `moment`; a 29 February ends on 1 March."""
        year = min(moment.year + self.years, _LAST_YEAR)
        try:
            whole = moment.replace(year=year)
        except ValueError:
            whole = moment.replace(year=year, month=3, day=1)
        try:
            return whole + timedelta(days=self.days)
        except OverflowError:
            return datetime.max.replace(tzinfo=moment.tzinfo)

    def __str__(self) -> str:
        return f"{self.years}y" if self.years else f"{self.days}d"


def _parse(value: Any) -> Any:
    if isinstance(value, Period):
        return value
    if not isinstance(value, str):
        raise ValueError("expected text such as 30d, 12w or 6y")
    return Period.parse(value)


PeriodField = Annotated[Period, BeforeValidator(_parse), PlainSerializer(str, return_type=str)]


class Periods(BaseModel):
    """One for every kind of decision that has evidence; counted from the decision, or from people's word on it."""

    model_config = _FROZEN

    low_risk: PeriodField
    cleared: PeriodField
    escalate: PeriodField
    block: PeriodField


class SomePeriods(BaseModel):
    """What a tenant has otherwise; what is left out is as in `default`."""

    model_config = _FROZEN

    low_risk: PeriodField | None = None
    cleared: PeriodField | None = None
    escalate: PeriodField | None = None
    block: PeriodField | None = None


class RetentionPolicy(BaseModel):
    """One policy file. Every kind has a period in `default`: nothing is kept, or erased, because a line was missing."""

    model_config = _FROZEN

    version: Version
    default: Periods
    tenant: dict[Identifier, SomePeriods] = Field(default_factory=dict)

    @classmethod
    def load(cls, path: Path) -> Self:
        """Read a `.toml` or `.json` file.

        Raises:
            RetentionPolicyError: unreadable or invalid, with file and field.
        """
        try:
            data = path.read_bytes()
            if path.suffix == ".json":
                return cls.model_validate_json(data)
            return cls.model_validate(tomllib.loads(data.decode()))
        except ValidationError as error:
            raise RetentionPolicyError(f"{path}: {describe(error)}") from error
        except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
            raise RetentionPolicyError(f"{path}: {error}") from error

    def period(self, tenant: str, kind: str) -> Period:
        """How long the evidence of a kind of decision is kept: low_risk, cleared, escalate or block.

        Raises:
            ValueError: another kind; a released pass has no evidence and no period.
        """
        if kind not in Periods.model_fields:
            raise ValueError(f"{kind!r}: expected one of {', '.join(Periods.model_fields)}")
        period: Period = getattr(self.tenant.get(tenant), kind, None) or getattr(self.default, kind)
        return period


def due_at(policy: RetentionPolicy, records: Sequence[ArchivedDecision]) -> datetime:
    """When a decision's evidence is due: once the longest period of all its records is over.

    A review that blocks what was escalated keeps the escalation with it, else the block could not be explained.

    Args:
        policy: the periods.
        records: all records of one decision uid, at least one.
    """
    return max(policy.period(record.tenant, record.kind).after(record.counts_from) for record in records)
