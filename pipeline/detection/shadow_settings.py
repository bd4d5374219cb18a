"""Settings of a shadow; apart, so that reading settings loads no models."""

from __future__ import annotations

from pathlib import Path
from typing import Self

from pydantic import BaseModel, ConfigDict, Field, model_validator


class ShadowSettings(BaseModel):
    """The section [shadow]: rules that only watch. Neither bundle nor policy: there are none."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    bundle: Path | None = Field(
        default=None, description="bundle directory that scores the same pixels; none: the live scores are used"
    )
    policy: Path | None = Field(
        default=None, description="policy file of the shadow; none: that of its bundle, which must then be given"
    )
    share: float = Field(default=1.0, gt=0, le=1, description="share of the decisions that are compared")

    @model_validator(mode="after")
    def _a_share_of_something(self) -> Self:
        if self.share != 1.0 and not self.enabled:
            raise ValueError("share: give shadow.bundle or shadow.policy too")
        return self

    @property
    def enabled(self) -> bool:
        """True: something watches."""
        return self.bundle is not None or self.policy is not None
