"""A measured distribution of times, small enough for a file: mean, spread and a table of quantiles."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, Self

import numpy as np
from pydantic import BaseModel, ConfigDict, Field

_LEVELS = np.linspace(0.0, 1.0, 51)


class Distribution(BaseModel):
    """Of a time in seconds. `scv` is the squared coefficient of variation, variance / mean squared."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    samples: Annotated[int, Field(ge=0, description="0: not measured, given by a person or a source")]
    mean_s: Annotated[float, Field(ge=0)]
    scv: Annotated[float, Field(ge=0)]
    quantiles_s: Annotated[tuple[float, ...], Field(min_length=2, description="at equal steps from 0 to 1")]

    @classmethod
    def of(cls, samples_s: Sequence[float]) -> Self:
        """Of samples in seconds.

        Raises:
            ValueError: there is none.
        """
        if not samples_s:
            raise ValueError("no samples: nothing was measured, run longer or at a higher rate")
        values = np.asarray(samples_s, np.float64)
        mean = float(values.mean())
        scv = float(values.var()) / mean**2 if mean > 0 else 0.0
        return cls(
            samples=len(values), mean_s=mean, scv=scv, quantiles_s=tuple(np.quantile(values, _LEVELS).round(6).tolist())
        )

    @classmethod
    def constant(cls, seconds: float) -> Self:
        """A time that never varies."""
        return cls(samples=0, mean_s=seconds, scv=0.0, quantiles_s=(seconds, seconds))

    @classmethod
    def exponential(cls, mean_s: float) -> Self:
        """The distribution without memory, cut at its quantile of 1 - 1e-5."""
        levels = np.minimum(np.linspace(0.0, 1.0, 20_001), 1.0 - 1e-5)
        return cls(samples=0, mean_s=mean_s, scv=1.0, quantiles_s=tuple((-mean_s * np.log1p(-levels)).tolist()))

    def quantile(self, level: float) -> float:
        """The quantile in seconds, between the table's rows by a straight line."""
        place = level * (len(self.quantiles_s) - 1)
        below = min(int(place), len(self.quantiles_s) - 2)
        low, high = self.quantiles_s[below], self.quantiles_s[below + 1]
        return low + (place - below) * (high - low)
